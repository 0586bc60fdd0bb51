"""The tests of each guardrail in one step of a rollout. Pure.

`errors`  share of calls that failed, by no doing of their client: at most that of the baseline and LIMIT more
`p50`, `p95`, `p99`
          latency of calls that succeeded: no larger a share of the candidate's, but for a margin, takes LIMIT times the
          baseline's quantile and the settings' slack more than of the baseline's takes the quantile itself: a version
          with few calls finds the caches cold, which makes as much of a difference, whatever the two are
`disagreement`
          copies of the baseline's calls that a shadow of the candidate answers otherwise, or not at all: at most LIMIT
          of those that were compared
`top1`    vectors of their outputs whose largest element is another one: at most LIMIT
`drift`   outputs: no more than LIMIT of the values of any move over a border between tenths of the baseline's, which is
          the distance of Kolmogorov and Smirnov there
`outcome:METRIC`
          what clients report: of 0 or 1, or on a scale with bounds, the mean is no lower than the baseline's by more
          than -LIMIT, or where LIMIT is above 0 no higher by more than that
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from infer.outcome_metrics import Metric
from infer.rollouts import QUANTILES, SHADOW_KINDS, Guardrail, RolloutSettings
from infer.traffic.drift import DriftTest
from infer.traffic.outcomes import Sums
from infer.traffic.seen import Seen
from infer.traffic.sequential import BoundedMean, RateTest, ShareTest

# Calls of the baseline that its quantiles are taken from; older ones count for less.
QUANTILE_CALLS = 20_000
# An output that replies hold less often than that, by the one that they hold most often, need not be alike.
WANTED_SHARE = 0.01


class GuardrailTest(Protocol):
    """The tests of one guardrail in one step."""

    samples: int

    @property
    def detail(self) -> str:
        """What of it is worst, where there are several things; else nothing."""

    def add(self, a: Seen, b: Seen) -> None: ...

    @property
    def evidence(self) -> tuple[float, float]:
        """Logarithms: that it is worse than its limit, that it is not."""

    @property
    def figures(self) -> tuple[float, float]:
        """Of the baseline and the candidate."""


class ErrorsTest:
    """Shares of calls that failed."""

    detail = ""

    def __init__(self, limit: float) -> None:
        self._worse, self._fine = RateTest(increase=limit, above=True), RateTest(increase=limit, above=False)
        self._counts = np.zeros((2, 2))
        self.samples = 0

    def add(self, a: Seen, b: Seen) -> None:
        for test in (self._worse, self._fine):
            test.add(a.calls, a.errors, b.calls, b.errors, b.clump)
        self._counts += ((a.calls, a.errors), (b.calls, b.errors))
        self.samples += b.calls

    @property
    def evidence(self) -> tuple[float, float]:
        return float(self._worse.log_e), float(self._fine.log_e)

    @property
    def figures(self) -> tuple[float, float]:
        a, b = self._counts[:, 1] / np.maximum(self._counts[:, 0], 1)
        return float(a), float(b)


class LatencyTest:
    """Shares of calls that took longer than a quantile of the baseline, as it was before the look."""

    detail = ""

    def __init__(self, quantile: float, ratio: float, slack_ns: float) -> None:
        self._quantile, self._ratio, self._slack_ns = quantile, ratio, slack_ns
        self._worse: RateTest | None = None
        self._fine: RateTest | None = None
        self._a: dict[int, float] = {}
        self._b: dict[int, float] = {}
        self.samples = 0

    def add(self, a: Seen, b: Seen) -> None:
        if self._worse is not None and self._fine is not None:
            # A bucket is counted as slower where all of it is.
            at = quantile_of(self._a, self._quantile)
            over = self._ratio * at + self._slack_ns
            counts = (sum(a.latency.values()), sum(n for ns, n in a.latency.items() if ns >= at),
                      sum(b.latency.values()), sum(n for ns, n in b.latency.items() if ns >= over))
            for test in (self._worse, self._fine):
                test.add(*counts, b.clump)
        self.samples += sum(b.latency.values())
        self._a, self._b = _joined(self._a, a.latency), _joined(self._b, b.latency)
        if self._worse is None and self._a:
            self._begin(sum(self._a.values()))

    def _begin(self, calls: float) -> None:
        """What was seen first says where the quantile is, and with that how many are beyond it."""
        at = quantile_of(self._a, self._quantile)
        prior = calls, sum(n for ns, n in self._a.items() if ns >= at)
        margin = max(0.01, (1.0 - self._quantile) / 10.0)
        self._worse = RateTest(increase=margin, above=True, prior=prior)
        self._fine = RateTest(increase=margin, above=False, prior=prior)

    @property
    def evidence(self) -> tuple[float, float]:
        if self._worse is None or self._fine is None:
            return 0.0, 0.0
        return float(self._worse.log_e), float(self._fine.log_e)

    @property
    def figures(self) -> tuple[float, float]:
        """In ms."""
        return tuple(quantile_of(each, self._quantile) / 1e6 if each else 0.0  # type: ignore[return-value]
                     for each in (self._a, self._b))


def quantile_of(counts: Mapping[int, float], quantile: float) -> int:
    """The smallest value of the bucket with it."""
    left = quantile * sum(counts.values())
    for value in sorted(counts):
        left -= counts[value]
        if left < 0:
            return value
    return max(counts)


def _joined(old: Mapping[int, float], new: Mapping[int, int]) -> dict[int, float]:
    kept = QUANTILE_CALLS / max(QUANTILE_CALLS, sum(old.values()) + sum(new.values()))
    found = {value: count * kept for value, count in old.items()}
    for value, count in new.items():
        found[value] = found.get(value, 0.0) + count
    return found


class OutputsTest:
    """Values of outputs by their bins, in the order of the bins. Of several outputs the mean of e-values says that any
    of them has moved, and each has to be alike: of those that are asked for, since one that nobody wants tells nothing.
    """

    def __init__(self, limit: float, bins: int) -> None:
        self._limit, self._bins = limit, bins
        self._tests: dict[str, DriftTest] = {}      # of outputs that both versions have
        self._values: Counter[str] = Counter()      # of the baseline
        self.samples = 0

    def add(self, a: Seen, b: Seen) -> None:
        if not self._tests:
            self._tests = {name: DriftTest(self._limit) for name in a.outputs if name in b.outputs}
        most = 0
        for name, test in self._tests.items():
            counts = np.zeros((2, self._bins))
            for row, seen in enumerate((a, b)):
                for place, count in seen.outputs.get(name, {}).items():
                    counts[row, place] += count
            if counts[0].any():
                test.add(counts[0], counts[1], b.clump)
            self._values[name] += int(counts[0].sum())
            most = max(most, int(counts[1].sum()))
        self.samples += most

    @property
    def _wanted(self) -> list[str]:
        least = max(self._values.values(), default=0) * WANTED_SHARE
        return [name for name, count in self._values.items() if count and count >= least]

    @property
    def evidence(self) -> tuple[float, float]:
        if not self._wanted:
            return 0.0, 0.0
        moved = np.logaddexp.reduce([test.log_e for test in self._tests.values()]) - math.log(len(self._tests))
        return float(moved), min(self._tests[name].log_e_alike for name in self._wanted)

    @property
    def figures(self) -> tuple[float, float]:
        """The largest PSI of any, that of the baseline being 0."""
        return 0.0, max((test.psi for test in self._tests.values()), default=0.0)

    @property
    def detail(self) -> str:
        """The output that has moved most, where there are several."""
        return max(self._tests, key=lambda name: self._tests[name].log_e) if len(self._tests) > 1 else ""


class CopiesTest:
    """Shares of what a shadow has compared."""

    detail = ""

    def __init__(self, kind: str, limit: float) -> None:
        self._vectors = kind == "top1"
        self._worse, self._fine = ShareTest(limit, above=True), ShareTest(limit, above=False)
        self._cases = 0
        self.samples = 0

    def add(self, a: Seen, b: Seen) -> None:
        seen = b.copies
        if not seen.compared:
            return
        n, cases = (seen.vectors, seen.others) if self._vectors else (seen.compared, seen.differing)
        for test in (self._worse, self._fine):
            # Vectors of one reply share a fate.
            test.add(n, cases, n / seen.compared)
        self.samples += n
        self._cases += cases

    @property
    def evidence(self) -> tuple[float, float]:
        return float(self._worse.log_e), float(self._fine.log_e)

    @property
    def figures(self) -> tuple[float, float]:
        return 0.0, self._cases / max(self.samples, 1)


class OutcomeTest:
    """What clients have reported, on the metric's scale of 0 to 1. Numbers of a look wait until there is one of each
    version. Means of more than 0 or 1 are told by their confidence sequences: all at once, or nothing."""

    detail = ""

    def __init__(self, metric: Metric, limit: float, alphas: tuple[float, float]) -> None:
        """`alphas`: that it is called worse, and called fine, and is not."""
        self._metric = metric
        # Rises count, or falls.
        self._sign = 1 if limit > 0 else -1
        self._border = limit / (metric.high - metric.low)
        self._waiting = Sums(), Sums()
        self._sums = Sums(), Sums()
        self._rates = tuple(RateTest(increase=self._border, above=above) for above in (limit > 0, limit < 0))
        self._alphas = alphas
        self._means = tuple((BoundedMean(alpha), BoundedMean(alpha)) for alpha in alphas)
        self.samples = 0

    def add(self, a: Seen, b: Seen) -> None:
        news = [each.outcomes.get(self._metric.name, Sums()) for each in (a, b)]
        self._waiting = _both(self._waiting, news)
        self._sums = _both(self._sums, news)
        self.samples += int(news[1].n)
        (n_a, total_a, squares_a), (n_b, total_b, squares_b) = self._waiting
        if not n_a or not n_b:
            return
        self._waiting = Sums(), Sums()
        if self._metric.kind == "rate":
            for test in self._rates:
                test.add(n_a, total_a, n_b, total_b)
            return
        for mean_a, mean_b in self._means:
            mean_a.add(n_a, total_a, squares_a)
            mean_b.add(n_b, total_b, squares_b)

    @property
    def evidence(self) -> tuple[float, float]:
        if self._metric.kind == "rate":
            worse, fine = (float(test.log_e) for test in self._rates)
            return worse, fine
        bounds = [(low_b - high_a, high_b - low_a) for (low_a, high_a), (low_b, high_b) in (
            (mean_a.bounds, mean_b.bounds) for mean_a, mean_b in self._means)]
        beyond = bounds[0][0] > self._border if self._sign > 0 else bounds[0][1] < self._border
        within = bounds[1][1] < self._border if self._sign > 0 else bounds[1][0] > self._border
        return (math.log(1 / self._alphas[0]) if beyond else 0.0), (math.log(1 / self._alphas[1]) if within else 0.0)

    @property
    def figures(self) -> tuple[float, float]:
        a, b = (self._metric.value_of(each.total / each.n) if each.n else 0.0 for each in self._sums)
        return a, b


def _both(one: tuple[Sums, Sums], other: Sequence[Sums]) -> tuple[Sums, Sums]:
    a, b = (Sums(mine.n + its.n, mine.total + its.total, mine.squares + its.squares)
            for mine, its in zip(one, other, strict=True))
    return a, b


def test_of(guardrail: Guardrail, settings: RolloutSettings, bins: int, alphas: tuple[float, float]) -> GuardrailTest:
    """`alphas`: that it is called worse than its limit, and called fine, and is not."""
    if (metric := guardrail.metric) is not None:
        return OutcomeTest(metric, guardrail.limit, alphas)
    if guardrail.kind == "errors":
        return ErrorsTest(guardrail.limit)
    if guardrail.kind == "drift":
        return OutputsTest(guardrail.limit, bins)
    if guardrail.kind in SHADOW_KINDS:
        return CopiesTest(guardrail.kind, guardrail.limit)
    return LatencyTest(QUANTILES[guardrail.kind], guardrail.limit, settings.latency_slack_ms * 1e6)
