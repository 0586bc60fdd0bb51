"""Deadlines set and taken back, and deadlines that expire."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_bench as core

DISTANCES = {"100 ms": 10**8, "30 s": 30 * 10**9, "1 h": 3600 * 10**9}


def rows() -> Iterator[Row]:
    for name, ahead in DISTANCES.items():
        yield measure("timer_wheel", f"add + remove, {name} ahead", partial(core.wheel_pairs, ahead_ns=ahead))
    for name, ahead in DISTANCES.items():
        yield measure("timer_wheel", f"add + expire, 1024 over {name}", partial(core.wheel_expiries, ahead_ns=ahead))
    yield measure("timer_wheel", "a tick in which nothing expires", core.wheel_idle_ticks)
