"""A rollout's states: what leads where, who may do what, and what a restart finds."""

from __future__ import annotations

import json

import pytest

from infer.errors import FailedPrecondition, InvalidArgument
from infer.rollouts import RolloutSettings
from infer.traffic.guardrails import Verdict
from infer.traffic.rollout import MAX_EVENTS, Facts, Rollout, RolloutPlan

GOOD, BAD, OPEN = Verdict("pass", 500, "every guardrail held"), Verdict("fail", 40, "errors: 5%"), Verdict()
PLAN = RolloutPlan(3, 4, RolloutSettings((1.0, 10.0, 100.0), 60.0))


def started(plan: RolloutPlan = PLAN) -> Rollout:
    """In its first step, since 0."""
    rollout = Rollout(plan, 0.0, "ann", "a better one")
    rollout.look(0.0, Facts(), OPEN)
    rollout.look(0.0, Facts(), OPEN)
    assert (rollout.state, rollout.weight) == ("running", plan.steps[0])
    return rollout


def test_a_good_version_goes_all_the_way() -> None:
    rollout = started()
    rollout.look(59.9, Facts(), GOOD)
    assert rollout.weight == 1.0
    rollout.look(60.0, Facts(), GOOD)
    assert rollout.weight == 10.0
    rollout.look(119.9, Facts(), GOOD)
    assert rollout.weight == 10.0
    rollout.look(120.0, Facts(), GOOD)
    assert (rollout.state, rollout.weight, rollout.ended) == ("done", 100.0, True)
    assert [(each.event, each.weight) for each in rollout.history] == [
        ("start", 0.0), ("gates", 0.0), ("step", 1.0), ("step", 10.0), ("done", 100.0)]
    assert rollout.history[0].who == "ann"
    assert rollout.history[0].reason == "a better one"


def test_too_little_data_never_promotes() -> None:
    rollout = started()
    for now in range(1, 100_000, 1000):
        rollout.look(float(now), Facts(), OPEN)
    assert (rollout.state, rollout.weight) == ("running", 1.0)


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize(("facts", "verdict", "told"), [
    (Facts(), BAD, "errors: 5%"),
    (Facts(failure="its breaker is open"), GOOD, "its breaker is open"),
    (Facts(ready=False), GOOD, "version 4 is not served any more"),
])
def test_failures_roll_back_at_once(facts: Facts, verdict: Verdict, told: str, paused: bool) -> None:
    rollout = started()
    if paused:
        rollout.pause(0.5, "ann")
    rollout.look(1.0, facts, verdict)
    assert (rollout.state, rollout.weight) == ("rolled back", 0.0)
    assert rollout.history[-1].reason == told
    before = rollout.to_record()
    rollout.look(2.0, Facts(), GOOD)
    rollout.restarted(3.0)
    assert rollout.to_record() == before


def test_a_version_that_cannot_be_loaded() -> None:
    rollout = Rollout(PLAN, 0.0, "ann")
    rollout.look(1.0, Facts(ready=False), OPEN)
    assert (rollout.state, rollout.weight) == ("waiting", 0.0)
    rollout.look(2.0, Facts(ready=False, failure="no such file"), OPEN)
    assert (rollout.state, rollout.history[-1].reason) == ("rolled back", "no such file")


def test_gates() -> None:
    rollout = Rollout(PLAN, 0.0, "ann")
    rollout.look(1.0, Facts(), OPEN)
    rollout.look(2.0, Facts(gate=None), OPEN)
    assert (rollout.state, rollout.weight) == ("gates", 0.0)
    rollout.look(3.0, Facts(gate="output 'y' differs"), OPEN)
    assert (rollout.state, rollout.history[-1].reason) == (
        "rolled back", "before the first step: output 'y' differs")


def test_while_paused_nothing_is_promoted() -> None:
    rollout = started()
    rollout.pause(1.0, "ann", "lunch")
    rollout.look(1000.0, Facts(), GOOD)
    assert (rollout.state, rollout.weight) == ("paused", 1.0)
    rollout.resume(1001.0, "bob")
    rollout.look(1001.0, Facts(), GOOD)
    assert rollout.weight == 10.0
    assert [(each.event, each.who) for each in rollout.history[3:5]] == [("pause", "ann"), ("resume", "bob")]


def test_promote_and_abort() -> None:
    rollout = started()
    rollout.promote(1.0, "ann")
    assert (rollout.state, rollout.weight) == ("running", 10.0)
    rollout.promote(2.0, "ann")
    assert rollout.state == "done"
    rollout = started()
    rollout.pause(0.5, "ann")
    rollout.promote(1.0, "ann", all_of_it=True)
    assert rollout.state == "done"
    rollout = started()
    rollout.abort(1.0, "ann", "not today")
    assert (rollout.state, rollout.weight, rollout.history[-1].reason) == ("aborted", 0.0, "not today")


def test_what_a_state_does_not_allow() -> None:
    rollout = started()
    with pytest.raises(FailedPrecondition, match="is running: to resume it, it has to be paused"):
        rollout.resume(1.0, "ann")
    rollout.abort(1.0, "ann")
    for verb in (rollout.pause, rollout.resume, rollout.promote, rollout.abort):
        with pytest.raises(FailedPrecondition, match="is aborted"):
            verb(2.0, "ann")


def test_a_record_is_all_of_it() -> None:
    rollout = started()
    rollout.look(60.0, Facts(), GOOD)
    record = json.loads(json.dumps(rollout.to_record()))
    again = Rollout.from_record(record)
    assert again.to_record() == rollout.to_record()
    assert (again.plan, again.weight, again.state) == (rollout.plan, 10.0, "running")


def test_a_restart_goes_on_with_the_weight_last_decided_and_the_step_anew() -> None:
    rollout = Rollout.from_record(started().to_record())
    assert rollout.restarts == 0
    rollout.restarted(1000.0)
    assert (rollout.state, rollout.weight) == ("running", 1.0)
    assert rollout.restarts == Rollout.from_record(rollout.to_record()).restarts == 1
    rollout.look(1030.0, Facts(), GOOD)
    assert rollout.weight == 1.0
    rollout.look(1060.0, Facts(), GOOD)
    assert rollout.weight == 10.0


def test_a_restart_may_roll_back() -> None:
    plan = RolloutPlan(3, 4, RolloutSettings((1.0, 100.0), on_restart="rollback"))
    rollout = Rollout.from_record(started(plan).to_record())
    rollout.restarted(1000.0)
    assert (rollout.state, rollout.weight) == ("rolled back", 0.0)


def test_gates_are_passed_again_after_a_restart() -> None:
    rollout = Rollout(PLAN, 0.0, "ann")
    rollout.look(1.0, Facts(), OPEN)
    rollout = Rollout.from_record(rollout.to_record())
    rollout.restarted(2.0)
    assert rollout.state == "waiting"


def test_the_history_is_bounded() -> None:
    rollout = started()
    for i in range(MAX_EVENTS):
        rollout.pause(i, "ann")
        rollout.resume(i, "ann")
    assert len(rollout.history) == MAX_EVENTS


def test_over_itself() -> None:
    with pytest.raises(InvalidArgument, match="over itself"):
        RolloutPlan(4, 4, RolloutSettings())


@pytest.mark.parametrize("record", [{}, {"plan": {}}, {"plan": None}, {**started().to_record(), "state": "lost"},
                                    {**started().to_record(), "step": 7}, {**started().to_record(), "history": [{}]}])
def test_damaged_records(record: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match="damaged"):
        Rollout.from_record(record)
