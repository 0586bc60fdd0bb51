"""A rollout: the share of a new version goes up step by step while its guardrails hold, and back to none when one does
not. Pure: facts and the time go in, the state and its weight come out.

States: `waiting` (for the version to be loaded), `gates` (checks before it gets any traffic), `running`, `paused`; and
at the end `done`, `rolled back` or `aborted`, of which nothing leaves. A failed guardrail, an open breaker and a
version that is not served roll back from any state before the end, a paused one included. A step ends when it has
lasted `every` and its verdict is a pass: too little data never does. At 100% there is no baseline left to be compared
with, so that step is the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from infer.errors import FailedPrecondition, InvalidArgument
from infer.rollouts import RolloutSettings
from infer.traffic.guardrails import FAIL, PASS, Verdict

State = Literal["waiting", "gates", "running", "paused", "done", "rolled back", "aborted"]
STATES: tuple[State, ...] = get_args(State)
ENDS = ("done", "rolled back", "aborted")

# The history of one rollout: steps, and what people did. The last ones are kept.
MAX_EVENTS = 256
REASON_CHARACTERS = 1024
ITSELF = "rollout"


@dataclass(frozen=True)
class RolloutPlan:
    """What is to be rolled out over what, and how."""

    baseline: int
    to: int
    settings: RolloutSettings

    def __post_init__(self) -> None:
        if self.baseline == self.to:
            raise InvalidArgument(f"version {self.to} is to be rolled out over itself; name another with --to or "
                                  "--from")

    @property
    def steps(self) -> tuple[float, ...]:
        return self.settings.steps

    def to_record(self) -> dict[str, Any]:
        return {"baseline": self.baseline, "to": self.to, "settings": self.settings.to_record()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RolloutPlan:
        return cls(record["baseline"], record["to"], RolloutSettings.from_record(record["settings"]))


@dataclass(frozen=True)
class Facts:
    """Of the candidate, now. `failure`: why it cannot be rolled out any further; `gate`: what the checks before the
    first step came to, None while they go on, "" where it may go on, and `told` that in words."""

    ready: bool = True
    failure: str = ""
    gate: str | None = ""
    told: str = ""


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
    """One rollout of one model. What changed has to be kept before it takes effect; `take_untold` has it."""

    def __init__(self, plan: RolloutPlan, now: float, who: str, reason: str = "") -> None:
        self.plan = plan
        self.state: State = "waiting"
        self.step = 0                   # of plan.steps; counts while running or paused
        self.since = now                # when the step, or what comes before the first, began
        self.history: list[Event] = []
        self.verdict = Verdict()
        self._untold: list[Event] = []
        self._event(now, "start", who, reason)

    # What it comes to.

    @property
    def ended(self) -> bool:
        return self.state in ENDS

    @property
    def compares(self) -> bool:
        """Whether candidate and baseline are held against each other now."""
        return self.state in ("running", "paused")

    @property
    def weight(self) -> float:
        """Percent of calls that the candidate gets."""
        if self.state == "done":
            return 100.0
        return self.plan.steps[self.step] if self.compares else 0.0

    @property
    def restarts(self) -> int:
        """Times that the server was started again since it began, of those that are remembered."""
        return sum(each.event == "restart" for each in self.history)

    def take_untold(self) -> list[Event]:
        """What happened since it was asked last."""
        events, self._untold = self._untold, []
        return events

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
                self._enter(now, 0, ITSELF, facts.told)
        elif verdict.result == FAIL:
            self._end(now, "rolled back", verdict.reason)
        elif self.state == "running" and verdict.result == PASS and now - self.since >= self.plan.settings.every_s:
            self._enter(now, self.step + 1, ITSELF, verdict.reason)

    def restarted(self, now: float) -> None:
        """The server has been started again, without what the step's tests had seen."""
        if self.ended:
            return
        if self.plan.settings.on_restart == "rollback":
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
            found.verdict, found._untold = Verdict(), []
            if found.state not in STATES or not 0 <= found.step < len(found.plan.steps):
                raise InvalidArgument(f"the record of a rollout is damaged: state {found.state!r}, step {found.step!r}")
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(f"the record of a rollout is damaged: {error!r}") from None
        return found

    def _require(self, what: str, *states: State) -> None:
        if self.state not in states:
            raise FailedPrecondition(f"the rollout to version {self.plan.to} is {self.state}: to {what} it, it has to "
                                     f"be {' or '.join(states)}")

    def _enter(self, now: float, step: int, who: str, reason: str) -> None:
        self.step, self.since = step, now
        last = step == len(self.plan.steps) - 1
        if not last:
            self.verdict = Verdict()
        self.state = "done" if last else "running"
        self._event(now, "done" if last else "step", who, reason)

    def _end(self, now: float, state: State, reason: str, who: str = ITSELF) -> None:
        self.state = state
        self._event(now, state, who, reason)

    def _event(self, now: float, event: str, who: str = ITSELF, reason: str = "") -> None:
        self._untold.append(Event(now, event, self.step, self.weight, who, reason[:REASON_CHARACTERS]))
        self.history.append(self._untold[-1])
        del self.history[:-MAX_EVENTS]
