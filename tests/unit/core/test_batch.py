"""Batches run on the test's own thread: whose rows go where, what each caller is told, and what a failure costs."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from infer._core import arena
from infer._core._testing_engine import Bench, Call, budget, set_budget
from infer._core._testing_memory import set_limit
from infer._core.model_version import VersionEntry
from tests.support import models
from tests.support.engine import AGES_NS, ELEMENT_BYTES, array, call, session, strings, tensor, typed, version

OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL = 0, 3, 8, 13


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def rows(first: int, count: int, columns: int = 4) -> NDArray[np.float32]:
    """Rows that no other request has."""
    return np.arange(first * columns, (first + count) * columns, dtype=np.float32).reshape(count, columns)


def ids(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64).reshape(-1, 1)


class TestGatherAndScatter:
    def test_each_caller_gets_its_own_rows(self, bench: Bench) -> None:
        entry = version(models.scale(2.0))
        sent = [rows(0, 1), rows(1, 3), rows(4, 2)]
        calls = [call(entry, x) for x in sent]
        facts = bench.run(calls)
        assert (facts["runs"], facts["rows"], facts["run_of"]) == (1, 6, [0, 0, 0])
        for each, x in zip(calls, sent, strict=True):
            assert each.outcome[0] == OK
            assert np.array_equal(array(each.outcome[1][0]), 2 * x)

    def test_several_inputs_and_outputs(self, bench: Bench) -> None:
        entry = version(models.two_in_three_out())
        alone = session(models.two_in_three_out())
        sent = [(rows(i, n), rows(9 * i, n, 2) - 5) for i, n in enumerate((2, 1, 4))]
        calls = [call(entry, *each) for each in sent]
        bench.run(calls)
        for each, x in zip(calls, sent, strict=True):
            assert each.outcome == (OK, dict(enumerate(alone.run([tensor(part) for part in x]))))

    def test_bytes_of_any_length(self, bench: Bench) -> None:
        entry = version(models.string_join())
        sent = [[b"", b"\0"], [b"a" * 300, b"b"], [b"\xff", b""]]
        calls = [Call(entry, [("BYTES", (1, 2), strings(*pair))]) for pair in sent]
        calls.append(Call(entry, [("BYTES", (2, 2), strings(b"1", b"22", b"333", b"4444"))], rows=2))
        bench.run(calls)
        assert [each.outcome for each in calls[:3]] == [
            (OK, {0: ("BYTES", (1, 4), strings(*pair, *pair))}) for pair in sent]
        assert calls[3].outcome == (OK, {0: ("BYTES", (2, 4), strings(
            b"1", b"22", b"1", b"22", b"333", b"4444", b"333", b"4444"))})

    @pytest.mark.parametrize("datatype", models.ELEMENT_TYPES)
    @pytest.mark.parametrize("skew", [0, 1, 3, 4])
    @pytest.mark.parametrize("count", [1, 3])
    def test_every_datatype_at_any_alignment(self, bench: Bench, datatype: str, skew: int, count: int) -> None:
        entry = version(models.identity(datatype, ("batch", "length")))
        sent = []
        for i in range(count):
            data = (strings(b"\0" * i, b"a", b"bc") if datatype == "BYTES"
                    else bytes((i + k) % 2 for k in range(3 * ELEMENT_BYTES[datatype])))
            sent.append((datatype, (1, 3), data))
        calls = [Call(entry, [each], skew=skew) for each in sent]
        bench.run(calls)
        assert [each.outcome for each in calls] == [(OK, {0: one}) for one in sent]

    def test_only_the_outputs_that_were_asked_for(self, bench: Bench) -> None:
        entry = version(models.two_in_three_out())
        calls = [call(entry, rows(i, 1), rows(i, 1, 2), outputs=[2, 0]) for i in range(2)]
        bench.run(calls)
        assert [sorted(each.outcome[1]) for each in calls] == [[0, 2], [0, 2]]

    def test_outputs_that_are_no_tensors_are_left_out(self, bench: Bench) -> None:
        each = call(version(models.zipmap()), np.array([[3, 1, 2]], np.float32))
        bench.run([each])
        assert sorted(each.outcome[1]) == [0, 1]

    def test_requests_without_rows(self, bench: Bench) -> None:
        entry = version(models.identity("FP32", ("batch", 4)))
        for counts in ((0,), (0, 0), (0, 2, 0)):
            sent = [rows(i, count) for i, count in enumerate(counts)]
            calls = [call(entry, x) for x in sent]
            bench.run(calls)
            assert [each.outcome for each in calls] == [(OK, {0: tensor(x)}) for x in sent]
        entry = version(models.identity("BYTES", ("batch",)))
        each = Call(entry, [("BYTES", (0,), b"")], rows=0)
        bench.run([each])
        assert each.outcome == (OK, {0: ("BYTES", (0,), b"")})

    def test_inputs_without_elements(self, bench: Bench) -> None:
        entry = version(models.empty_columns())
        calls = [call(entry, rows(0, n, 0), rows(i, n, 3)) for i, n in enumerate((1, 2))]
        bench.run(calls)
        assert [array(each.outcome[1][0]).tolist() for each in calls] == [
            rows(0, 1, 3).tolist(), rows(1, 2, 3).tolist()]

    def test_larger_batches_after_smaller_ones_and_back(self, bench: Bench) -> None:
        entry = version(models.scale(1.0, ("batch", 1024)))
        for count in (1, 64, 2, 400, 3):
            calls = [call(entry, rows(i, 1, 1024)) for i in range(count)]
            bench.run(calls)
            assert all(np.array_equal(array(each.outcome[1][0]), rows(i, 1, 1024)) for i, each in enumerate(calls))

    def test_unbatched_requests_run_one_by_one(self, bench: Bench) -> None:
        entry = version(models.batch_mean_subtracted(), batched=False)
        calls = [call(entry, rows(i, 2)) for i in range(3)]
        facts = bench.run(calls)
        assert (facts["runs"], facts["run_of"]) == (3, [0, 1, 2])
        assert all(array(each.outcome[1][0]).tolist() == [[-2] * 4, [2] * 4] for each in calls)

    def test_unbatched_failures_are_each_their_own(self, bench: Bench) -> None:
        entry = version(models.gather(), batched=False)
        calls = [call(entry, ids(value)) for value in (1, 99, 2, -50, 3)]
        facts = bench.run(calls)
        assert [each.outcome[0] for each in calls] == [OK, INVALID_ARGUMENT, OK, INVALID_ARGUMENT, OK]
        assert facts["runs"] == 3
        assert budget(entry)[1] == 0

    def test_shapes_known_only_after_the_run(self, bench: Bench) -> None:
        entry = version(models.nonzero(), batched=False)
        each = call(entry, np.array([[0, 5, 0, 7]], np.float32))
        bench.run([each])
        assert array(each.outcome[1][0]).tolist() == [[0, 0], [1, 3]]


class TestTypedContents:
    """Contents above the loop's bound are decoded by the executor."""

    def deferred(
        self, entry: VersionEntry, name: str, datatype: str, shape: tuple[int, ...], values: list[Any]
    ) -> Call:
        return Call(entry, [(datatype, shape, b"")], rows=shape[0], typed={0: typed(name, datatype, shape, values)})

    def test_are_decoded_beside_raw_ones(self, bench: Bench) -> None:
        entry = version(models.identity("INT8", ("batch", 3)))
        calls = [self.deferred(entry, "x", "INT8", (1, 3), [1, -2, 3]),
                 Call(entry, [("INT8", (1, 3), b"\4\5\6")]),
                 self.deferred(entry, "x", "INT8", (2, 3), [7, 8, 9, -128, 127, 0])]
        assert bench.run(calls)["runs"] == 1
        assert [each.outcome for each in calls] == [
            (OK, {0: ("INT8", (1, 3), b"\x01\xfe\x03")}), (OK, {0: ("INT8", (1, 3), b"\4\5\6")}),
            (OK, {0: ("INT8", (2, 3), b"\x07\x08\x09\x80\x7f\x00")})]

    def test_bytes(self, bench: Bench) -> None:
        each = self.deferred(version(models.identity("BYTES", ("batch",))), "x", "BYTES", (2,), [b"a\0", b""])
        bench.run([each])
        assert each.outcome == (OK, {0: ("BYTES", (2,), strings(b"a\0", b""))})

    def test_a_value_out_of_range_fails_its_item_alone(self, bench: Bench) -> None:
        entry = version(models.identity("INT8", ("batch", 1)))
        calls = [self.deferred(entry, "x", "INT8", (1, 1), [value]) for value in (1, 300, 2)]
        assert bench.run(calls)["runs"] == 1
        assert [each.outcome[0] for each in calls] == [OK, INVALID_ARGUMENT, OK]
        assert "'x'" in calls[1].outcome[1]
        assert "300" in calls[1].outcome[1]

    def test_all_of_a_batch_out_of_range(self, bench: Bench) -> None:
        entry = version(models.identity("INT8", ("batch", 1)))
        calls = [self.deferred(entry, "x", "INT8", (1, 1), [300]) for _ in range(2)]
        assert bench.run(calls)["runs"] == 0
        assert [each.outcome[0] for each in calls] == [INVALID_ARGUMENT] * 2


class TestFailure:
    @pytest.mark.parametrize("culprits", [{0}, {7}, {3, 4}, {0, 2, 4, 6}, set(range(8)), {5}])
    def test_f17_f18_only_culprits_fail(self, bench: Bench, culprits: set[int]) -> None:
        entry = version(models.gather(), ran_ns=AGES_NS)
        calls = [call(entry, ids(99 if i in culprits else i)) for i in range(8)]
        facts = bench.run(calls)
        for i, each in enumerate(calls):
            if i in culprits:
                assert each.outcome[0] == INVALID_ARGUMENT
                assert each.outcome[1].startswith("model 'm' version 1 failed on this request: ")
            else:
                assert array(each.outcome[1][0]).tolist() == models.EMBEDDING_TABLE[[i]].tolist()
        assert facts["runs"] <= 8
        assert "out of data bounds" in facts["detail"]
        assert 0 < budget(entry)[1] < budget(entry)[0] - AGES_NS

    def test_one_request_of_several_rows_fails_as_one(self, bench: Bench) -> None:
        entry = version(models.gather(), ran_ns=AGES_NS)
        calls = [call(entry, ids(1, 2)), call(entry, ids(3, 99, 4)), call(entry, ids(5))]
        bench.run(calls)
        assert [each.outcome[0] for each in calls] == [OK, INVALID_ARGUMENT, OK]

    def test_clients_see_no_internal_words(self, bench: Bench) -> None:
        calls = [call(version(models.gather()), ids(99)), call(version(models.doubled_rows()), rows(0, 1))]
        for each in calls:
            bench.run([each])
            text = each.outcome[1].lower()
            assert not any(word in text for word in ("/", "onnx", "gather node", "status message", "executor", "arena"))

    def test_f17_past_its_share_of_executor_time_a_version_is_not_bisected(self, bench: Bench) -> None:
        entry = version(models.gather())
        set_budget(entry, 10_000_000_000, 1_000_000_000 + 50_000_001)
        calls = [call(entry, ids(99 if i == 3 else i)) for i in range(8)]
        assert bench.run(calls)["runs"] == 0
        assert {each.outcome[0] for each in calls} == {INTERNAL}
        assert "send it again" in calls[0].outcome[1]
        set_budget(entry, 10_000_000_000, 1_000_000_000 + 50_000_000)
        calls = [call(entry, ids(99 if i == 3 else i)) for i in range(8)]
        bench.run(calls)
        # The first part that ran again used the rest up.
        assert [each.outcome[0] for each in calls] == [INTERNAL] * 8

    def test_f24_wrong_row_count_is_never_sliced(self, bench: Bench) -> None:
        for model in (models.doubled_rows(), models.positive_rows()):
            entry = version(model)
            calls = [call(entry, rows(i, 2) - 10) for i in range(3)]
            facts = bench.run(calls)
            assert INTERNAL in {each.outcome[0] for each in calls}
            assert "not as many rows" in facts["detail"]

    def test_f24_a_model_that_drops_rows_answers_only_whole_requests(self, bench: Bench) -> None:
        entry = version(models.positive_rows(), ran_ns=AGES_NS)
        calls = [call(entry, rows(0, 2) + 1), call(entry, -rows(1, 2)), call(entry, rows(5, 1))]
        bench.run(calls)
        assert [each.outcome[0] for each in calls] == [OK, INTERNAL, OK]
        assert np.array_equal(array(calls[2].outcome[1][0]), rows(5, 1))

    def test_f22_nan_and_infinity_pass_through(self, bench: Bench) -> None:
        x = np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)
        each = call(version(models.scale(1.0)), x)
        bench.run([each])
        assert each.outcome[1][0][2] == x.tobytes()

    def test_f23_out_of_memory_is_not_bisected(self, bench: Bench) -> None:
        entry = version(models.identity("FP32", ("batch", 4096)))
        calls = [call(entry, rows(0, 1, 4096)) for _ in range(4)]
        limit = set_limit(arena.stats()["live_bytes"] + 8192)
        try:
            facts = bench.run(calls)
        finally:
            set_limit(limit)
        assert facts["runs"] == 0
        assert [each.outcome[0] for each in calls] == [RESOURCE_EXHAUSTED] * 4
        assert budget(entry)[1] == 0
        bench.run(calls[:2])
        assert [each.outcome[0] for each in calls[:2]] == [OK] * 2

    def test_no_memory_at_any_point_answers_every_item(self, bench: Bench) -> None:
        """The limit is raised from nothing until the batch passes: wherever memory ends, each item has its code."""
        entry = version(models.gather(), ran_ns=AGES_NS)
        codes = set()
        for room in itertools.count(0, 128):
            calls = [call(entry, ids(99 if i == 2 else i)) for i in range(5)]
            limit = set_limit(arena.stats()["live_bytes"] + room)
            try:
                bench.run(calls)
            except MemoryError:
                continue
            finally:
                set_limit(limit)
            codes = {each.outcome[0] for each in calls}
            assert codes <= {OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED}
            if [each.outcome[0] for each in calls] == [OK, OK, INVALID_ARGUMENT, OK, OK]:
                break
            assert room < 1 << 20

    def test_emergency_batch_answers_without_memory_and_is_one_at_a_time(self, bench: Bench) -> None:
        calls = [call(version(models.gather()), ids(i)) for i in range(3)]
        limit = set_limit(0)
        try:
            assert bench.emergency(calls)
            assert [each.outcome for each in calls] == [(RESOURCE_EXHAUSTED, "")] * 3
            assert not bench.emergency(calls)
            bench.release()
            assert bench.emergency(calls[:1])
            bench.release()
        finally:
            set_limit(limit)


def test_times_are_in_order(bench: Bench) -> None:
    calls = [call(version(models.gather()), ids(value)) for value in (1, 99)]
    for batch in ([calls[0]], [calls[1]]):
        times = bench.run(batch)["times"]
        assert list(times) == sorted(times)
