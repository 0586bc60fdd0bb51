"""What a version's files hold; the ways in which they cannot be loaded are rows of tests/bad_input/repositories.py."""

from pathlib import Path

import pytest

from infer.models import contents
from infer.models.contents import LARGE_BYTES, read_contents, read_file
from infer.models.listing import Entry, Listing
from tests.support import models
from tests.support.models import write_external_data_model, write_model


def test_a_model_with_its_data(tmp_path: Path) -> None:
    write_external_data_model(tmp_path / "1/model.onnx")
    found = read_contents(Listing(tmp_path), tmp_path / "1", None)
    assert found.problem is None
    assert found.file == tmp_path / "1/model.onnx"
    assert found.external == ("model.onnx.data",)
    assert found.total_bytes == sum(file.stat().st_size for file in (tmp_path / "1").iterdir())
    assert found.facts is not None
    assert [name for name, *_ in found.facts["inputs"]] == ["x"]


@pytest.mark.parametrize(("files", "filename", "chosen"), [
    (["model.onnx", "other.onnx"], None, "model.onnx"), (["net.onnx", "notes.txt"], None, "net.onnx"),
    (["model.onnx", "other.onnx"], "other.onnx", "other.onnx"), (["net.bin"], "net.bin", "net.bin"),
    (["model.onnx/model.onnx", "model.onnx/net.onnx"], None, "model.onnx/model.onnx"),
    (["model.onnx/net.onnx"], None, "model.onnx/net.onnx"), (["a/net.onnx"], "a/net.onnx", "a/net.onnx")])
def test_which_file_is_the_model(tmp_path: Path, files: list[str], filename: str | None, chosen: str) -> None:
    for name in files:
        write_model(tmp_path / name, models.scale())
    assert read_contents(Listing(tmp_path), tmp_path, filename).file == tmp_path / chosen


def test_links_to_data_elsewhere_in_the_repository_are_followed(tmp_path: Path) -> None:
    write_external_data_model(tmp_path / "store/model.onnx")
    (tmp_path / "1").mkdir()
    for name in ("model.onnx", "model.onnx.data"):
        (tmp_path / "1" / name).symlink_to(f"../store/{name}")
    found = read_contents(Listing(tmp_path), tmp_path / "1", None)
    assert found.problem is None
    assert found.file == tmp_path / "1/model.onnx"


def test_a_file_for_which_there_is_no_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(LARGE_BYTES + 1)
    entry = Entry(path.name, path, path, path.stat())
    monkeypatch.setattr(contents, "used_bytes", lambda: 10)
    monkeypatch.setattr(contents, "memory_limit_bytes", lambda: LARGE_BYTES + 10)
    refused = read_file(entry, tmp_path)
    assert refused.problem is not None
    assert "more than there is memory left; raise the container's memory limit" in str(refused.problem)
    monkeypatch.setattr(contents, "memory_limit_bytes", lambda: LARGE_BYTES + 11)
    read = read_file(entry, tmp_path)
    assert read.problem is not None
    assert read.problem.code == "E209"
