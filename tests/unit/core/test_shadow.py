"""Copies of requests: when they are made, what becomes of them, and that nobody else is touched."""

from __future__ import annotations

import gc
import math
import select
from collections.abc import Iterator
from typing import Any

import pytest

from infer._core import _testing_memory as memory
from infer._core import arena, debug
from infer._core._testing_shadow import GROUP_COPIES, policies, step
from infer._core.cache import Cache
from infer._core.model_version import VersionEntry
from infer._core.shadow import Shadow, ShadowPool
from tests.support.models import FRAGILE, every_identity, fragile, identity, scale, slow, string_join, two_in_three_out
from tests.support.puppets import (
    SECOND_NS,
    Bench,
    arena_bytes,
    codes_of,
    fp32_request,
    int64_request,
    make_entry,
    parse_reply,
)
from tests.support.requests import add_raw, add_typed, infer_request, pack

ROW = fp32_request([[1.0, 2.0, 3.0, 4.0]])
WIDE = ("batch", "length")


class ShadowBench(Bench):
    """Version 2 answers, version 1 has copies; the lane is a step of the test's."""

    def __init__(self, primary: bytes, target: bytes, *, fraction: float = 1.0, rtol: float = 1e-5, atol: float = 1e-8,
                 max_copies: int = 1000, max_bytes: int = 1 << 30, of_target: dict[str, Any] | None = None,
                 **options: Any) -> None:
        self.primary = make_entry(primary, version="2")
        self.target = make_entry(target, version="1", **(of_target or {}))
        super().__init__(self.primary, self.target, **options)
        self.shadows = ShadowPool(self.loop, max_copies=max_copies, max_bytes=max_bytes)
        self.shadow = self.shadows.begin(self.target, (self.primary,), fraction=fraction, rtol=rtol, atol=atol)

    def shadow_all(self) -> int:
        """Gives, runs and collects until nothing is left; how many copies were run."""
        copies = 0
        self.loop.fire_due()
        while count := step(self.shadows):
            copies += count
            self.shadows.on_wake()
        return copies

    def close(self) -> None:
        self.shadows.stop()
        assert (self.shadows.copies, self.shadows.bytes, self.shadows.shadows) == (0, 0, [])
        super().close()
        self.outcomes.clear()


@pytest.fixture
def twins() -> Iterator[ShadowBench]:
    bench = ShadowBench(scale(2.0), scale(2.0))
    yield bench
    bench.close()


def totals(shadow: Shadow) -> dict[str, int]:
    counts = {name: getattr(shadow, name) for name in ("picked", "agreed", "differed", "failed", "waiting")}
    return counts | {f"dropped {why}": count for why, count in shadow.drops().items() if count}


def test_a_copy_is_run_after_the_reply_and_agrees(twins: ShadowBench) -> None:
    call = twins.call(ROW)
    assert totals(twins.shadow)["picked"] == 0
    twins.run_all()
    assert list(parse_reply(twins.outcome(call).data).raw_output_contents) == [pack("FP32", [2.0, 4.0, 6.0, 8.0])]
    assert totals(twins.shadow) == {"picked": 1, "agreed": 0, "differed": 0, "failed": 0, "waiting": 1}
    assert step(twins.shadows) == 0, "not before the loop has turned"
    assert twins.shadow_all() == 1
    assert totals(twins.shadow) == {"picked": 1, "agreed": 1, "differed": 0, "failed": 0, "waiting": 0}
    assert twins.shadow.outputs_compared()["y"]["elements"] == 4
    assert codes_of(twins.target) == {}
    assert twins.target.stats_snapshot((), ())["executor_ns"] == 0
    assert twins.target.handles == 0


def test_what_differs_is_measured_and_the_worst_are_kept() -> None:
    bench = ShadowBench(scale(2.0), scale(3.0))
    for i in range(20):
        bench.call(fp32_request([[float(i + 1), 0.0, 0.0, 0.0]], id=f"call {i}"))
    bench.call(fp32_request([[0.0] * 4], id="the same"))
    bench.run_all()
    bench.shadow_all()
    assert totals(bench.shadow) == {"picked": 21, "agreed": 1, "differed": 20, "failed": 0, "waiting": 0}
    of_output = bench.shadow.outputs_compared()["y"]
    assert (of_output["compared"], of_output["differing"], of_output["unequal"]) == (21, 20, 20)
    assert of_output["max_abs"] == 20
    assert of_output["max_rel"] == pytest.approx(1 / 3)
    assert (of_output["top1"], of_output["top1_same"]) == (21, 21)
    assert len(bench.shadow.worst) == 8
    badness, identity_, primary, own = bench.shadow.worst[0]
    assert badness == pytest.approx(1 / 3)
    assert identity_.startswith("call ")
    one, other = (parse_reply(bytes([0]) + len(each).to_bytes(4, "big") + each) for each in (primary, own))
    assert (one.model_version, other.model_version) == ("2", "1")
    assert one.id == identity_
    value = float(identity_.split()[1]) + 1
    assert list(one.raw_output_contents) == [pack("FP32", [2 * value, 0, 0, 0])]
    assert list(other.raw_output_contents) == [pack("FP32", [3 * value, 0, 0, 0])]
    assert list(other.outputs[0].shape) == [1, 4]
    bench.close()


def test_large_replies_are_not_kept_with_the_worst() -> None:
    bench = ShadowBench(scale(2.0, WIDE), scale(3.0, WIDE))
    bench.call(fp32_request([[1.0] * 100_000], id="large"))
    bench.run_all()
    bench.shadow_all()
    assert [pair[1:] for pair in bench.shadow.worst] == [("large", None, None)]
    bench.close()


@pytest.mark.parametrize("columns", [0, 1, 1024, 1025, 100_000])
@pytest.mark.parametrize("rows", [1, 3])
def test_replies_of_every_size_are_read(columns: int, rows: int) -> None:
    bench = ShadowBench(identity("FP32", WIDE), identity("FP32", WIDE))
    message = fp32_request([[float(row * columns + column) for column in range(columns)] for row in range(rows)])
    for _ in range(3):
        bench.call(message)
    bench.run_all()
    bench.shadow_all()
    assert totals(bench.shadow) == {"picked": 3, "agreed": 3, "differed": 0, "failed": 0, "waiting": 0}
    assert bench.shadow.outputs_compared()["y"]["elements"] == 3 * rows * columns
    bench.close()


def test_every_type_and_several_outputs() -> None:
    bench = ShadowBench(every_identity(), every_identity())
    request = infer_request()
    for name in ["BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "BF16",
                 "FP32", "FP64", "BYTES"]:
        add_raw(request, f"in_{name.lower()}", name, [1, 2], pack(name, [b"\0a", b""] if name == "BYTES" else [1, 0]))
    bench.call(request.SerializeToString())
    bench.run_all()
    bench.shadow_all()
    assert totals(bench.shadow)["agreed"] == 1
    compared = bench.shadow.outputs_compared()
    assert len(compared) == 14
    assert {each["elements"] for each in compared.values()} == {2}
    bench.close()


def test_typed_contents_are_decoded_by_the_lane() -> None:
    bench = ShadowBench(scale(2.0), scale(2.0))
    request = infer_request()
    add_typed(request, "x", "FP32", [2, 4], [float(i) for i in range(8)])
    bench.call(request.SerializeToString(), lead=3)
    bench.run_all()
    bench.shadow_all()
    assert totals(bench.shadow)["agreed"] == 1
    bench.close()


def test_only_the_outputs_that_were_asked_for() -> None:
    bench = ShadowBench(two_in_three_out(), two_in_three_out())
    request = infer_request()
    add_raw(request, "x", "FP32", [1, 4], pack("FP32", [1.0] * 4))
    add_raw(request, "z", "FP32", [1, 2], pack("FP32", [1.0] * 2))
    request.outputs.add(name="w")
    bench.call(request.SerializeToString())
    bench.run_all()
    bench.shadow_all()
    assert totals(bench.shadow)["agreed"] == 1
    assert list(bench.shadow.outputs_compared()) == ["w"]
    bench.close()


def test_another_signature_fails_and_says_why() -> None:
    bench = ShadowBench(scale(2.0), string_join())
    bench.call(ROW)
    bench.run_all()
    bench.shadow_all()
    assert totals(bench.shadow)["failed"] == 1
    assert bench.shadow.failure is not None
    assert "FP32" in bench.shadow.failure
    bench.close()


def test_a_model_that_fails_hurts_only_its_own_copy() -> None:
    bench = ShadowBench(scale(2.0), fragile(2.0))
    calls = [bench.call(fp32_request([[value, 1.0, 1.0, 1.0]])) for value in (1.0, FRAGILE, 2.0)]
    bench.run_all()
    assert all(bench.outcome(call).code == 0 for call in calls)
    bench.shadow_all()
    assert (bench.shadow.agreed, bench.shadow.failed) == (2, 1)
    assert bench.shadow.failure is not None
    assert "model 'm' version 1" in bench.shadow.failure
    bench.close()


def test_refused_and_failed_calls_have_no_copies(twins: ShadowBench) -> None:
    twins.call(fp32_request([[1.0]]))
    twins.call(b"\xff")
    twins.run_all()
    assert totals(twins.shadow)["picked"] == 0


def test_a_cancelled_call_has_no_copy_and_one_that_is_answered_twice_has_two(twins: ShadowBench) -> None:
    call = twins.call(ROW)
    twins.transport.cancel(call)
    twins.run_all()
    assert totals(twins.shadow)["picked"] == 0
    for _ in range(2):
        twins.call(ROW)
        twins.run_all()
    assert totals(twins.shadow)["picked"] == 2


def test_what_the_cache_answers_is_copied_and_nothing_of_a_copy_is_cached() -> None:
    cache = Cache(1 << 20)
    bench = ShadowBench(scale(2.0), scale(2.0), cache=cache)
    bench.pipeline.detach(bench.primary)
    bench.pipeline.detach(bench.target)
    bench.entries = []
    bench.publish(bench.primary, ttl_ns=60 * SECOND_NS, model_bytes=1 << 20)
    bench.publish(bench.target, ttl_ns=60 * SECOND_NS, model_bytes=1 << 20)
    for _ in range(3):
        bench.call(ROW)
        bench.run_all()
    bench.shadow_all()
    assert totals(bench.shadow)["agreed"] == 3
    assert bench.primary.cache_stats["hits"] == 2
    assert bench.target.cache_stats["entries"] == 0
    assert bench.target.cache_stats["misses"] == 0
    bench.close()


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.9])
def test_a_fraction_is_picked(fraction: float) -> None:
    bench = ShadowBench(scale(2.0), scale(2.0), fraction=fraction)
    for _ in range(2000):
        bench.call(ROW)
        if bench.pipeline.in_flight == 50:
            bench.run_all()
    bench.run_all()
    # Drawn from a fixed sequence.
    assert abs(bench.shadow.picked - 2000 * fraction) < 3 * math.sqrt(2000 * fraction)
    bench.shadow_all()
    assert bench.shadow.agreed == bench.shadow.picked - sum(bench.shadow.drops().values())
    bench.shadows.set_fraction(bench.shadow, 1.0)
    bench.call(ROW)
    before = bench.shadow.picked
    bench.run_all()
    assert bench.shadow.picked == before + 1
    bench.close()


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, math.nan])
def test_a_fraction_has_its_bounds(twins: ShadowBench, fraction: float) -> None:
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        twins.shadows.set_fraction(twins.shadow, fraction)


# Bounds.


def test_copies_that_wait_are_bounded() -> None:
    bench = ShadowBench(scale(2.0), scale(2.0), max_copies=5)
    for _ in range(20):
        bench.call(ROW)
    bench.run_all()
    assert totals(bench.shadow) == {"picked": 20, "agreed": 0, "differed": 0, "failed": 0, "waiting": 5,
                                    "dropped copies": 15}
    assert len(bench.outcomes) == 20
    assert bench.shadow_all() == 5
    bench.close()


def test_bytes_that_copies_hold_are_bounded() -> None:
    message = fp32_request([[1.0] * 10_000])
    bench = ShadowBench(scale(2.0, WIDE), scale(2.0, WIDE), max_bytes=500_000)
    for _ in range(20):
        bench.call(message)
        bench.run_all()
        assert bench.shadows.bytes <= 500_000
    assert bench.shadow.drops()["bytes"] == 20 - bench.shadow.waiting
    assert 0 < bench.shadow.waiting < 20
    bench.shadow_all()
    assert bench.shadows.bytes == 0
    bench.close()


def test_a_pool_has_bounds() -> None:
    bench = Bench()
    with pytest.raises(ValueError, match="max_copies 0 and max_bytes 1 must be at least 1"):
        ShadowPool(bench.loop, max_copies=0, max_bytes=1)


def test_a_copy_that_the_arena_has_no_room_for_is_dropped(twins: ShadowBench) -> None:
    twins.call(ROW)
    limit = arena.stats()["limit_bytes"]
    memory.set_limit(2 * arena_bytes() - 4096)
    try:
        twins.run_all()
    finally:
        memory.set_limit(limit)
    assert totals(twins.shadow) == {"picked": 1, "agreed": 0, "differed": 0, "failed": 0, "waiting": 0,
                                    "dropped memory": 1}
    assert twins.outcomes[0].code == 0


def test_copies_of_one_shape_run_together_and_others_apart() -> None:
    bench = ShadowBench(scale(2.0, WIDE), scale(2.0, WIDE), of_target={"gather_rows": 4})
    for columns in (1, 2, 1, 2, 1, 1, 1):
        bench.call(fp32_request([[1.0] * columns]))
    bench.run_all()
    bench.shadow_all()
    assert totals(bench.shadow)["agreed"] == 7
    bench.close()


def test_the_lane_has_at_most_a_group(twins: ShadowBench) -> None:
    for _ in range(2 * GROUP_COPIES + 1):
        twins.call(ROW)
    twins.run_all()
    twins.loop.fire_due()
    sizes = []
    while count := step(twins.shadows):
        sizes.append(count)
        twins.shadows.on_wake()
    assert sizes == [GROUP_COPIES, GROUP_COPIES, 1]


def test_shadows_take_turns() -> None:
    bench = ShadowBench(scale(2.0), scale(2.0))
    third = make_entry(scale(3.0), version="3")
    second = bench.shadows.begin(third, (bench.primary,), fraction=1.0, rtol=0, atol=0)
    for _ in range(2 * GROUP_COPIES):
        bench.call(ROW)
    bench.run_all()
    bench.loop.fire_due()
    order = []
    while step(bench.shadows):
        bench.shadows.on_wake()
        order.append((bench.shadow.agreed, second.differed))
    assert sorted(order) == order
    assert order[-1] == (2 * GROUP_COPIES, 2 * GROUP_COPIES)
    assert order[1] == (GROUP_COPIES, GROUP_COPIES)
    bench.close()


# Ends.


def test_an_end_takes_back_what_waits(twins: ShadowBench) -> None:
    for _ in range(3):
        twins.call(ROW)
    twins.run_all()
    twins.shadows.end(twins.shadow)
    assert totals(twins.shadow) == {"picked": 3, "agreed": 0, "differed": 0, "failed": 0, "waiting": 0,
                                    "dropped ended": 3}
    twins.call(ROW)
    twins.run_all()
    assert totals(twins.shadow)["picked"] == 3
    assert twins.shadow_all() == 0


def test_a_version_with_a_group_in_the_lane_goes_when_it_comes_back(twins: ShadowBench) -> None:
    for _ in range(GROUP_COPIES + 1):
        twins.call(ROW)
    twins.run_all()
    twins.loop.fire_due()
    assert twins.target.handles == 1
    twins.shadows.end(twins.shadow)
    twins.unload(twins.target)
    assert twins.drained == []
    assert step(twins.shadows) == GROUP_COPIES
    twins.shadows.on_wake()
    assert twins.drained == [twins.target]
    assert totals(twins.shadow)["agreed"] == 0
    assert totals(twins.shadow)["dropped ended"] == GROUP_COPIES + 1


def test_a_version_that_closes_has_no_more_copies(twins: ShadowBench) -> None:
    for _ in range(2):
        twins.call(ROW)
    twins.run_all()
    twins.unload(twins.target)
    assert twins.drained == [twins.target]
    assert twins.shadow_all() == 0
    assert totals(twins.shadow)["dropped ended"] == 2
    twins.call(ROW)
    twins.run_all()
    assert totals(twins.shadow)["picked"] == 2


def test_a_primary_may_go_while_its_copies_wait(twins: ShadowBench) -> None:
    twins.call(ROW)
    twins.run_all()
    twins.shadows.copy_from(twins.shadow, ())
    twins.unload(twins.primary)
    assert twins.drained == [twins.primary]
    assert twins.shadow_all() == 1
    assert totals(twins.shadow)["agreed"] == 1


def test_a_pool_that_is_dropped_whole_leaves_nothing() -> None:
    bench = ShadowBench(scale(2.0), scale(2.0))
    bench.call(ROW)
    bench.run_all()
    bench.close()
    del bench
    gc.collect()


@pytest.mark.skipif(not debug.ENABLED, reason="allocations fail on demand in debug builds only")
@pytest.mark.parametrize("columns", [4, 5_000])
def test_each_allocation_that_fails_costs_a_copy_and_nobody_else(columns: int) -> None:
    bench = ShadowBench(every_identity(), every_identity())
    request = infer_request()
    for name in ["BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "BF16",
                 "FP64"]:
        add_raw(request, f"in_{name.lower()}", name, [1, 1], pack(name, [1]))
    add_raw(request, "in_fp32", "FP32", [1, columns], pack("FP32", [1.0] * columns))
    add_raw(request, "in_bytes", "BYTES", [1, 1], pack("BYTES", [b"a"]))
    message = bytes(request.SerializeToString())
    # What an executor keeps from batch to batch is there.
    bench.call(message)
    bench.run_all()
    bench.shadow_all()
    nth, failures = 0, 0
    while True:
        nth += 1
        call = bench.call(message)
        for executor in bench.executors:
            executor.step()
        before = bench.shadow.agreed
        lost = bench.shadow.failed + sum(bench.shadow.drops().values())
        debug.fail_allocation(nth)
        bench.pipeline.on_wake()
        bench.shadow_all()
        failed = debug.fail_allocation(0)
        if bench.outcome(call).code == 0:
            assert bench.shadow.agreed - before + bench.shadow.failed + sum(bench.shadow.drops().values()) - lost == 1
        bench.outcomes.clear()
        if not failed:
            break
        failures += 1
    assert failures > 5
    assert bench.shadow.agreed > before
    bench.close()


# The thread.


def run_by_the_thread(bench: ShadowBench, entry: VersionEntry, count: int) -> None:
    bench.shadows.start()
    for _ in range(count):
        bench.call(ROW)
    bench.run_all()
    bench.loop.fire_due()
    while bench.shadow.agreed + bench.shadow.differed + bench.shadow.failed < count:
        select.select([bench.shadows.eventfd], [], [], 30)
        bench.shadows.on_wake()


def test_the_thread_runs_what_it_is_given(twins: ShadowBench) -> None:
    run_by_the_thread(twins, twins.target, 3 * GROUP_COPIES)
    assert totals(twins.shadow)["agreed"] == 3 * GROUP_COPIES


def test_the_thread_ends_with_the_pool_whatever_it_has(twins: ShadowBench) -> None:
    twins.shadows.start()
    for _ in range(3 * GROUP_COPIES):
        twins.call(ROW)
    twins.run_all()
    twins.loop.fire_due()
    twins.shadows.stop()
    counts = totals(twins.shadow)
    assert counts["agreed"] + counts["dropped ended"] == counts["picked"] == 3 * GROUP_COPIES


def test_a_run_of_minutes_ends_with_the_pool_at_whatever_moment_it_is() -> None:
    for _ in range(5):
        bench = ShadowBench(slow(0), slow(6_000_000))
        bench.shadows.start()
        bench.call(int64_request([6_000_000]))
        bench.run_all()
        bench.loop.fire_due()
        bench.shadows.stop()
        assert totals(bench.shadow) == {"picked": 1, "agreed": 0, "differed": 0, "failed": 0, "waiting": 0,
                                        "dropped ended": 1}
        bench.close()


def test_an_idle_thread_has_its_proxy_take_the_locks_of_others() -> None:
    idle, proxy = policies()
    assert (idle, proxy) == (5, 0), "SCHED_IDLE, SCHED_OTHER"
