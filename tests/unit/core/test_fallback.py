"""What answers calls of a version whose breaker is open, and what its breaker learns of calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from infer._core import clock
from infer._core.fallback import answers, set_guard
from infer._core.router import RouteTable, route_to_highest
from infer.errors import InvalidArgument
from tests.support import models
from tests.support.engine import AGES_NS, set_budget
from tests.support.puppets import MILLISECOND_NS, SECOND_NS, Bench, make_entry
from tests.support.requests import add_raw, infer_request, pack

OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE = 0, 3, 4, 8, 13, 14
LIMITS: dict[str, Any] = {"fallback": "previous", "window_ns": 10 * SECOND_NS, "min_calls": 4, "error_rate": 0.5,
                          "slow_ns": 0, "slow_rate": 0.5, "open_ns": 2 * SECOND_NS, "probes": 2}
GOOD, BAD = 1.0, models.FRAGILE
REPLY = [("y", "FP32", (1, 4), pack("FP32", [9, 8, 7, 6]))]


def request(*rows: float, version: str = "", columns: int = 4) -> bytes:
    message = infer_request("m", model_version=version)
    add_raw(message, "x", "FP32", [len(rows), columns], pack("FP32", [row for row in rows for _ in range(columns)]))
    return bytes(message.SerializeToString())


class Versions:
    """Version 2, which has the guard, over version 1; both fail on BAD. The changes of state that were told."""

    def __init__(self, *, numbers: tuple[str, ...] = ("1", "2"), executors: int = 1, **limits: Any) -> None:
        # What a number's version multiplies by is its number.
        self.entries = {number: make_entry(models.fragile(float(number)), "m", number, gather_rows=1)
                        for number in numbers}
        for entry in self.entries.values():
            set_budget(entry, AGES_NS, 0)
        self.bench = Bench(*self.entries.values(), executors=executors)
        self.entry = self.entries[numbers[-1]]
        self.told: list[str] = []
        set_guard(self.entry, LIMITS | limits, lambda entry: self.told.append(entry.guard.state))

    def close(self) -> None:
        self.bench.close()
        for entry in self.entries.values():
            set_guard(entry, None)
        for outcome in self.bench.outcomes:
            _ = outcome.data        # gives its Blocks back

    def call(self, *rows: float, **named: Any) -> int:
        call = self.bench.call(request(*rows, **named))
        self.bench.run_all()
        return call

    def open(self) -> None:
        while self.entry.guard.state != "open":
            assert self.bench.outcome(self.call(BAD)).code == INTERNAL

    def reply(self, *rows: float, **named: Any) -> tuple[str, str, list[float]]:
        """The version that answered, how it is marked, the first column."""
        reply = self.bench.reply(self.call(*rows, **named))
        mark = reply.parameters["infer_fallback"].string_param if "infer_fallback" in reply.parameters else ""
        return reply.model_version, mark, np.frombuffer(reply.raw_output_contents[0], np.float32)[::4].tolist()

    def refusal(self, *rows: float, **named: Any) -> tuple[int, str, int]:
        outcome = self.bench.outcome(self.call(*rows, **named))
        return outcome.code, outcome.message, outcome.pushback_ms


@pytest.fixture
def versions(stepped_clock: None) -> Iterator[Versions]:
    made = Versions()
    yield made
    made.close()


def test_the_version_below_answers_and_says_so(versions: Versions) -> None:
    assert versions.reply(GOOD) == ("2", "", [2.0])
    versions.open()
    assert versions.reply(GOOD, 3.0) == ("1", "previous", [1.0, 3.0])
    assert versions.entry.guard.answered_by() == {"previous": 1, "static": 0, "unavailable": 0}
    # What the other one does wrong is its own.
    assert versions.refusal(BAD)[0] == INTERNAL
    assert (versions.entry.guard.opened, versions.told) == (1, ["open"])


def test_it_comes_back_by_itself(versions: Versions) -> None:
    versions.open()
    clock.advance(2 * SECOND_NS)
    assert versions.reply(GOOD) == ("2", "", [2.0])
    assert versions.told == ["open", "half-open"]
    assert versions.reply(GOOD) == ("2", "", [2.0])
    assert (versions.told, versions.entry.guard.state_number) == (["open", "half-open", "closed"], 0)


def test_a_trial_that_fails_opens_it_for_longer(versions: Versions) -> None:
    versions.open()
    clock.advance(2 * SECOND_NS)
    assert versions.refusal(BAD)[0] == INTERNAL
    assert (versions.told, versions.entry.guard.wait_ns) == (["open", "half-open", "open"], 4 * SECOND_NS)
    assert versions.entry.guard.why == "1 of its last 1 calls failed"


def test_only_so_many_calls_are_part_of_a_trial_at_once(versions: Versions) -> None:
    versions.open()
    clock.advance(2 * SECOND_NS)
    trial = [versions.bench.call(request(GOOD)) for _ in range(2)]
    other = versions.bench.call(request(GOOD))
    versions.bench.transport.cancel(trial[0])
    third = versions.bench.call(request(GOOD))
    versions.bench.run_all()
    assert [versions.bench.reply(call).model_version for call in (trial[1], other, third)] == ["2", "1", "2"]
    assert versions.entry.guard.state == "closed"


def test_a_trial_whose_call_is_refused_is_not_used_up(versions: Versions) -> None:
    versions.open()
    clock.advance(2 * SECOND_NS)
    for _ in range(5):
        assert versions.refusal(GOOD, columns=3)[0] == INVALID_ARGUMENT
        late = versions.bench.call(request(GOOD), deadline_ns=clock.now() + 1)
        versions.bench.advance(2 * MILLISECOND_NS)
        assert versions.bench.outcome(late).code == DEADLINE_EXCEEDED
    assert versions.entry.guard.state == "half-open"
    assert [versions.reply(GOOD)[0] for _ in range(2)] == ["2", "2"]
    assert versions.entry.guard.state == "closed"


def test_who_names_a_version_is_not_answered_by_another(versions: Versions) -> None:
    versions.open()
    code, text, pushback_ms = versions.refusal(GOOD, version="2")
    assert (code, text, pushback_ms) == (
        UNAVAILABLE, "model 'm' version 2 is not called for now, since 4 of its last 4 calls failed; it is tried again "
        "in 2000 ms; retry then, or send to another version or replica", 2000)
    assert versions.reply(GOOD, version="1") == ("1", "", [1.0])


def test_without_a_version_below_it_is_unavailable(stepped_clock: None) -> None:
    versions = Versions(numbers=("2",))
    versions.open()
    assert versions.refusal(GOOD)[0] == UNAVAILABLE
    assert versions.entry.stats_snapshot((), ())["calls"][UNAVAILABLE] == 1
    clock.advance(2 * SECOND_NS)
    for _ in range(2):
        versions.bench.call(request(GOOD))
    assert versions.refusal(GOOD) == (
        UNAVAILABLE, "model 'm' version 2 is not called for now, since 4 of its last 4 calls failed; it is being tried "
        "with other calls; retry then, or send to another version or replica", 100)
    versions.bench.run_all()
    versions.close()


def test_the_next_below_answers_where_that_fails_too(stepped_clock: None) -> None:
    versions = Versions(numbers=("1", "2", "3"))
    set_guard(versions.entries["2"], LIMITS)
    versions.open()
    for _ in range(4):
        assert versions.refusal(BAD)[0] == INTERNAL
    assert versions.reply(GOOD) == ("1", "previous", [1.0])
    versions.close()


def test_a_written_reply_has_as_many_rows_as_the_request(stepped_clock: None) -> None:
    versions = Versions(fallback="static", reply=REPLY)
    versions.open()
    assert versions.reply(GOOD, GOOD, GOOD) == ("2", "static", [9.0, 9.0, 9.0])
    assert versions.reply(GOOD, version="2") == ("2", "static", [9.0])
    assert versions.refusal(GOOD, columns=3)[0] == INVALID_ARGUMENT
    assert versions.entry.guard.answered_by() == {"previous": 0, "static": 3, "unavailable": 0}
    assert versions.entry.stats_snapshot((), ())["rows"] == 0
    versions.close()


@pytest.mark.parametrize(("reply", "said"), [
    ([], "has no output 'y'; it has none"),
    ([("z", "FP32", (1, 4), b"")], "has no output 'y'; it has z"),
    ([*REPLY, ("z", "FP32", (1, 4), b"")], "the model has no output z"),
    ([("y", "INT32", (1, 4), b"")], r"expected FP32 \[1, 4\], got INT32 \[1, 4\]"),
    ([("y", "FP32", (2, 4), b"")], r"expected FP32 \[1, 4\], got FP32 \[2, 4\]"),
    ([("y", "FP32", (4,), b"")], r"expected FP32 \[1, 4\], got FP32 \[4\]")])
def test_a_reply_that_the_model_could_not_have_given(reply: Any, said: str) -> None:
    entry = make_entry(models.fragile())
    with pytest.raises(InvalidArgument, match=said):
        set_guard(entry, LIMITS | {"fallback": "static", "reply": reply})
    assert entry.guard is None


def test_what_clients_do_wrong_does_not_count(versions: Versions) -> None:
    for _ in range(4):
        assert versions.refusal(GOOD, columns=3)[0] == INVALID_ARGUMENT
        cancelled = versions.bench.call(request(BAD))
        versions.bench.transport.cancel(cancelled)
        late = versions.bench.call(request(BAD), deadline_ns=clock.now() + 1)
        versions.bench.advance(2 * MILLISECOND_NS)
        assert versions.bench.outcome(late).code == DEADLINE_EXCEEDED
    assert versions.entry.guard.state == "closed"
    gather = make_entry(models.gather(), "g", gather_rows=1)
    set_guard(gather, LIMITS | {"min_calls": 1})
    bench = Bench(gather)
    message = infer_request("g")
    add_raw(message, "x", "INT64", [1, 1], pack("INT64", [99]))
    call = bench.call(bytes(message.SerializeToString()))
    bench.run_all()
    assert (bench.outcome(call).code, gather.guard.state) == (INVALID_ARGUMENT, "closed")
    bench.close()


def test_a_failure_that_nobody_waits_for_any_more_counts(versions: Versions) -> None:
    executor = versions.bench.executors[0]
    for _ in range(4):
        call = versions.bench.call(request(BAD), deadline_ns=clock.now() + MILLISECOND_NS)
        executor.take()
        versions.bench.advance(2 * MILLISECOND_NS)
        assert versions.bench.outcome(call).code == DEADLINE_EXCEEDED
        executor.run()
        executor.publish()
        versions.bench.pipeline.on_wake()
    assert versions.entry.guard.state == "open"


def test_other_limits_on_a_version_that_serves(versions: Versions) -> None:
    versions.open()
    set_guard(versions.entry, LIMITS | {"fallback": "static", "reply": REPLY})
    assert versions.reply(GOOD) == ("2", "static", [9.0])
    set_guard(versions.entry, None)
    assert versions.reply(GOOD) == ("2", "", [2.0])
    assert versions.entry.guard is None


def test_a_trial_outlives_the_guard(versions: Versions) -> None:
    versions.open()
    clock.advance(2 * SECOND_NS)
    call = versions.bench.call(request(GOOD))
    set_guard(versions.entry, None)
    versions.bench.run_all()
    assert versions.bench.reply(call).model_version == "2"


@pytest.mark.parametrize(("fallback", "numbers", "unnamed"), [
    ("previous", ("1", "2"), True), ("previous", ("2",), False), ("static", ("2",), True),
    ("unavailable", ("1", "2"), False)])
def test_which_calls_would_be_answered(
        stepped_clock: None, fallback: str, numbers: tuple[str, ...], unnamed: bool) -> None:
    versions = Versions(fallback=fallback, numbers=numbers, reply=REPLY if fallback == "static" else ())
    routes = RouteTable([("m", route_to_highest(list(versions.entries.values())))])

    def answered(named: bool) -> bool:
        return answers(routes, versions.entry, named)

    assert (answered(False), answered(True)) == (True, True)
    versions.open()
    assert (answered(False), answered(True)) == (unnamed, False)
    # It has to be called to be found well again.
    clock.advance(2 * SECOND_NS)
    assert (answered(False), answered(True)) == (True, True)
    versions.close()


