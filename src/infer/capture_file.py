"""Files of captured requests and replies: blocks of msgpack records, compressed, each with its length and CRC-32.

What was written is whole up to the last block, however the writer ended: a reader leaves a torn end aside. The first
record says what the file is. Plain; any thread, one at a time.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgpack

from infer.errors import InferError

MAGIC = b"INFERCAP1\n"
_HEAD = struct.Struct("<II")
# A block is written when it has so much; a reader takes no larger one.
BLOCK_BYTES = 256 << 10
BLOCK_BYTES_MOST = 256 << 20
# Of a file with a bound, so that a small one has more than its beginning: it is full when the next block has no room.
BLOCKS_LEAST = 16
# A level of zlib's: as it is, in its format.
STORED = 0


class CaptureFileError(InferError):
    """What is no file of captures, or cannot be opened."""


@dataclass(frozen=True)
class CapturedCall:
    """A request and what it was answered, as they were on the wire, but for what was redacted."""

    time_ns: int                # since the epoch
    model: str
    version: str
    request: bytes              # ModelInferRequest
    reply: bytes                # ModelInferResponse


class CaptureWriter:
    """Makes the file, which must not be there, readable by its owner alone. OSError where that fails."""

    def __init__(self, path: Path, about: Mapping[str, Any],
                 compress: Callable[[bytes], bytes | None] = zlib.compress, max_bytes: int | None = None) -> None:
        """`compress` gives what zlib can decompress; None: no smaller. The file has at most `max_bytes`: a block that
        would pass that is left out, and `full` says so."""
        self.path = path
        self.bytes = 0              # of the file
        self.records = 0            # but for those that were left out
        self.full = False
        self._compress = compress
        self._max_bytes = max_bytes
        self._block_bytes = BLOCK_BYTES if max_bytes is None else min(BLOCK_BYTES, max_bytes // BLOCKS_LEAST)
        self._packer = msgpack.Packer(use_bin_type=True)
        self._waiting = [self._packer.pack(dict(about))]
        self._waiting_bytes = 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        content = b"".join(self._waiting)
        self._waiting = []
        try:
            self._write(MAGIC)
            # Whoever opens the file need not wait for an idle thread.
            self._write_block(zlib.compress(content, STORED))
        except OSError:
            # Its name is free for the next attempt.
            self._file.close()
            path.unlink(missing_ok=True)
            raise

    def add(self, call: CapturedCall) -> None:
        packed = self._packer.pack([call.time_ns, call.model, call.version, call.request, call.reply])
        self._waiting.append(packed)
        self._waiting_bytes += len(packed)
        self.records += 1
        if self._waiting_bytes >= self._block_bytes:
            self.flush()

    def flush(self) -> None:
        """Writes what is not yet a block."""
        if not self._waiting:
            return
        content = b"".join(self._waiting)
        block = self._compress(content) or zlib.compress(content, STORED)
        records = len(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        if self._max_bytes is not None and self.bytes + _HEAD.size + len(block) > self._max_bytes:
            self.full = True
            self.records -= records
            return
        try:
            self._write_block(block)
        except OSError:
            self.records -= records
            raise

    def _write_block(self, block: bytes) -> None:
        self._write(_HEAD.pack(len(block), zlib.crc32(block)) + block)

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            left = left[self._file.write(left):]
        self.bytes += len(content)

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


class CaptureReader:
    """Reads a file from its beginning. `about` is its first record; `torn`, once it was read, whether its end was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = False
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise CaptureFileError(f"{path}: {error.strerror}") from None
        if self._file.read(len(MAGIC)) != MAGIC:
            self._file.close()
            raise CaptureFileError(f"{path} is no file of captures: `infer capture start` makes them")
        self._records = self._unpacked()
        about = next(self._records, None)
        if not isinstance(about, dict):
            self._file.close()
            raise CaptureFileError(f"{path} has no first record: its writer was stopped before it wrote any")
        self.about: dict[str, Any] = about

    def __iter__(self) -> Iterator[CapturedCall]:
        for record in self._records:
            if not (isinstance(record, list) and tuple(map(type, record)) == (int, str, str, bytes, bytes)):
                raise CaptureFileError(f"{self.path} has a record that is no call")
            yield CapturedCall(*record)

    def _unpacked(self) -> Iterator[Any]:
        with self._file:
            try:
                for block in iter(self._block, b""):
                    unpacker = msgpack.Unpacker(raw=False, strict_map_key=True, max_buffer_size=BLOCK_BYTES_MOST)
                    unpacker.feed(block)
                    yield from unpacker
            # Its sum is right, and it is none that a CaptureWriter writes.
            except (zlib.error, msgpack.exceptions.UnpackException, ValueError) as error:
                raise CaptureFileError(f"{self.path} has a block that cannot be read: {error}") from None
            except OSError as error:
                raise CaptureFileError(f"{self.path}: {error.strerror}") from None

    def _block(self) -> bytes:
        """The next one; empty where there is none, or it is torn."""
        head = self._file.read(_HEAD.size)
        if not head:
            return b""
        self.torn = True
        if len(head) < _HEAD.size:
            return b""
        size, crc = _HEAD.unpack(head)
        block = self._file.read(size) if size <= BLOCK_BYTES_MOST else b""
        if len(block) < size or zlib.crc32(block) != crc:
            return b""
        inflate = zlib.decompressobj()
        content = inflate.decompress(block, BLOCK_BYTES_MOST)
        if inflate.unconsumed_tail:
            raise CaptureFileError(f"{self.path} has a block of more than {BLOCK_BYTES_MOST} bytes")
        self.torn = False
        return content
