"""Allocation and release by size class, alone and against other threads."""

import threading
from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_bench as core


def contended(rounds: int, threads: int, size_bytes: int) -> int:
    """Nanoseconds of the slowest of `threads` that allocate and release at once."""
    took: list[int] = []
    running = [
        threading.Thread(target=lambda: took.append(core.arena_pairs(rounds, size_bytes))) for _ in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return max(took)


def rows() -> Iterator[Row]:
    for size in (128, 1024, 16384, 65536, 1 << 20):
        yield measure("arena", f"allocate + release, {size} bytes", partial(core.arena_pairs, size_bytes=size))
    for size in (512, 65536):
        yield measure(
            "arena", f"allocate + release, {size} bytes, 1024 held", partial(core.arena_queue, size_bytes=size)
        )
    for threads in (2, 4):
        yield measure(
            "arena",
            f"allocate + release, 512 bytes, {threads} threads",
            partial(contended, threads=threads, size_bytes=512),
        )
