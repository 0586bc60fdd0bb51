"""Directories of versions are deleted in one step, and only a model's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infer.models.removal import PREFIX, age_s, finish_removals, remove


def version(base: Path, number: int) -> Path:
    directory = base / str(number)
    (directory / "data").mkdir(parents=True)
    (directory / "model.onnx").write_bytes(b"m")
    (directory / "data" / "w").write_bytes(b"w")
    return directory


def test_age_is_that_of_the_newest_file(tmp_path: Path) -> None:
    directory = version(tmp_path, 1)
    for path in (*directory.rglob("*"), directory):
        os.utime(path, (1000, 1000))
    assert age_s(directory, 1500) == 500
    os.utime(directory / "data" / "w", (1400, 1400))
    assert age_s(directory, 1500) == 100
    # A clock that runs behind the file server's.
    assert age_s(directory, 1000) == 0
    assert age_s(tmp_path / "none", 1500) is None


def test_a_removed_version_is_gone_with_its_files(tmp_path: Path) -> None:
    directory = version(tmp_path, 1)
    remove(tmp_path, directory)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_directory_of_the_model_stays(tmp_path: Path) -> None:
    elsewhere = version(tmp_path / "elsewhere", 1)
    base = tmp_path / "m"
    base.mkdir()
    (base / "1").symlink_to(elsewhere)
    for directory in (elsewhere, base / "1"):
        with pytest.raises(OSError, match="not a directory in"):
            remove(base, directory)
    assert (elsewhere / "model.onnx").exists()


def test_what_a_removal_left_goes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        caplog: pytest.LogCaptureFixture) -> None:
    directory = version(tmp_path, 1)

    def failing(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", failing)
        remove(tmp_path, directory)
        assert "its files are still in" in caplog.text
        finish_removals(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{PREFIX}1"]
    finish_removals(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_leaves_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = version(tmp_path, 1)

    def failing(self: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Read-only"):
        remove(tmp_path, directory)
    assert (directory / "data" / "w").exists()
