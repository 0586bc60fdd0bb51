"""The executor pool under a puppet that stands where the event loop stands."""

import os
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infer._core import arena, clock
from infer._core._testing_engine import Call, PuppetLoop, budget
from infer._core._testing_memory import set_limit
from infer._core.executor import ExecutorPool
from infer._core.model_version import VersionEntry
from tests.support import models
from tests.support.engine import AGES_NS, array, call, version

WAIT_SECONDS = 30


class Rig:
    """A running pool and its puppet loop; `finish` waits for the executors as the loop does, on the eventfd."""

    def __init__(self, entries: list[VersionEntry], executors: int = 2, *, parallel: int = 0,
                 start: bool = True) -> None:
        self.pool = ExecutorPool(executors, parallel)
        self.loop = PuppetLoop(self.pool, entries)
        self.loop.on_wake()
        if start:
            self.pool.start()

    def finish(self, calls: list[Call]) -> list[dict[str, Any]]:
        batches = []
        while any(each.outcome is None for each in calls):
            assert select.select([self.pool.eventfd], [], [], WAIT_SECONDS)[0], "no executor reported"
            batches += self.loop.on_wake()
        return batches

    def submit(self, calls: list[Call]) -> list[dict[str, Any]]:
        for each in calls:
            assert self.loop.put(each)
        self.loop.kick()
        return self.finish(calls)

    def close(self) -> None:
        self.pool.stop()
        self.loop.on_wake()
        self.loop.close()


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    made: list[Rig] = []
    yield made
    for rig in made:
        rig.close()


def scaled(entry: VersionEntry, value: int, count: int = 1) -> Call:
    return call(entry, np.full((count, 4), value, np.float32))


def value_of(each: Call) -> float:
    code, outputs = each.outcome
    assert code == 0
    return float(array(outputs[0])[0, 0])


def test_calls_come_back_with_their_own_answers(rigs: list[Rig]) -> None:
    entry = version(models.scale(3.0))
    rigs.append(Rig([entry]))
    for burst in (1, 2, 64, 65, 500):
        calls = [scaled(entry, i) for i in range(burst)]
        batches = rigs[0].submit(calls)
        assert [value_of(each) for each in calls] == [3.0 * i for i in range(burst)]
        assert {each.state for each in calls} == {"done"}
        assert sum(batch["rows"] for batch in batches) == burst
        assert max(batch["rows"] for batch in batches) <= 64


def test_several_versions_share_the_executors(rigs: list[Rig]) -> None:
    entries = [version(models.scale(float(factor)), name=f"m{factor}") for factor in range(1, 6)]
    rigs.append(Rig(entries))
    calls = [scaled(entry, i) for i in range(50) for entry in entries]
    rigs[0].submit(calls)
    assert [value_of(each) for each in calls] == [float(i * factor) for i in range(50) for factor in range(1, 6)]


def test_a_call_that_was_answered_while_it_ran_still_comes_back(rigs: list[Rig]) -> None:
    entry = version(models.slow())
    rigs.append(Rig([entry], executors=1))
    slow = call(entry, np.array([[2000]]))
    rigs[0].loop.put(slow)
    rigs[0].loop.kick()
    answered = False
    while not answered:
        assert slow.outcome is None
        answered = slow.answer()
    rigs[0].finish([slow])
    assert slow.state == "done"


def until_waiting(rig: Rig, count: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while rig.loop.waiting != count:
        assert time.monotonic() < deadline, f"{rig.loop.waiting} executors wait for the loop, expected {count}"


@pytest.mark.parametrize(("executors", "parallel"), [(1, 0), (2, 1)])
def test_while_the_loop_goes_first_no_batch_begins_before_its_turn_has_ended(
        rigs: list[Rig], executors: int, parallel: int) -> None:
    entry = version(models.scale(2.0))
    rig = Rig([entry], executors, parallel=parallel)
    rigs.append(rig)
    rig.loop.go_first()
    for _ in range(3):
        for batches in range(executors):
            # As many begin as there are executors that have not run one since the last turn.
            rig.submit([scaled(entry, 1)])
            until_waiting(rig, batches + 1)
        late = scaled(entry, 2)
        rig.loop.put(late)
        rig.loop.kick()
        assert (late.state, late.outcome) == ("queued", None)
        rig.loop.end_turn()
        rig.finish([late])
        until_waiting(rig, 1)
        rig.loop.end_turn()
        until_waiting(rig, 0)
    assert rig.loop.goes_first


def test_executors_with_cores_of_their_own_do_not_wait_for_the_turn(rigs: list[Rig]) -> None:
    entry = version(models.scale(2.0))
    rig = Rig([entry], 3)
    rigs.append(rig)
    rig.loop.go_first()
    for turn in range(50):
        rig.submit([scaled(entry, turn)])
    # The first of them shares the loop's core.
    assert rig.loop.waiting <= 1


def test_the_loop_goes_first_until_nothing_was_refused_for_a_while(rigs: list[Rig], stepped_clock: None) -> None:
    entry = version(models.scale(2.0))
    rig = Rig([entry], 1)
    rigs.append(rig)
    rig.loop.go_first()
    for ms, still in ((0, True), (100, True), (1, False)):
        clock.advance(ms * 1_000_000)
        rig.submit([scaled(entry, 1)])
        until_waiting(rig, 1)
        rig.loop.end_turn()
        assert rig.loop.goes_first is still
    for turn in range(5):
        rig.submit([scaled(entry, turn)])


def test_a_pool_that_stops_runs_what_waits_for_the_turn(rigs: list[Rig]) -> None:
    entry = version(models.scale(2.0))
    rig = Rig([entry], 1)
    rigs.append(rig)
    rig.loop.go_first()
    rig.submit([scaled(entry, 1)])
    until_waiting(rig, 1)
    last = scaled(entry, 7)
    rig.loop.put(last)
    rig.loop.kick()
    rig.pool.stop()
    rig.loop.on_wake()
    assert value_of(last) == 14.0


def test_a_call_that_waits_can_be_taken_back(rigs: list[Rig]) -> None:
    entry = version(models.scale(2.0))
    rig = Rig([entry], start=False)
    rigs.append(rig)
    calls = [scaled(entry, i) for i in range(3)]
    for each in calls:
        rig.loop.put(each)
    assert rig.loop.remove(calls[1])
    assert calls[1].state == "done"
    rig.pool.start()
    rig.loop.kick()
    rig.finish([calls[0], calls[2]])
    assert calls[1].outcome is None


def test_failing_calls_fail_alone(rigs: list[Rig]) -> None:
    entry = version(models.gather(), ran_ns=AGES_NS)
    rigs.append(Rig([entry]))
    calls = [call(entry, np.array([[99 if i % 10 == 3 else i % 10]])) for i in range(100)]
    rigs[0].submit(calls)
    assert [each.outcome[0] for each in calls] == [3 if i % 10 == 3 else 0 for i in range(100)]


def test_stop_finishes_what_is_queued() -> None:
    entry = version(models.scale(2.0))
    rig = Rig([entry], executors=3)
    calls = [scaled(entry, i) for i in range(200)]
    for each in calls:
        rig.loop.put(each)
    rig.close()
    assert [value_of(each) for each in calls] == [2.0 * i for i in range(200)]


def test_stop_without_start_and_twice() -> None:
    pool = ExecutorPool(1)
    pool.stop()
    pool.start()
    pool.stop()
    pool.stop()


def test_start_twice_is_an_error(rigs: list[Rig]) -> None:
    rigs.append(Rig([]))
    with pytest.raises(RuntimeError, match="run already"):
        rigs[0].pool.start()


@pytest.mark.parametrize("count", [0, -1])
def test_a_pool_needs_executors(count: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        ExecutorPool(count)


@pytest.mark.parametrize("parallel", [-1, 3])
def test_no_more_run_in_parallel_than_there_are_executors(parallel: int) -> None:
    with pytest.raises(ValueError, match=f"of 2 executors at most as many run in parallel, got {parallel}"):
        ExecutorPool(2, parallel)


def test_a_ring_that_nobody_drains_holds_its_executor_up() -> None:
    """Unbatched calls are a batch each: more than a ring holds wait until the loop takes some, none is lost."""
    entry = version(models.scalar(), batched=False)
    rig = Rig([entry], executors=1)
    calls = [call(entry, np.array(i, np.float32)) for i in range(1500)]
    for each in calls:
        rig.loop.put(each)
    rig.loop.kick()
    rig.finish(calls)
    assert [float(array(each.outcome[1][0])) for each in calls] == [i + 1.0 for i in range(1500)]
    rig.close()


def test_without_memory_every_call_is_answered(rigs: list[Rig]) -> None:
    entry = version(models.scale(2.0))
    rigs.append(Rig([entry], executors=2))
    calls = [scaled(entry, i) for i in range(300)]
    limit = set_limit(arena.stats()["live_bytes"])
    try:
        rigs[0].submit(calls)
    finally:
        set_limit(limit)
    assert {each.outcome[0] for each in calls} == {8}
    again = [scaled(entry, i) for i in range(10)]
    rigs[0].submit(again)
    assert {each.outcome[0] for each in again} == {0}


def names_of_threads() -> list[str]:
    return [Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task")]


def test_threads_have_names_and_leave_signals_alone(rigs: list[Rig]) -> None:
    # Servers that other tests share may run beside this pool.
    before = Counter(names_of_threads())
    rigs.append(Rig([], executors=3))
    named = Counter(names_of_threads()) - before
    assert named == Counter(["infer-exec-0", "infer-exec-1", "infer-exec-2"])
    blocked = [status for status in (Path(f"/proc/self/task/{task}/status").read_text()
                                     for task in os.listdir("/proc/self/task")) if "infer-exec-" in status]
    for status in blocked:
        mask = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
        assert mask >> (signal.SIGTERM - 1) & 1
        assert mask >> (signal.SIGINT - 1) & 1
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    rigs.pop().close()
    assert not any(name.startswith("infer-exec-") for name in Counter(names_of_threads()) - before)


def test_executors_need_no_gil(rigs: list[Rig]) -> None:
    """This thread keeps the GIL from the kick until the batch has run."""
    entry = version(models.scale(2.0))
    rigs.append(Rig([entry], executors=1))
    each = scaled(entry, 5)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    try:
        rigs[0].loop.put(each)
        rigs[0].loop.kick()
        for _ in range(1_000_000_000):
            if budget(entry)[0]:
                break
    finally:
        sys.setswitchinterval(interval)
    rigs[0].finish([each])
    assert value_of(each) == 10.0
