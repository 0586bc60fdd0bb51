"""What is found, put and evicted by recency, and the hash that it is found by."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_lru as core


def rows() -> Iterator[Row]:
    for entries in (1_000, 10_000, 100_000):
        for operation, puts in (("get, one of {} at random", False), ("put that evicts, {} entries", True)):
            yield measure("lru", operation.format(entries), partial(core.lru_rounds, entries=entries, puts=puts))
    for size in (4, 64, 1024, 16_384, 1 << 20):
        yield measure("hash128", f"{size} bytes", partial(core.hash_rounds, size_bytes=size),
                      rounds=200_000 if size < 1024 else max(20, (200 << 20) // size))
