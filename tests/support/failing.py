"""Runs a scenario again and again, each time with another of its allocations failing. Debug builds only."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infer._core import arena, debug
from infer._core._testing_slab import live_pieces

MOST_ALLOCATIONS = 20_000

in_debug_builds = pytest.mark.skipif(not debug.ENABLED,
                                     reason="release builds have no allocations that fail on demand")


def footprint() -> Any:
    return debug.live(), arena.stats()["live_bytes"], live_pieces()


def fail_each(scenario: Callable[[], Iterator[None]], and_on: bool) -> int:
    """How many allocations there are between the scenario's two yields, each of which was made to fail: what comes
    before the first prepares, what comes after the second is held against what may come of a failure."""
    # What an earlier test left in a cycle would go in the middle, and with it memory that counts.
    gc.collect()
    for nth in range(1, MOST_ALLOCATIONS):
        before = footprint()
        steps = scenario()
        next(steps)
        debug.fail_allocation(nth, and_on)
        try:
            next(steps)
        finally:
            failed = debug.fail_allocation(0)
        assert next(steps, "ended") == "ended"
        assert footprint() == before, f"allocation {nth} failed"
        if failed == 0:
            return nth - 1
    raise AssertionError(f"more than {MOST_ALLOCATIONS} allocations")


both_ways = pytest.mark.parametrize("and_on", [False, True], ids=["one", "and all that follow"])
