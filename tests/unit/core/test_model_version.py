"""VersionEntry: its handles, its end, its limits and statistics; TensorInfo."""

import sys
from typing import Any

import pytest

from infer._core.model_version import Hold, TensorInfo, VersionEntry
from tests.support.models import gather, identity, two_in_three_out
from tests.support.puppets import Bench, codes_of, fp32_request, int64_request, make_entry

ROW = fp32_request([[1.0, 2.0, 3.0, 4.0]])
LIMITS = {"max_rows": 4, "gather_rows": 4, "delay_ns": 0, "queue_limit_rows": 4, "max_running": 1}


def test_close_calls_back_at_once_where_nothing_holds_it() -> None:
    entry = make_entry(identity())
    calls: list[int] = []
    entry.close(lambda: calls.append(1))
    assert calls == [1]
    assert entry.on_drained is None


def test_close_calls_back_once_when_the_last_handle_is_gone() -> None:
    entry = make_entry(identity())
    bench = Bench(entry)
    first, second = bench.call(ROW), bench.call(ROW)
    assert entry.handles == 2
    calls: list[int] = []
    entry.close(lambda: calls.append(entry.handles))
    bench.transport.cancel(first)
    assert (entry.handles, calls) == (1, [])
    bench.run_all()
    assert bench.outcome(second).code == 0
    assert calls == [0]
    bench.close()


def test_a_version_is_closed_once() -> None:
    entry = make_entry(identity())
    entry.close(None)
    with pytest.raises(RuntimeError, match="closed already"):
        entry.close(None)


def test_the_first_handle_holds_a_reference_until_the_last_is_gone() -> None:
    entry = make_entry(identity())
    bench = Bench(entry)
    before = sys.getrefcount(entry)
    first, second = bench.call(ROW), bench.call(ROW)
    assert sys.getrefcount(entry) == before + 1
    bench.transport.cancel(first)
    assert sys.getrefcount(entry) == before + 1
    bench.transport.cancel(second)
    assert sys.getrefcount(entry) == before
    bench.close()


@pytest.mark.parametrize(("limit", "value"), [
    ("max_rows", 0), ("gather_rows", 0), ("queue_limit_rows", 0), ("max_running", 0), ("delay_ns", -1),
])
def test_limits_without_which_nothing_could_run_are_refused(limit: str, value: int) -> None:
    with pytest.raises(ValueError, match=limit):
        VersionEntry("m", "1", None, [], [], batched=True, properties={}, **(LIMITS | {limit: value}))


@pytest.mark.parametrize("policy", [
    {"levels": 65, "default_level": 1}, {"levels": -1}, {"levels": 2}, {"levels": 2, "default_level": 3},
    {"default_level": 1}, {"levels": 2, "default_level": 1, "policies": [(0, 0, False, False)]},
    {"policies": [(-1, 0, False, False)]}, {"policies": [(0, -1, False, False)]},
])
def test_queue_policies_that_cannot_be_are_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        VersionEntry("m", "1", None, [], [], batched=True, properties={}, **LIMITS, **policy)


def test_more_outputs_than_a_mask_has_bits_are_refused() -> None:
    outputs = [TensorInfo(f"y{i}", 1, (-1,)) for i in range(257)]
    with pytest.raises(ValueError, match="257 outputs, at most 256"):
        VersionEntry("m", "1", None, [], outputs, batched=True, properties={}, **LIMITS)


def test_an_unbatched_version_runs_one_request_at_a_time_and_never_waits() -> None:
    entry = VersionEntry("m", "1", None, [], [], batched=False, properties={}, **(LIMITS | {"delay_ns": 5}))
    assert (entry.batched, entry.gather_rows) == (False, 1)


def test_tensors_as_metadata_shows_them() -> None:
    entry = make_entry(two_in_three_out())
    assert [repr(info) for info in entry.inputs] == ["x FP32 [batch,4]", "z FP32 [batch,2]"]
    assert [(info.name, info.datatype, info.shape, info.served) for info in entry.outputs] == [
        ("y", "FP32", (-1, 6), True), ("w", "FP32", (-1,), True), ("v", "BOOL", (-1, 2), True)]
    assert repr(TensorInfo("x", 1, None)) == "x FP32 [?]"
    assert not TensorInfo("x", 0, None, datatype="SEQUENCE").served


def test_statistics_count_every_end_of_a_request(stepped_clock: None) -> None:
    entry = make_entry(identity())
    bench = Bench(entry)
    bench.call(fp32_request([[0.0] * 4] * 3))
    bench.call(ROW)
    bench.transport.cancel(bench.call(ROW))
    bench.call(fp32_request([[0.0] * 3]))
    bench.advance(7)
    bench.executors[0].take()
    bench.advance(100)
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.advance(1000)
    bench.pipeline.on_wake()
    stats = entry.stats_snapshot((10,), (1, 2, 4, 8))
    assert codes_of(entry) == {0: 2, 1: 1, 3: 1}
    assert (stats["rows"], stats["batches"]) == (4, 1)
    assert stats["batch_rows"] == (1, 4, (0, 0, 1, 1))
    assert stats["request_ns"] == 2 * 1107
    assert stats["failed_ns"] == 0
    assert stats["queue"][0] == 2
    assert stats["last_inference_ms"] > 1_600_000_000_000
    # Both calls went in one run of four rows; each has its durations, the run has them once.
    assert stats["batch_sizes"] == [(4, 1, stats["gather_ns"] // 2, stats["run_ns"] // 2, stats["scatter_ns"] // 2)]
    bench.close()


@pytest.mark.parametrize(("rows", "shown"), [
    ([1, 1, 3], [(1, 2), (3, 1)]), ([1024], [(1024, 1)]), ([1025, 1151], [(1151, 2)]), ([1152], [(1279, 1)]),
    ([1500], [(1535, 1)])])
def test_batches_are_counted_by_their_size(stepped_clock: None, rows: list[int], shown: list[tuple[int, int]]) -> None:
    entry = make_entry(identity(), max_rows=1500)
    bench = Bench(entry)
    for count in rows:
        bench.call(fp32_request([[0.0] * 4] * count))
        bench.advance(5)
        bench.executors[0].take()
        bench.executors[0].run()
        bench.executors[0].publish()
        bench.pipeline.on_wake()
    assert [(size, runs) for size, runs, *_ in entry.stats_snapshot((), ())["batch_sizes"]] == shown
    bench.close()


def test_the_parts_of_a_failed_batch_are_counted_by_their_size(stepped_clock: None) -> None:
    entry = make_entry(gather())
    bench = Bench(entry)
    calls = [bench.call(int64_request([value])) for value in (1, 2, 99, 3)]
    bench.run_all()
    assert [bench.outcome(call).code for call in calls] == [0, 0, 3, 0]
    stats = entry.stats_snapshot((), ())
    assert [(rows, runs) for rows, runs, *_ in stats["batch_sizes"]] == [(1, 1), (2, 1)]
    assert (stats["rows"], stats["batches"]) == (3, 2)
    bench.close()


def test_python_holds_a_version_until_it_drops_it() -> None:
    entry = make_entry(identity())
    hold = Hold(entry)
    drained: list[int] = []
    entry.close(lambda: drained.append(entry.handles))
    assert (entry.handles, drained) == (1, [])
    hold.drop()
    assert (entry.handles, drained) == (0, [0])
