"""Whether a model fits into the memory that there is, before the runtime finds out. Any thread.

The estimate is the bytes of its files, those of its data included, times a factor: at the height of a load the runtime
holds the file, the weights out of it and what it packs of them for its kernels. How many times depends on the
operators; the default is the most that was seen (tests/integration/test_model_memory.py measures it again).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infer.errors import ModelLoadError

PEAK_FACTOR = 3.25
# What a load takes beside that: its session, and what the runtime's allocator rounds up by.
LEAST_BYTES = 24 << 20
_MIB = 1 << 20


def estimated_bytes(total_bytes: int, factor: float = PEAK_FACTOR) -> int:
    """Of memory at the height of a load. `total_bytes`: of the model's file and its data."""
    return LEAST_BYTES + int(total_bytes * factor)


def ensure_fits(total_bytes: int, limit_bytes: int, used_bytes: int, factor: float = PEAK_FACTOR) -> None:
    """Raises ModelLoadError where the estimate does not fit beside what is used. A factor of 0 lets everything pass."""
    if factor <= 0:
        return
    needed = estimated_bytes(total_bytes, factor)
    free = max(0, limit_bytes - used_bytes)
    if needed > free:
        raise ModelLoadError(
            f"the model needs about {_mib(needed)} of memory while it loads ({factor} times its {_mib(total_bytes)} of "
            f"files), and {_mib(free)} of the limit of {_mib(limit_bytes)} are free; raise the container's memory "
            "limit, unload other models, or lower --model-memory-factor if this one is known to need less")


def used_bytes(root: Path = Path("/")) -> int:
    """Memory of this process that is its own: what the kernel cannot take back."""
    for line in (root / "proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{root / 'proc/self/status'} does not say RssAnon")


def _mib(size_bytes: int) -> str:
    return f"{-(-size_bytes // _MIB)} MiB"


class Reservations:
    """Memory that loads under way will still take, so that several at once are not each let in alone. `limit_bytes`
    of 0 lets everything pass."""

    def __init__(self, limit_bytes: int, factor: float = PEAK_FACTOR) -> None:
        self._limit_bytes, self._factor = limit_bytes, factor
        self._lock = threading.Lock()
        self._reserved_bytes = 0

    @contextmanager
    def reserved(self, total_bytes: int) -> Iterator[None]:
        """For the time of a load of so many bytes of files. Raises ModelLoadError where they do not fit."""
        if not self._limit_bytes or self._factor <= 0:
            yield
            return
        needed = estimated_bytes(total_bytes, self._factor)
        with self._lock:
            ensure_fits(total_bytes, self._limit_bytes, used_bytes() + self._reserved_bytes, self._factor)
            self._reserved_bytes += needed
        try:
            yield
        finally:
            with self._lock:
                self._reserved_bytes -= needed
