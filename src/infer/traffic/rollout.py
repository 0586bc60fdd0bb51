"""A rollout: the share of a new version goes up step by step while its guardrails hold, and back to none when one does
not. Pure: facts and the time go in, the state and its weight come out.

States: `waiting` (for the version to be loaded), `gates` (checks before it gets any traffic), `running`, `paused`; and
at the end `done`, `rolled back` or `aborted`, of which nothing leaves. A failed guardrail, an open breaker and a
version that is not served roll back from any state before the end, a paused one included. A step ends when it has
lasted `every_s` and its verdict is a pass: too little data never does. At 100% there is no baseline left to be compared
with, so that step is the end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from infer.errors import FailedPrecondition, InvalidArgument
from infer.traffic.guardrails import ALPHA, FAIL, PASS, Guardrail, Verdict, parse_guardrails

State = Literal["waiting", "gates", "running", "paused", "done", "rolled back", "aborted"]
STATES: tuple[State, ...] = get_args(State)
ENDS = ("done", "rolled back", "aborted")
OnRestart = Literal["continue", "rollback"]

STEPS = (1.0, 5.0, 25.0, 50.0, 100.0)
EVERY_S = 300.0
MIN_SAMPLES = 100
MAX_STEPS = 32
# The history of one rollout: steps, and what people did. The last ones are kept.
MAX_EVENTS = 256
REASON_CHARACTERS = 1024
ITSELF = "rollout"


@dataclass(frozen=True)
class RolloutPlan:
    """What is to be rolled out, and how. Weights of `steps` are percent of the model's calls without a version."""

    baseline: int
    to: int
    steps: tuple[float, ...] = STEPS
    every_s: float = EVERY_S
    guardrails: tuple[Guardrail, ...] = field(default_factory=lambda: parse_guardrails(()))
    min_samples: int = MIN_SAMPLES
    alpha: float = ALPHA
    on_restart: OnRestart = "continue"

    def __post_init__(self) -> None:
        ensure_steps(self.steps)
        if self.baseline == self.to:
            raise InvalidArgument(f"version {self.to} is to be rolled out over itself; name another with --to")
        if not self.every_s >= 0 or not self.every_s <= 30 * 86400:
            raise InvalidArgument(f"every: expected 0 to 30 days, got {self.every_s!r} s")
        if not self.guardrails:
            raise InvalidArgument("guardrails: expected at least one")
        if not 1 <= self.min_samples <= 10 ** 9:
            raise InvalidArgument(f"min_samples: expected 1 to 1e9, got {self.min_samples!r}")
        if not 1e-6 <= self.alpha <= 0.5:
            raise InvalidArgument(f"alpha: expected 1e-6 to 0.5, got {self.alpha!r}")
        if self.on_restart not in ("continue", "rollback"):
            raise InvalidArgument(f"on_restart: expected continue or rollback, got {self.on_restart!r}")

    def to_record(self) -> dict[str, Any]:
        return {"baseline": self.baseline, "to": self.to, "steps": list(self.steps), "every_s": self.every_s,
                "guardrails": {each.kind: each.limit for each in self.guardrails}, "min_samples": self.min_samples,
                "alpha": self.alpha, "on_restart": self.on_restart}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RolloutPlan:
        """Raises InvalidArgument for what is no record of one."""
        try:
            fields = dict(record)
            guardrails = tuple(Guardrail(kind, limit) for kind, limit in fields.pop("guardrails").items())
            return cls(**{**fields, "steps": tuple(fields["steps"]), "guardrails": guardrails})
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(f"the record of a rollout is damaged: {error!r}") from None


def ensure_steps(steps: Sequence[float]) -> None:
    good = all(isinstance(each, (int, float)) and 0 < each <= 100 for each in steps)
    if not (good and 0 < len(steps) <= MAX_STEPS and list(steps) == sorted(set(steps)) and steps[-1] == 100):
        raise InvalidArgument(f"steps: expected up to {MAX_STEPS} percentages that rise to 100, such as 1,5,25,50,100; "
                              f"got {', '.join(f'{each:g}' for each in steps) if good else steps!r}")


def parse_steps(text: str) -> tuple[float, ...]:
    """Percentages separated by commas."""
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError:
        raise InvalidArgument(f"steps {text!r}: expected percentages, such as 1,5,25,50,100") from None


_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_seconds(text: str) -> float:
    """`300`, `300s`, `5m`, `2h` or `1d`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip())
    if found is None:
        raise InvalidArgument(f"time {text!r}: expected a number and s, m, h or d, such as 5m")
    return float(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True)
class Facts:
    """Of the candidate, now. `failure`: why it cannot be rolled out any further; `gate`: what the checks before the
    first step came to, None while they go on, "" where it may go on."""

    ready: bool = True
    failure: str = ""
    gate: str | None = ""


@dataclass(frozen=True)
class Event:
    """What happened, when (seconds since the epoch), who did it, and why. `weight` holds from then on."""

    time: float
    event: str
    step: int
    weight: float
    who: str = ITSELF
    reason: str = ""


class Rollout:
    """One rollout of one model. `changes` counts what has to be kept before it takes effect."""

    def __init__(self, plan: RolloutPlan, now: float, who: str, reason: str = "") -> None:
        self.plan = plan
        self.state: State = "waiting"
        self.step = 0                   # of plan.steps; counts while running or paused
        self.since = now                # when the step, or what comes before the first, began
        self.history: list[Event] = []
        self.changes = 0
        self.verdict = Verdict()
        self._event(now, "start", who, reason)

    # What it comes to.

    @property
    def ended(self) -> bool:
        return self.state in ENDS

    @property
    def weight(self) -> float:
        """Percent of calls that the candidate gets."""
        if self.state == "done":
            return 100.0
        return self.plan.steps[self.step] if self.state in ("running", "paused") else 0.0

    # What happens.

    def look(self, now: float, facts: Facts, verdict: Verdict) -> None:
        """`verdict`: of the step's tests so far."""
        if self.ended:
            return
        self.verdict = verdict
        if facts.failure:
            self._end(now, "rolled back", facts.failure)
        elif self.state == "waiting":
            if facts.ready:
                self.state, self.since = "gates", now
                self._event(now, "gates")
        elif not facts.ready:
            self._end(now, "rolled back", f"version {self.plan.to} is not served any more")
        elif self.state == "gates":
            if facts.gate:
                self._end(now, "rolled back", f"before the first step: {facts.gate}")
            elif facts.gate is not None:
                self._enter(now, 0, ITSELF, "")
        elif verdict.result == FAIL:
            self._end(now, "rolled back", verdict.reason)
        elif self.state == "running" and verdict.result == PASS and now - self.since >= self.plan.every_s:
            self._enter(now, self.step + 1, ITSELF, verdict.reason)

    def restarted(self, now: float) -> None:
        """The server has been started again, without what the step's tests had seen."""
        if self.ended:
            return
        if self.plan.on_restart == "rollback":
            self._end(now, "rolled back", "the server was restarted, and on_restart is rollback")
            return
        self.since = now
        if self.state == "gates":
            self.state = "waiting"
        self._event(now, "restart")

    # What people do. Each raises FailedPrecondition where the state does not allow it.

    def pause(self, now: float, who: str, reason: str = "") -> None:
        self._require("pause", "running")
        self.state = "paused"
        self._event(now, "pause", who, reason)

    def resume(self, now: float, who: str, reason: str = "") -> None:
        self._require("resume", "paused")
        self.state = "running"
        self._event(now, "resume", who, reason)

    def promote(self, now: float, who: str, reason: str = "", *, all_of_it: bool = False) -> None:
        """To the next step whatever the guardrails say, or to the end."""
        self._require("promote", "running", "paused")
        self._enter(now, len(self.plan.steps) - 1 if all_of_it else self.step + 1, who, reason)

    def abort(self, now: float, who: str, reason: str = "") -> None:
        self._require("abort", "waiting", "gates", "running", "paused")
        self._end(now, "aborted", reason, who)

    # The record.

    def to_record(self) -> dict[str, Any]:
        return {"plan": self.plan.to_record(), "state": self.state, "step": self.step, "since": self.since,
                "history": [vars(each).copy() for each in self.history]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Rollout:
        """Raises InvalidArgument for what is no record of one."""
        try:
            found = cls.__new__(cls)
            found.plan = RolloutPlan.from_record(record["plan"])
            found.state, found.step, found.since = record["state"], record["step"], record["since"]
            found.history = [Event(**each) for each in record["history"]]
            found.changes, found.verdict = 0, Verdict()
            if found.state not in STATES or not 0 <= found.step < len(found.plan.steps):
                raise InvalidArgument(f"the record of a rollout is damaged: state {found.state!r}, step {found.step!r}")
        except (KeyError, TypeError) as error:
            raise InvalidArgument(f"the record of a rollout is damaged: {error!r}") from None
        return found

    def _require(self, what: str, *states: State) -> None:
        if self.state not in states:
            raise FailedPrecondition(f"the rollout to version {self.plan.to} is {self.state}: to {what} it, it has to "
                                     f"be {' or '.join(states)}")

    def _enter(self, now: float, step: int, who: str, reason: str) -> None:
        self.step, self.since, self.verdict = step, now, Verdict()
        self.state = "running"
        last = step == len(self.plan.steps) - 1
        if last:
            self.state = "done"
        self._event(now, "done" if last else "step", who, reason)

    def _end(self, now: float, state: State, reason: str, who: str = ITSELF) -> None:
        self.state = state
        self._event(now, state, who, reason)

    def _event(self, now: float, event: str, who: str = ITSELF, reason: str = "") -> None:
        self.history.append(Event(now, event, self.step, self.weight, who, reason[:REASON_CHARACTERS]))
        del self.history[:-MAX_EVENTS]
        self.changes += 1
