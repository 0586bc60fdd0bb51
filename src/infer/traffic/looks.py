"""What the tests of a rollout's step are told at each look: what came since the look before. Loop thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from infer.traffic.guardrails import Seen, StepTests, Verdict
from infer.traffic.rollout import RolloutPlan

OK, CANCELLED = 0, 1


class ArmView(Protocol):
    """What became of the calls of one variant, since it was made."""

    @property
    def calls(self) -> Sequence[int]:
        """By gRPC code."""

    def buckets(self) -> Sequence[tuple[int, int]]:
        """(smallest ns, calls that succeeded) of each bucket that holds any."""

    def output_bins(self) -> Mapping[int, int]:
        """Values of outputs by their bin."""


@dataclass(frozen=True)
class Counts:
    """Of one arm, so far."""

    calls: int = 0
    errors: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)
    outputs: Mapping[int, int] = field(default_factory=dict)


class StepLooks:
    """One per rollout. A step's tests begin anew with it."""

    def __init__(self, plan: RolloutPlan, bins: int) -> None:
        """`bins`: of the arms' outputs."""
        self._plan, self._bins = plan, bins
        self._names = str(plan.baseline), str(plan.to)
        self._tests: StepTests | None = None
        self._step = (-1, 0.0)
        self._counts: dict[str, Counts] = {}
        self._clump = 1.0

    def verdict(self, step: tuple[int, float], arms: Mapping[str, ArmView], clump: float) -> Verdict:
        """`step`: which, and since when; `clump`: calls of a batch of the candidate, on average."""
        old, new = self._counts, {name: counted(arms[name]) for name in self._names if name in arms}
        if self._tests is None or self._step != step:
            self._step = step
            self._tests = StepTests(self._plan.settings, self._bins)
        elif all(name in old and name in new for name in self._names):
            a, b = (since(old[name], new[name], self._clump) for name in self._names)
            self._tests.add(a, b)
        self._counts, self._clump = new, clump
        return self._tests.verdict()


def counted(arm: ArmView) -> Counts:
    calls = arm.calls
    judged = sum(calls) - calls[CANCELLED]
    return Counts(judged, judged - calls[OK], dict(arm.buckets()), arm.output_bins())


def since(old: Counts, new: Counts, clump: float) -> Seen:
    return Seen(new.calls - old.calls, new.errors - old.errors, _difference(old.latency, new.latency),
                _difference(old.outputs, new.outputs), clump)


def _difference(old: Mapping[int, int], new: Mapping[int, int]) -> dict[int, int]:
    return {key: count - old.get(key, 0) for key, count in new.items() if count > old.get(key, 0)}
