"""What a start that looks once loads: the highest version that is sound, and the rest logged."""

import logging
from pathlib import Path

import pytest

from infer.errors import ConfigError
from infer.models.repository import scan
from tests.support import models
from tests.support.models import write_model, write_version


def test_the_highest_sound_version_of_each_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for version in (1, 2, 10):
        write_version(tmp_path, "a", version, models.scale(version))
    write_version(tmp_path, "a", 11, models.scale()[:-20])
    write_version(tmp_path, "b", 3, models.identity())
    with caplog.at_level(logging.WARNING, "infer.models"):
        sources = scan([tmp_path])
    assert [(source.name, source.version, source.files.path) for source in sources] == [
        ("a", 10, tmp_path / "a/10/model.onnx"), ("b", 3, tmp_path / "b/3/model.onnx")]
    (record,) = caplog.records
    assert record.message.startswith(f"{tmp_path / 'a/11/model.onnx'}: is not an ONNX model, or only a part of one")


def test_several_paths(tmp_path: Path) -> None:
    write_model(tmp_path / "b.onnx", models.identity())
    write_version(tmp_path / "r", "c", 1, models.identity())
    write_model(tmp_path / "a/1/model.onnx", models.identity())
    assert [source.name for source in scan([tmp_path / "b.onnx", tmp_path / "r", tmp_path / "a"])] == ["a", "b", "c"]


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    write_model(tmp_path / "x.pt", b"")
    write_model(tmp_path / "b/a.onnx", b"")
    (tmp_path / "r/c/1").mkdir(parents=True)
    with pytest.raises(ConfigError) as caught:
        scan([tmp_path / path for path in ("b", "x.pt", "none", "r")])
    first, *rest = caught.value.message.split("\n  ")
    assert first == "4 problems with the models to serve:"
    assert [line.removeprefix(f"{tmp_path}/").split(":")[0] for line in rest] == ["b/a.onnx", "x.pt", "none", "r/c/1"]


def test_no_path() -> None:
    with pytest.raises(ConfigError, match="no path to serve was given"):
        scan([])
