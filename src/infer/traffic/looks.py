"""What the tests of a rollout's step are told at each look: what came since the look before. Loop thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from infer._core.model_version import VersionEntry
from infer.traffic.guardrails import StepTests, Verdict
from infer.traffic.outcomes import Sums
from infer.traffic.rollout import RolloutPlan
from infer.traffic.seen import Copies, Seen

OK, CANCELLED = 0, 1


class ArmView(Protocol):
    """What became of the calls of one variant, since it was made."""

    @property
    def calls(self) -> Sequence[int]:
        """By gRPC code."""

    def buckets(self) -> Sequence[tuple[int, int]]:
        """(smallest ns, calls that succeeded) of each bucket that holds any."""

    def output_bins(self) -> Sequence[Mapping[int, int]]:
        """Values by their bin, of each output that they are counted of."""


class ShadowView(Protocol):
    """A shadow of the candidate, since it began."""

    @property
    def agreed(self) -> int: ...

    @property
    def differed(self) -> int: ...

    @property
    def failed(self) -> int: ...

    def outputs_compared(self) -> Mapping[str, Mapping[str, Any]]: ...


@dataclass(frozen=True)
class Sources:
    """What a look is at: the arms by name, how many calls of the candidate share a batch, on average, the shadow,
    outcomes by arm and metric, and by arm the names of the outputs that `output_bins` is of ("": it has no numbers)."""

    arms: Mapping[str, ArmView]
    clump: float = 1.0
    shadow: ShadowView | None = None
    outcomes: Mapping[str, Mapping[str, Sums]] = field(default_factory=dict)
    outputs: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """Of one arm, so far."""

    calls: int = 0
    errors: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[int, int]] = field(default_factory=dict)     # by name


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
        self._shadow: ShadowView | None = None
        self._copies = Copies()
        self._outcomes: dict[str, dict[str, Sums]] = {}

    def verdict(self, step: tuple[int, float], sources: Sources, restarts: int = 0) -> Verdict:
        """`step`: which, and since when; `restarts`: of the server since the rollout began."""
        begun = self._tests is None or self._step != step
        if begun:
            self._step = step
            self._tests = StepTests(self._plan.settings, self._plan.steps[step[0]], self._bins, restarts)
        assert self._tests is not None
        a, b = self._arms(sources)
        outcomes_a, outcomes_b = self._reported(sources.outcomes)
        a = replace(a, outcomes=outcomes_a)
        b = replace(b, outcomes=outcomes_b, copies=self._compared(sources.shadow))
        if not begun:
            self._tests.add(a, b)
        self._clump = sources.clump
        return self._tests.verdict()

    def _arms(self, sources: Sources) -> tuple[Seen, Seen]:
        """Since the look before; nothing where they are new."""
        old, self._counts = self._counts, {
            name: counted(sources.arms[name], sources.outputs.get(name, ())) for name in self._names
            if name in sources.arms}
        if not all(name in old and name in self._counts for name in self._names):
            return Seen(), Seen()
        a, b = (since(old[name], self._counts[name], self._clump) for name in self._names)
        return a, b

    def _compared(self, shadow: ShadowView | None) -> Copies:
        known = shadow is not None and shadow is self._shadow
        old, self._copies, self._shadow = self._copies, compared(shadow), shadow
        return self._copies - old if known else Copies()


    def _reported(self, outcomes: Mapping[str, Mapping[str, Sums]]) -> Sequence[Mapping[str, Sums]]:
        """By version."""
        old, self._outcomes = self._outcomes, {name: dict(outcomes.get(name, {})) for name in self._names}
        return [{metric: _less(sums, old.get(name, {}).get(metric, Sums())) for metric, sums in of.items()}
                for name, of in self._outcomes.items()]


def _less(new: Sums, old: Sums) -> Sums:
    """Since the old ones; of sums that were begun anew all."""
    return new if new.n < old.n else Sums(new.n - old.n, new.total - old.total, new.squares - old.squares)


def compared(shadow: ShadowView | None) -> Copies:
    """A copy that it has failed on differs; one that was dropped was not compared."""
    if shadow is None:
        return Copies()
    outputs = shadow.outputs_compared().values()
    vectors, same = (sum(each[name] for each in outputs) for name in ("top1", "top1_same"))
    differing = shadow.differed + shadow.failed
    return Copies(shadow.agreed + differing, differing, vectors, vectors - same)


def clump_of(version: VersionEntry) -> float:
    """Calls of a batch of it, on average, at most: what the cache answers is among its calls, and a call has a row."""
    stats = version.stats_snapshot((), ())
    return float(max(1.0, min(stats["calls"][OK], stats["batch_rows"][1]) / max(stats["batches"], 1)))


def counted(arm: ArmView, outputs: Sequence[str] = ()) -> Counts:
    """`outputs`: names of those that values are counted of."""
    calls = arm.calls
    judged = sum(calls) - calls[CANCELLED]
    return Counts(judged, judged - calls[OK], dict(arm.buckets()),
                  {name: bins for name, bins in zip(outputs, arm.output_bins(), strict=False) if name})


def since(old: Counts, new: Counts, clump: float) -> Seen:
    return Seen(new.calls - old.calls, new.errors - old.errors, _difference(old.latency, new.latency),
                {name: _difference(old.outputs.get(name, {}), bins) for name, bins in new.outputs.items()}, clump)


def _difference(old: Mapping[int, int], new: Mapping[int, int]) -> dict[int, int]:
    return {key: count - old.get(key, 0) for key, count in new.items() if count > old.get(key, 0)}
