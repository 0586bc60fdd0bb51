"""Any sequence of looks, commands and restarts, against a plain model of where a rollout may be."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from infer.errors import FailedPrecondition
from infer.rollouts import RolloutSettings
from infer.traffic.guardrails import Verdict
from infer.traffic.rollout import Facts, Rollout, RolloutPlan

RESULTS = st.sampled_from(["pass", "fail", "not enough data"])
LAST = {"done": 100.0, "rolled back": 0.0, "aborted": 0.0}


class Machine(RuleBasedStateMachine):
    @initialize(steps=st.sets(st.sampled_from([1.0, 5.0, 25.0, 50.0]), max_size=4), every=st.sampled_from([0.0, 10.0]),
                on_restart=st.sampled_from(["continue", "rollback"]))
    def start(self, steps: set[float], every: float, on_restart: str) -> None:
        self.steps = [*sorted(steps), 100.0]
        self.every, self.on_restart = every, on_restart
        self.now = 0.0
        self.rollout = Rollout(RolloutPlan(1, 2, RolloutSettings(
            tuple(self.steps), every, on_restart=on_restart)), 0.0, "ann")
        self.state, self.at, self.since = "waiting", -1, 0.0

    def enter(self, at: int) -> None:
        self.at, self.since = at, self.now
        self.state = "done" if at == len(self.steps) - 1 else "running"

    @rule(seconds=st.floats(0, 15), result=RESULTS, ready=st.booleans(), broken=st.booleans(),
          gate=st.sampled_from([None, "", "differs"]))
    def look(self, seconds: float, result: str, ready: bool, broken: bool, gate: str | None) -> None:
        self.now += seconds
        self.rollout.look(self.now, Facts(ready, "open" if broken else "", gate), Verdict(result))
        if self.state in LAST:
            return
        if broken or (not ready and self.state != "waiting"):
            self.state = "rolled back"
        elif self.state == "waiting":
            self.state = "gates" if ready else "waiting"
        elif self.state == "gates":
            if gate == "differs":
                self.state = "rolled back"
            elif gate == "":
                self.enter(0)
        elif result == "fail":
            self.state = "rolled back"
        elif result == "pass" and self.state == "running" and self.now - self.since >= self.every:
            self.enter(self.at + 1)

    @rule(verb=st.sampled_from(["pause", "resume", "promote", "finish", "abort"]))
    def command(self, verb: str) -> None:
        allowed = {"pause": ["running"], "resume": ["paused"], "promote": ["running", "paused"],
                   "finish": ["running", "paused"], "abort": ["waiting", "gates", "running", "paused"]}[verb]
        before = self.rollout.to_record()
        try:
            if verb == "finish":
                self.rollout.promote(self.now, "ann", all_of_it=True)
            else:
                getattr(self.rollout, verb)(self.now, "ann")
        except FailedPrecondition:
            assert self.state not in allowed
            assert self.rollout.to_record() == before
            return
        assert self.state in allowed
        if verb == "promote":
            self.enter(self.at + 1)
        elif verb == "finish":
            self.enter(len(self.steps) - 1)
        else:
            self.state = {"pause": "paused", "resume": "running", "abort": "aborted"}[verb]

    @rule()
    def restart(self) -> None:
        self.rollout = Rollout.from_record(json.loads(json.dumps(self.rollout.to_record())))
        self.rollout.restarted(self.now)
        if self.state in LAST:
            return
        if self.on_restart == "rollback":
            self.state = "rolled back"
            return
        self.since = self.now
        self.state = "waiting" if self.state == "gates" else self.state

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "state"):
            return
        weight = LAST.get(self.state, self.steps[self.at] if self.state in ("running", "paused") else 0.0)
        assert (self.rollout.state, self.rollout.weight) == (self.state, weight)
        assert self.rollout.history[-1].weight == weight
        # What is kept says all that the weights were; they fall at the end alone.
        weights = [each.weight for each in self.rollout.history]
        assert all(new >= old or new == 0.0 for old, new in pairwise(weights))


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRollout = Machine.TestCase
