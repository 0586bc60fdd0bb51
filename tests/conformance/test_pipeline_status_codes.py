"""Rows of WIRE 4.4 that are decided between router and batch, each named as the table names it."""

import pytest

from infer._core import clock
from tests.support.models import gather, identity
from tests.support.puppets import MILLISECOND_NS, Bench, codes_of, fp32_request, int64_request, make_entry, rows_of

OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 3, 4, 5
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, INTERNAL, UNAVAILABLE = 8, 9, 13, 14
ROW = [[1.0, 2.0, 3.0, 4.0]]

LOADING = (UNAVAILABLE, "model 'loading' is loading: retry in a moment")
FAILED = (FAILED_PRECONDITION, "model 'failed' could not be loaded: not an ONNX file")


pytestmark = pytest.mark.usefixtures("stepped_clock")


def several_models() -> Bench:
    return Bench(make_entry(identity()), make_entry(identity(), version="3"), make_entry(gather(), "gather"),
                 unready=[("loading", LOADING), ("failed", FAILED)])


def refused(message: bytes) -> tuple[int, str]:
    bench = several_models()
    outcome = bench.outcome(bench.call(message))
    bench.close()
    return outcome.code, outcome.message


@pytest.mark.parametrize(("model", "version", "says"), [
    ("nobody", "", "unknown model 'nobody'"), ("nobody", "1", "unknown model 'nobody'"),
    ("m", "2", "model 'm' has no version '2'; served: 3, 1"), ("", "", "names no model"),
], ids=["model", "model and version", "version", "no name at all"])
def test_unknown_model_or_version_is_not_found(model: str, version: str, says: str) -> None:
    code, message = refused(fp32_request(ROW, model, version))
    assert code == NOT_FOUND
    assert says in message


@pytest.mark.parametrize(("model", "reason"), [("loading", LOADING), ("failed", FAILED)],
                         ids=["UNAVAILABLE while loading", "FAILED_PRECONDITION after a load failure"])
def test_model_known_no_version_servable_answers_with_the_reason(
        model: str, reason: tuple[int, str]) -> None:
    assert refused(fp32_request(ROW, model)) == reason


def test_f30_known_version_still_loading_is_unavailable() -> None:
    assert refused(fp32_request(ROW, "loading", "1")) == LOADING


def test_f30_known_version_unloading_is_unavailable() -> None:
    bench = several_models()
    [entry, *_] = bench.entries
    held = bench.call(fp32_request(ROW, "m", "1"))
    entry.close(lambda: bench.pipeline.detach(entry))
    late = bench.outcome(bench.call(fp32_request(ROW, "m", "1")))
    assert (late.code, late.message) == (
        UNAVAILABLE, "model 'm' version 1 is being unloaded; retry later or send to another replica")
    bench.run_all()
    assert bench.outcome(held).code == OK
    assert bench.outcome(bench.call(fp32_request(ROW, "m", "1"))).code == UNAVAILABLE
    bench.entries.remove(entry)
    bench.close()


def test_known_version_unloaded_is_not_found() -> None:
    bench = several_models()
    bench.unload(bench.entries[0])
    assert bench.outcome(bench.call(fp32_request(ROW, "m", "1"))).code == NOT_FOUND
    bench.close()


@pytest.mark.parametrize("name", ["../x", "a\0b", "x" * 129, "a/b", "é"],
                         ids=["../x", "NUL", "over 128", "slash", "not ASCII"])
def test_name_that_breaks_the_rules_is_invalid_argument(name: str) -> None:
    assert refused(fp32_request(ROW, name))[0] == INVALID_ARGUMENT


@pytest.mark.parametrize("version", ["01", "-1", "0", " 1", "a/b", "9" * 40])
def test_version_that_is_neither_integer_nor_label_is_invalid_argument(version: str) -> None:
    assert refused(fp32_request(ROW, "m", version))[0] == INVALID_ARGUMENT


@pytest.mark.parametrize("label", ["abc", "1.0"])
def test_label_that_nobody_set_is_not_found(label: str) -> None:
    code, message = refused(fp32_request(ROW, "m", label))
    assert (code, message) == (NOT_FOUND, f"model 'm' has no label '{label}'; served: 3, 1")


def test_bad_tensors_are_invalid_argument_with_detail() -> None:
    code, message = refused(fp32_request([[1.0, 2.0, 3.0]]))
    assert code == INVALID_ARGUMENT
    assert message.startswith("input 'x' of model 'm': expected FP32 [-1,4], got FP32 [1,3]; ")


def test_f14_queue_full_is_resource_exhausted_with_a_pushback() -> None:
    entry = make_entry(identity(), queue_limit_rows=2)
    bench = Bench(entry)
    queued = [bench.call(fp32_request(ROW)) for _ in range(2)]
    refusals = [bench.outcome(bench.call(fp32_request(ROW))) for _ in range(3)]
    assert {outcome.code for outcome in refusals} == {RESOURCE_EXHAUSTED}
    assert all(outcome.pushback_ms >= 1 for outcome in refusals)
    bench.run_all()
    assert [bench.outcome(call).code for call in queued] == [OK, OK]
    bench.close()
    assert codes_of(entry) == {OK: 2, RESOURCE_EXHAUSTED: 3}


def test_f4_queue_timeout_is_deadline_exceeded_and_never_executed() -> None:
    bench = several_models()
    entry = bench.entries[1]
    call = bench.call(fp32_request(ROW), deadline_ns=clock.now() + 5 * MILLISECOND_NS)
    bench.advance(4 * MILLISECOND_NS)
    assert not bench.answered(call)
    bench.advance(2 * MILLISECOND_NS)
    outcome = bench.outcome(call)
    assert (outcome.code, outcome.message) == (
        DEADLINE_EXCEEDED, "the deadline passed while the request waited in its queue; it was not run")
    assert bench.run_all() == 0
    bench.close()
    assert rows_of(entry) == 0
    assert codes_of(entry) == {DEADLINE_EXCEEDED: 1}


def test_cancelled_by_client_is_counted_as_cancelled_and_answered_by_nobody() -> None:
    bench = several_models()
    entry = bench.entries[1]
    receiving, queued = bench.open(), bench.call(fp32_request(ROW))
    bench.transport.cancel(receiving)
    bench.transport.cancel(queued)
    running = bench.call(fp32_request(ROW))
    bench.executors[0].take()
    bench.transport.cancel(running)
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.close()
    assert bench.outcomes == []
    assert codes_of(entry) == {CANCELLED: 2}
    assert bench.pipeline.unrouted_calls()[CANCELLED] == 1
    assert rows_of(entry) == 1


@pytest.mark.parametrize("ids", [[99], [1, 99]], ids=["alone", "beside a good row of its own"])
def test_f18_model_execution_error_is_the_requests_own_and_hides_the_runtimes_words(
        ids: list[int]) -> None:
    bench = several_models()
    good, bad = bench.call(int64_request([2], "gather")), bench.call(int64_request(ids, "gather"))
    bench.run_all()
    assert bench.outcome(good).code == OK
    outcome = bench.outcome(bad)
    # INVALID_ARGUMENT where the runtime blames the input, else INTERNAL.
    assert outcome.code in (INVALID_ARGUMENT, INTERNAL)
    assert outcome.message.startswith("model 'gather' version 1 failed on this request: ")
    assert "Gather" not in outcome.message
    bench.close()


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\x05m", b"\x0b\x0b\x0b"],
                         ids=["truncated varint", "truncated field", "unclosed groups"])
def test_malformed_protobuf_is_internal(message: bytes) -> None:
    bench = several_models()
    assert bench.outcome(bench.call(message)).code == INTERNAL
    bench.close()
    assert bench.pipeline.unrouted_calls()[INTERNAL] == 1
