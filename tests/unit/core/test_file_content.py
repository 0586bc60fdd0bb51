"""A file's bytes without the GIL: the same as Python reads them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from infer._core.file_content import FileContent


@pytest.mark.parametrize("size_bytes", [0, 1, 65_536, 1_048_575, 1_048_576, 3_000_000])
def test_the_bytes_are_those_of_the_file(tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(os.urandom(size_bytes))
    content = FileContent(path)
    assert bytes(memoryview(content)) == path.read_bytes()  # type: ignore[arg-type]
    assert len(content) == size_bytes
    assert memoryview(content).readonly  # type: ignore[arg-type]


def test_a_buffer_outlives_its_content(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 2_000_000)
    view = memoryview(FileContent(path))  # type: ignore[arg-type]
    assert bytes(view[-3:]) == b"xxx"


def test_a_file_that_says_nothing_of_its_size_is_read_to_its_end() -> None:
    """As one that grows while it is read."""
    reading, writing = os.pipe()
    expected = os.urandom(1_500_000)

    def write() -> None:
        with open(writing, "wb") as pipe:
            pipe.write(expected)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        content = FileContent(f"/proc/self/fd/{reading}")
    finally:
        writer.join()
        os.close(reading)
    assert bytes(memoryview(content)) == expected  # type: ignore[arg-type]


def test_prefixes(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"version 1")
    content = FileContent(path)
    assert [content.startswith(each) for each in (b"", b"version", b"version 1", b"version 12", b"x")] == [
        True, True, True, False, False]
    with pytest.raises(RuntimeError, match="read once"):
        content.__init__(path)  # type: ignore[misc]


def test_what_cannot_be_read_is_said_as_open_says_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        FileContent(tmp_path / "none")
    assert missing.value.filename == str(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        FileContent(tmp_path)
