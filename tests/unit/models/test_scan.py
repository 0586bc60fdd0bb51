"""Which models a tree of files has, and what is said about a tree that cannot be served."""

from pathlib import Path

import pytest

from infer.models.listing import Listing
from infer.models.scan import Scan, nearest_version, scan_root


def tree(root: Path, *files: str) -> Path:
    """Writes the files; a path that ends in / is a directory."""
    for file in files:
        path = root / file
        if file.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"model")
    return root


def scan(path: Path, name: str | None = None) -> Scan:
    return scan_root(Listing(path), name)


def found(scanned: Scan, root: Path) -> list[tuple[str, int, str]]:
    """Each version of each model, with its directory or the file that alone counts in it."""
    return [(model.name, version, str((model.file.path if model.file else directory).relative_to(root)))
            for model in scanned.models for version, directory in sorted(model.versions.items())]


@pytest.mark.parametrize(("files", "path", "expected"), [
    (["net.onnx"], "net.onnx", [("net", 1, "net.onnx")]),
    (["NET.ONNX"], "NET.ONNX", [("NET", 1, "NET.ONNX")]),
    (["net/net-v2.onnx", "net/labels.txt"], "net", [("net-v2", 1, "net/net-v2.onnx")]),
    (["net/model.onnx", "net/model.onnx.data"], "net", [("net", 1, "net/model.onnx")]),
    (["net/3/model.onnx"], "net", [("net", 3, "net/3")]),
    (["net/3/model.onnx"], "net/3", [("net", 3, "net/3")]),
    (["net/3/x.onnx"], "net/3", [("x", 1, "net/3/x.onnx")]),
    (["net/3/x.onnx"], "net", [("net", 3, "net/3")]),
    (["net/9/model.onnx", "net/10/model.onnx", "net/2/model.onnx"], "net",
     [("net", 2, "net/2"), ("net", 9, "net/9"), ("net", 10, "net/10")]),
    (["net/9/model.onnx", "net/10/"], "net", [("net", 9, "net/9"), ("net", 10, "net/10")]),
    (["net/999999999999999999/model.onnx"], "net", [("net", 999999999999999999, "net/999999999999999999")]),
    (["net/1/model.onnx/model.onnx", "net/1/model.onnx/weights"], "net", [("net", 1, "net/1")]),
    (["net/1/model.onnx/model.onnx"], "net/1", [("net", 1, "net/1")]),
    (["net.onnx/model.onnx"], "net.onnx", [("net", 1, "net.onnx/model.onnx")]),
    (["r/b/1/model.onnx", "r/a/2/model.onnx", "r/a/1/model.onnx"], "r",
     [("a", 1, "r/a/1"), ("a", 2, "r/a/2"), ("b", 1, "r/b/1")]),
    (["r/a/1/model.onnx", "r/README.md", "r/build.py", "r/.git/1/model.onnx", "r/docs/x.md", "r/a/sample.npz"], "r",
     [("a", 1, "r/a/1")]),
    (["r/a/1/model.onnx", "r/2024/notes.txt"], "r", [("a", 1, "r/a/1")]),
])
def test_layouts(tmp_path: Path, files: list[str], path: str, expected: list[tuple[str, int, str]]) -> None:
    tree(tmp_path, *files)
    scanned = scan(tmp_path / path)
    assert found(scanned, tmp_path) == expected
    assert scanned.problems == []


def test_directory_as_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "net/1/model.onnx")
    monkeypatch.chdir(tmp_path / "net")
    assert [(model.name, list(model.versions)) for model in scan(Path()).models] == [("net", [1])]
    monkeypatch.chdir(tmp_path / "net" / "1")
    assert [(model.name, list(model.versions)) for model in scan(Path()).models] == [("net", [1])]


def test_links_inside_the_root_are_followed(tmp_path: Path) -> None:
    tree(tmp_path, "r/.store/x/model.onnx", "r/net/")
    (tmp_path / "r/net/1").symlink_to("../.store/x")
    assert found(scan(tmp_path / "r"), tmp_path) == [("net", 1, "r/.store/x")]


@pytest.mark.parametrize(("link", "said"), [("r/net/1", "r/net/1"), ("r/other", "r/other")])
def test_links_that_lead_out_are_refused(tmp_path: Path, link: str, said: str) -> None:
    tree(tmp_path, "out/1/model.onnx", "r/a/1/model.onnx", "r/net/2/model.onnx")
    (tmp_path / link).symlink_to(tmp_path / "out")
    scanned = scan(tmp_path / "r")
    assert [model.name for model in scanned.models] == ["a", "net"]
    (problem,) = scanned.problems
    assert str(problem).startswith(f"{tmp_path / said}: ")
    assert "leads out of" in str(problem)
    assert problem.code == "E208"


@pytest.mark.parametrize(("files", "path"), [
    (["x.onnx"], "x.onnx"), (["d/x.onnx"], "d"), (["d/1/model.onnx"], "d"), (["r/a/1/model.onnx"], "r"),
    (["bad name!.onnx"], "bad name!.onnx")])
def test_name_renames_the_only_model(tmp_path: Path, files: list[str], path: str) -> None:
    tree(tmp_path, *files)
    assert [model.name for model in scan(tmp_path / path, "other").models] == ["other"]


@pytest.mark.parametrize(("files", "aside"), [
    (["net/1/model.onnx", "net/v2/model.onnx"], "net/v2"), (["net/1/model.onnx", "net/02/model.onnx"], "net/02")])
def test_what_is_left_aside_is_warned_of(tmp_path: Path, files: list[str], aside: str) -> None:
    tree(tmp_path, *files)
    (problem,) = scan(tmp_path / "net").problems
    assert str(problem).startswith(f"{tmp_path / aside}: version: left aside, ")
    assert not problem.is_error
    assert "rename it to 2" in problem.fix


def test_directories_that_cannot_be_names_are_told_of_beside_the_others(tmp_path: Path) -> None:
    tree(tmp_path, "r/a/1/model.onnx", "r/my model/1/model.onnx")
    scanned = scan(tmp_path / "r")
    assert [model.name for model in scanned.models] == ["a"]
    (problem,) = scanned.problems
    assert str(problem) == (f"{tmp_path / 'r/my model'}: name: left aside, expected a name of 1 to 128 of "
                            "A-Z a-z 0-9 _ . -, got 'my model'; rename the directory [E206]")


@pytest.mark.parametrize(("files", "path", "said"), [
    ([], "none", "does not exist, expected a model.onnx, its directory or a repository"),
    (["x.pt"], "x.pt", "is not an .onnx file"),
    (["d/"], "d", "no .onnx file found, expected model.onnx, <version>/model.onnx or <name>/<version>/model.onnx, got "
     "nothing"),
    (["d/a.txt", "d/b.txt"], "d", "got a.txt, b.txt"),
    (["d/a.onnx", "d/b.onnx"], "d", "expected one .onnx, got 2: a.onnx, b.onnx; name one as the path"),
    (["d/a.onnx", "d/1/model.onnx"], "d", "a.onnx: expected either one .onnx or version directories, got a.onnx beside "
     "1/"),
    (["d/a.onnx", "d/m/1/model.onnx"], "d", "got a.onnx beside m/"),
    (["d/v1/model.onnx"], "d", "a version is a whole number from 1 without zeros in front, expected a version "
     "directory, got v1; rename v1 to 1"),
    (["d/01/model.onnx", "d/1.0/model.onnx"], "d", "got 01, 1.0; rename 01 to 1"),
    (["d/0/model.onnx"], "d", "got 0; rename 0 to 1"),
    (["d/1000000000000000000/model.onnx"], "d", "got 1000000000000000000; rename"),
    (["d/a/model.onnx"], "d", "expected <name>/<version>/model.onnx, got a/model.onnx without a version; move it to"),
    (["d/r/a/1/model.onnx"], "d", "the models lie one level deeper, got r/; serve"),
    (["d/r/a/v1/model.onnx"], "d", "their versions are not whole numbers"),
    (["d/a/1/model.onnx", "d/b/model.onnx"], "d", "there is no version directory around it; move it to"),
    (["d/a/1/model.onnx", "d/b/v1/model.onnx"], "d", "expected a version directory, got v1"),
    (["d/a/1/model.onnx", "d/b/config.pbtxt"], "d", "got config.pbtxt alone"),
    (["bad name!.onnx"], "bad name!.onnx", "'bad name!' cannot be a model's name, expected 1 to 128 of"),
    (["r/my model/1/model.onnx"], "r", "left aside, expected a name of"),
])
def test_problems(tmp_path: Path, files: list[str], path: str, said: str) -> None:
    tree(tmp_path, *files)
    (problem,) = scan(tmp_path / path).problems
    assert str(problem).startswith(str(tmp_path / path))
    assert said in str(problem)


def test_a_root_that_is_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    scanned = scan(tmp_path / "gone")
    assert "does not exist (a symbolic link to nothing)" in str(scanned.problems[0])
    assert scanned.unreadable == {tmp_path / "gone"}


def test_a_directory_that_cannot_be_read_is_the_problem_of_its_model_alone(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "r/a/1/model.onnx", "r/b/1/model.onnx")
    listing = Listing(tmp_path / "r")
    read = listing.entries

    def refuse(directory: Path, hidden: bool = False) -> object:
        if directory.name == "a":
            raise PermissionError(13, "Permission denied", str(directory))
        return read(directory, hidden)

    monkeypatch.setattr(listing, "entries", refuse)
    scanned = scan_root(listing)
    assert [model.name for model in scanned.models] == ["b"]
    assert [str(problem) for problem in scanned.problems] == [
        f"{tmp_path / 'r/a'}: cannot be read: Permission denied; let the user that serves read it; see that it can be "
        "read [E200]"]
    assert scanned.unreadable == {tmp_path / "r/a"}


@pytest.mark.parametrize(("name", "meant"), [("v1", "1"), ("01", "1"), ("1.0", "1"), ("v12", "12"), ("0", "1"),
                                             ("007", "7"), ("1.2", "12"), ("v", "1")])
def test_the_version_that_was_meant(name: str, meant: str) -> None:
    assert nearest_version(name) == meant
