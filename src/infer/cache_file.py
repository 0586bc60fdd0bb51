"""`--cache-file`: answers that were used last outlive the process, and are kept again by a version of the same model.

Written when the server stops, newest first, as msgpack with a SHA-256 behind it; read when it starts, and given to each
version as it is loaded, if its files have the same checksum and its tensors are the same. A file that cannot be used is
said and left aside. It holds what clients have sent: only its owner may read it. Loop thread, but for `read`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Any

from infer import __version__
from infer._core.cache import Cache
from infer._core.cache_saved import saved, warm
from infer._core.model_version import VersionEntry

log = logging.getLogger("infer.server")

FORMAT = 1
# As long as it may take to write them when a server is told to stop, and to read them when it starts.
SAVED_BYTES_MOST = 64 << 20
FILE_BYTES_MOST = 4 * SAVED_BYTES_MOST
DIGEST_BYTES = 32

Record = tuple[int, int, list[int], list[Any], bytes]


class CacheFile:
    """Reads the file, if there is one."""

    def __init__(self, path: Path, cache: Cache) -> None:
        self.path = path
        self._cache = cache
        self._saved_s = 0.0
        self._records: dict[str, list[Record]] = {}
        try:
            self._saved_s, self._records = read(path)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("%s (--cache-file) is left aside: %s", path, error)

    def attached(self, entry: VersionEntry) -> None:
        """Keeps again what a version like this one had answered; once."""
        records = self._records.pop(model_of(entry), ()) if entry.cache_stats is not None else ()
        passed_ns = max(0, round((time.time() - self._saved_s) * 1e9))
        kept = 0
        # Oldest first: the newest is the last used again.
        for age_ns, left_ns, outputs, inputs, tail in reversed(records):
            if left_ns < 0 or left_ns > passed_ns:
                kept += warm(self._cache, entry, age_ns + passed_ns, left_ns if left_ns < 0 else left_ns - passed_ns,
                             outputs, inputs, tail)
        if kept:
            log.info("model %r version %s: %d answers are kept again", entry.name.decode(), entry.version, kept,
                     extra={"model": entry.name.decode(), "version": entry.version, "answers": kept})

    def save(self) -> None:
        """Writes what is kept now, all at once or not at all."""
        import msgpack

        records: dict[str, list[Record]] = {}
        for entry, age_ns, left_ns, outputs, inputs, tail in saved(self._cache, SAVED_BYTES_MOST):
            records.setdefault(model_of(entry), []).append((age_ns, left_ns, outputs, inputs, tail))
        content = msgpack.packb({"format": FORMAT, "infer": __version__, "saved": time.time(), "answers": records})
        staged = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content + hashlib.sha256(content).digest())
                file.flush()
                os.fsync(file.fileno())
            staged.rename(self.path)
        except OSError as error:
            staged.unlink(missing_ok=True)
            log.error("the answers that are kept were not saved to %s (--cache-file): %s", self.path, error.strerror)
            return
        log.info("answers that are kept were saved", extra={"answers": sum(map(len, records.values())),
                                                            "file": str(self.path)})


def read(path: Path) -> tuple[float, dict[str, list[Record]]]:
    """When it was saved, by the wall clock, and the answers by model. Raises OSError, or ValueError for what is no such
    file of this version of the server."""
    import msgpack

    if path.stat().st_size > FILE_BYTES_MOST:
        raise ValueError(f"it has more than {FILE_BYTES_MOST} bytes")
    content = path.read_bytes()
    content, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("it is not whole")
    found = msgpack.unpackb(content)
    if (found["format"], found["infer"]) != (FORMAT, __version__):
        raise ValueError(f"it was written by version {found['infer']} of the server")
    return found["saved"], found["answers"]


def model_of(entry: VersionEntry) -> str:
    """What has to be the same: the model's name, its files, and the tensors that it is served with."""
    tensors = [[(each.name, each.datatype, each.shape, each.reshape, each.served) for each in listed]
               for listed in (entry.inputs, entry.outputs)]
    said = repr((entry.name, entry.properties.get("sha256", ""), entry.batched, tensors))
    return hashlib.sha256(said.encode()).hexdigest()
