"""Files of captures: what was written is read, and a torn end costs what it tore."""

from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer._core.idle_zlib import compress
from infer.capture_file import MAGIC, CapturedCall, CaptureFileError, CaptureReader, CaptureWriter

calls = st.builds(CapturedCall, st.integers(0, 2**63 - 1), st.text(max_size=8), st.sampled_from(["1", "27"]),
                  st.binary(max_size=200), st.binary(max_size=200))
# False: a flush.
steps = st.lists(calls | st.just(False), max_size=20)


def written(path: Path, todo: list[CapturedCall | bool]) -> list[CapturedCall]:
    writer = CaptureWriter(path, {"model": "m"})
    kept = []
    for step in todo:
        if isinstance(step, CapturedCall):
            writer.add(step)
            kept.append(step)
        else:
            writer.flush()
    writer.close()
    assert writer.records == len(kept)
    assert writer.bytes == path.stat().st_size
    return kept


@settings(max_examples=20)
@given(st.binary(max_size=2000), st.integers(0, 400))
def test_blocks_are_compressed_by_an_idle_thread(content: bytes, more: int) -> None:
    content += bytes(more)
    found = compress(content)
    if found is None:
        assert more < 200
    else:
        assert zlib.decompress(found) == content
        assert len(found) < len(content)


@given(steps)
def test_what_was_written_is_read(todo: list[CapturedCall | bool]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.capture")
        kept = written(path, todo)
        reader = CaptureReader(path)
        assert reader.about == {"model": "m"}
        assert list(reader) == kept
        assert not reader.torn


@given(steps, st.floats(0, 1, exclude_max=True), st.booleans())
def test_a_torn_or_damaged_end_costs_no_more_than_what_is_behind_it(
        todo: list[CapturedCall | bool], where: float, cut: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.capture")
        kept = written(path, todo)
        content = path.read_bytes()
        at = int(where * len(content))
        path.write_bytes(content[:at] if cut else content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1:])
        try:
            reader = CaptureReader(path)
        except CaptureFileError:
            # The head, or the block with the first record.
            return
        found = list(reader)
        assert found == kept[:len(found)]
        assert reader.torn or len(found) == len(kept) or cut


@given(steps, st.integers(1 << 10, 4 << 10))
def test_a_file_has_no_more_than_its_bound(todo: list[CapturedCall | bool], max_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.capture")
        writer = CaptureWriter(path, {"model": "m"}, lambda content: None, max_bytes)
        kept: list[CapturedCall] = []
        for step in todo:
            if isinstance(step, CapturedCall):
                writer.add(step)
                kept.append(step)
            else:
                writer.flush()
            if writer.full:
                break
        writer.close()
        assert writer.bytes == path.stat().st_size <= max_bytes
        assert writer.full or writer.records == len(kept)
        assert list(CaptureReader(path)) == kept[:writer.records]


def block(content: bytes) -> bytes:
    return struct.pack("<II", len(content), zlib.crc32(content)) + content


@pytest.mark.parametrize(("content", "said"), [
    (b"no zlib", "has a block that cannot be read"), (zlib.compress(b"\xc1"), "has a block that cannot be read"),
    (zlib.compress(b"\xa1\xff"), "has a block that cannot be read"),
    (zlib.compress(msgpack.packb([1, 2, 3, 4, 5])), "has a record that is no call"),
    (zlib.compress(msgpack.packb({"a": 1})), "has a record that is no call")])
def test_what_no_writer_writes_is_said_and_no_crash(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.capture"
    path.write_bytes(MAGIC + block(zlib.compress(msgpack.packb({"model": "m"}))) + block(content))
    with pytest.raises(CaptureFileError, match=said):
        list(CaptureReader(path))


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.capture"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        CaptureWriter(path, {})
    assert path.read_bytes() == b"mine"


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    CaptureWriter(tmp_path / "a.capture", {}).close()
    assert (tmp_path / "a.capture").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is no file of captures"), (b"PK\3\4", "is no file of captures"), (MAGIC, "has no first record"),
    (MAGIC + b"\1", "has no first record")])
def test_what_is_no_file_of_captures(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.capture"
    path.write_bytes(content)
    with pytest.raises(CaptureFileError, match=said):
        CaptureReader(path)
    with pytest.raises(CaptureFileError, match="No such file"):
        CaptureReader(tmp_path / "gone")
