"""What `scan` finds in a tree of files, and what it says about a tree that it cannot serve."""

from pathlib import Path

import pytest

from infer.errors import ConfigError
from infer.models.repository import ModelSource, scan


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


def found(sources: list[ModelSource], root: Path) -> list[tuple[str, str, str]]:
    return [(source.name, source.version, str(source.path.relative_to(root))) for source in sources]


def problems(*paths: Path, name: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        scan(paths, name)
    first, *rest = caught.value.message.split("\n  ")
    assert first in ("one problem with the models to serve:", f"{len(rest)} problems with the models to serve:")
    return rest


@pytest.mark.parametrize(("files", "path", "expected"), [
    (["net.onnx"], "net.onnx", [("net", "1", "net.onnx")]),
    (["NET.ONNX"], "NET.ONNX", [("NET", "1", "NET.ONNX")]),
    (["net/net-v2.onnx", "net/labels.txt"], "net", [("net-v2", "1", "net/net-v2.onnx")]),
    (["net/model.onnx", "net/model.onnx.data"], "net", [("net", "1", "net/model.onnx")]),
    (["net/3/model.onnx"], "net", [("net", "3", "net/3/model.onnx")]),
    (["net/3/model.onnx"], "net/3", [("net", "3", "net/3/model.onnx")]),
    (["net/3/x.onnx"], "net/3", [("x", "1", "net/3/x.onnx")]),
    (["net/3/x.onnx"], "net", [("net", "3", "net/3/x.onnx")]),
    (["net/3/model.onnx", "net/3/other.onnx"], "net", [("net", "3", "net/3/model.onnx")]),
    (["net/9/model.onnx", "net/10/model.onnx", "net/2/model.onnx"], "net", [("net", "10", "net/10/model.onnx")]),
    (["net/9/model.onnx", "net/10/"], "net", [("net", "9", "net/9/model.onnx")]),
    (["net/999999999999999999/model.onnx"], "net",
     [("net", "999999999999999999", "net/999999999999999999/model.onnx")]),
    (["r/b/1/model.onnx", "r/a/2/model.onnx", "r/a/1/model.onnx"], "r",
     [("a", "2", "r/a/2/model.onnx"), ("b", "1", "r/b/1/model.onnx")]),
    (["r/a/1/model.onnx", "r/README.md", "r/build.py", "r/.git/1/model.onnx", "r/docs/x.md", "r/a/sample.npz"], "r",
     [("a", "1", "r/a/1/model.onnx")]),
    (["r/a/1/model.onnx", "r/2024/notes.txt"], "r", [("a", "1", "r/a/1/model.onnx")]),
])
def test_layouts(tmp_path: Path, files: list[str], path: str, expected: list[tuple[str, str, str]]) -> None:
    tree(tmp_path, *files)
    assert found(scan([tmp_path / path]), tmp_path) == expected


def test_directory_as_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "net/1/model.onnx")
    monkeypatch.chdir(tmp_path / "net")
    assert [(source.name, source.version) for source in scan([Path()])] == [("net", "1")]
    monkeypatch.chdir(tmp_path / "net" / "1")
    assert [(source.name, source.version) for source in scan([Path()])] == [("net", "1")]


def test_several_paths(tmp_path: Path) -> None:
    tree(tmp_path, "b.onnx", "r/c/1/model.onnx", "a/1/model.onnx")
    sources = scan([tmp_path / "b.onnx", tmp_path / "r", tmp_path / "a"])
    assert [source.name for source in sources] == ["a", "b", "c"]


def test_symbolic_links_to_models_are_followed(tmp_path: Path) -> None:
    tree(tmp_path, "store/blob", "net/1/")
    (tmp_path / "net/1/model.onnx").symlink_to("../../store/blob")
    assert found(scan([tmp_path / "net"]), tmp_path) == [("net", "1", "net/1/model.onnx")]


@pytest.mark.parametrize(("files", "path"), [
    (["x.onnx"], "x.onnx"), (["d/x.onnx"], "d"), (["d/1/model.onnx"], "d"), (["r/a/1/model.onnx"], "r"),
    (["bad name!.onnx"], "bad name!.onnx")])
def test_name_renames_the_only_model(tmp_path: Path, files: list[str], path: str) -> None:
    tree(tmp_path, *files)
    assert [source.name for source in scan([tmp_path / path], "other")] == ["other"]


def test_name_needs_a_single_model(tmp_path: Path) -> None:
    tree(tmp_path, "r/a/1/model.onnx", "r/b/1/model.onnx")
    assert problems(tmp_path / "r", name="n") == ["--name n needs exactly one model, found 2: a, b"]


@pytest.mark.parametrize(("files", "aside"), [
    (["net/1/model.onnx", "net/v2/model.onnx"], "net/v2"), (["net/1/model.onnx", "net/02/model.onnx"], "net/02"),
    (["net/1/model.onnx", "net/2/"], "net/2")])
def test_what_is_left_aside_is_warned_of(tmp_path: Path, files: list[str], aside: str) -> None:
    tree(tmp_path, *files)
    (source,) = scan([tmp_path / "net"])
    (warning,) = source.warnings
    assert warning.startswith(f"{tmp_path / aside}: left aside, ")


def test_directories_that_cannot_be_names_are_warned_of(tmp_path: Path) -> None:
    tree(tmp_path, "r/a/1/model.onnx", "r/my model/1/model.onnx")
    (source,) = scan([tmp_path / "r"])
    assert source.warnings == (
        f"{tmp_path / 'r/my model'}: left aside, a model's name is 1 to 128 of A-Z a-z 0-9 _ . -",)


@pytest.mark.parametrize(("files", "path", "said"), [
    ([], "none", "does not exist; expected a model.onnx, its directory or a repository"),
    (["x.pt"], "x.pt", "is not an .onnx file"),
    (["d/"], "d", "no .onnx file found, it holds nothing; expected model.onnx, <version>/model.onnx or <name>/"),
    (["d/a.txt", "d/b.txt"], "d", "no .onnx file found, it holds a.txt, b.txt"),
    (["d/a.onnx", "d/b.onnx"], "d", "expected one .onnx, found 2: a.onnx, b.onnx; name one as the path"),
    (["d/a.onnx", "d/1/model.onnx"], "d", "holds a.onnx beside 1/; expected either"),
    (["d/a.onnx", "d/m/1/model.onnx"], "d", "holds a.onnx beside m/; expected either"),
    (["d/1/a.onnx", "d/1/b.onnx"], "d", "expected model.onnx, found 2 others: a.onnx, b.onnx; rename one"),
    (["d/1/"], "d", "expected model.onnx in it, found none; put the model there"),
    (["d/1/x/model.onnx"], "d", "expected model.onnx in it, found none, but"),
    (["d/v1/model.onnx"], "d", "expected a version directory, found v1; a version is a whole number from 1"),
    (["d/01/model.onnx", "d/1.0/model.onnx"], "d", "found 01, 1.0; a version is a whole number from 1"),
    (["d/0/model.onnx"], "d", "found 0; a version is a whole number from 1"),
    (["d/1000000000000000000/model.onnx"], "d", "found 1000000000000000000; a version is a whole number"),
    (["d/a/model.onnx"], "d", "expected <name>/<version>/model.onnx, found a/model.onnx without a version; move it to"),
    (["d/r/a/1/model.onnx"], "d", "the models lie one level deeper; serve"),
    (["d/r/a/v1/model.onnx"], "d", "their versions are not whole numbers"),
    (["d/a/1/model.onnx", "d/b/model.onnx"], "d", "holds model.onnx without a version directory; move it to"),
    (["d/a/1/model.onnx", "d/b/v1/model.onnx"], "d", "expected a version directory, found v1"),
    (["bad name!.onnx"], "bad name!.onnx", "'bad name!' cannot be a model's name, expected 1 to 128 of"),
    (["r/my model/1/model.onnx"], "r", "left aside, a model's name is"),
])
def test_problems(tmp_path: Path, files: list[str], path: str, said: str) -> None:
    tree(tmp_path, *files)
    (problem,) = problems(tmp_path / path)
    assert problem.startswith(str(tmp_path / path))
    assert said in problem


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is empty; the copy or the export was cut short"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
     "is a Git LFS pointer, not the model; run: git lfs pull"),
])
@pytest.mark.parametrize("path", ["m.onnx", "m", "r"])
def test_files_that_are_no_models(tmp_path: Path, content: bytes, said: str, path: str) -> None:
    tree(tmp_path, "m.onnx", "m/model.onnx", "r/m/1/model.onnx")
    for file in tmp_path.rglob("*.onnx"):
        file.write_bytes(content)
    (problem,) = problems(tmp_path / path)
    assert said in problem


def test_links_to_nothing(tmp_path: Path) -> None:
    tree(tmp_path, "m/1/")
    (tmp_path / "m/1/model.onnx").symlink_to("nowhere")
    (tmp_path / "gone.onnx").symlink_to("nowhere")
    assert problems(tmp_path / "m", tmp_path / "gone.onnx") == [
        f"{tmp_path / 'm/1/model.onnx'}: is a symbolic link to nothing",
        f"{tmp_path / 'gone.onnx'}: does not exist (a symbolic link to nothing); expected a model.onnx, its directory "
        "or a repository"]


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    tree(tmp_path, "a.onnx", "b/a.onnx", "x.pt", "r/c/1/", "r/d/1/model.onnx")
    found_problems = problems(*(tmp_path / path for path in ("a.onnx", "b", "x.pt", "none", "r")))
    assert [problem.removeprefix(str(tmp_path) + "/").split(":")[0] for problem in found_problems] == [
        "x.pt", "none", "r/c/1", "model 'a' is found 2 times, at " + str(tmp_path / "a.onnx") + " and "
        + str(tmp_path / "b/a.onnx") + "; a name is served once"]


def test_no_path() -> None:
    (problem,) = problems()
    assert "no path to serve was given" in problem


def test_directory_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    tree(tmp_path, "d/1/model.onnx")
    monkeypatch.setattr("infer.models.repository.os.scandir", refuse)
    assert problems(tmp_path / "d") == [
        f"{tmp_path / 'd'}: cannot be read: Permission denied; let the user that serves read it"]
