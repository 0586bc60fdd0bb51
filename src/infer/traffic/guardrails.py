"""What a new version is held to beside the one it replaces, and the tests that say so. Pure.

A guardrail has two tests, looked at after every batch of counts: whether the candidate is worse than its limit, and
whether it is not. Neither having enough evidence means that there is not enough data, however long that lasts.

Alpha is spent on the whole of a rollout: of `alpha`, each guardrail has an equal share in each step (Bonferroni), since
each step begins its tests anew; within a step they may be looked at all the time. A step is passed when every guardrail
is, each at `alpha`: that all of them are wrong together is not more likely than that one is.

`errors`  share of calls that failed, by no doing of their client: at most that of the baseline and LIMIT more
`p50`, `p95`, `p99`
          latency of calls that succeeded: no larger a share of the candidate's, but for a margin, takes LIMIT times the
          baseline's quantile and the settings' slack more than of the baseline's takes the quantile itself: a version
          with few calls finds the caches cold, which makes as much of a difference, whatever the two are
`disagreement`
          copies of the baseline's calls that a shadow of the candidate answers otherwise, or not at all: at most LIMIT
          of those that were compared
`top1`    vectors of their outputs whose largest element is another one: at most LIMIT
`drift`   outputs: no more than LIMIT of all values move over a border between tenths of the baseline's, which is the
          distance of Kolmogorov and Smirnov there
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from infer.rollouts import QUANTILES, SHADOW_KINDS, Guardrail, RolloutSettings
from infer.traffic.drift import DriftTest
from infer.traffic.sequential import RateTest, ShareTest

Result = Literal["pass", "fail", "not enough data"]
PASS: Result = "pass"
FAIL: Result = "fail"
NOT_ENOUGH: Result = "not enough data"

# Calls of the baseline that its quantiles are taken from; older ones count for less.
QUANTILE_CALLS = 20_000


@dataclass(frozen=True)
class Copies:
    """What a shadow has compared."""

    compared: int = 0
    differing: int = 0
    vectors: int = 0        # along the last dimension of outputs
    others: int = 0         # of these, whose largest element is another one

    def __sub__(self, other: Copies) -> Copies:
        return Copies(*(mine - its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Seen:
    """Of one arm, since the look before."""

    calls: int = 0
    errors: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)    # calls by the smallest ns of their bucket
    outputs: Mapping[int, int] = field(default_factory=dict)    # values by the number of their bin
    clump: float = 1.0                                          # calls that shared a batch
    copies: Copies = Copies()                                   # of a shadow of it


@dataclass(frozen=True)
class Finding:
    """What one guardrail comes to. `baseline` and `candidate` are in the guardrail's own measure."""

    kind: str
    limit: float
    result: Result
    log_e_worse: float
    log_e_fine: float
    samples: int
    baseline: float
    candidate: float


@dataclass(frozen=True)
class Verdict:
    """What all of them come to. `samples`: calls of the candidate."""

    result: Result = NOT_ENOUGH
    samples: int = 0
    reason: str = ""
    findings: Sequence[Finding] = ()


class GuardrailTest(Protocol):
    """The tests of one guardrail in one step."""

    samples: int

    def add(self, a: Seen, b: Seen) -> None: ...

    @property
    def evidence(self) -> tuple[float, float]:
        """Logarithms: that it is worse than its limit, that it is not."""

    @property
    def figures(self) -> tuple[float, float]:
        """Of the baseline and the candidate."""


class ErrorsTest:
    """Shares of calls that failed."""

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
    """Values of outputs by their bins, in the order of the bins."""

    def __init__(self, limit: float, bins: int) -> None:
        self._test = DriftTest(limit)
        self._bins = bins
        self.samples = 0

    def add(self, a: Seen, b: Seen) -> None:
        if not a.outputs:
            return
        counts = np.zeros((2, self._bins))
        for row, seen in enumerate((a, b)):
            for place, count in seen.outputs.items():
                counts[row, place] += count
        self._test.add(counts[0], counts[1], b.clump)
        self.samples += int(counts[1].sum())

    @property
    def evidence(self) -> tuple[float, float]:
        return self._test.log_e, self._test.log_e_alike

    @property
    def figures(self) -> tuple[float, float]:
        """PSI, that of the baseline being 0."""
        return 0.0, self._test.psi


class CopiesTest:
    """Shares of what a shadow has compared."""

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


def test_of(guardrail: Guardrail, settings: RolloutSettings, bins: int) -> GuardrailTest:
    if guardrail.kind == "errors":
        return ErrorsTest(guardrail.limit)
    if guardrail.kind == "drift":
        return OutputsTest(guardrail.limit, bins)
    if guardrail.kind in SHADOW_KINDS:
        return CopiesTest(guardrail.kind, guardrail.limit)
    return LatencyTest(QUANTILES[guardrail.kind], guardrail.limit, settings.latency_slack_ms * 1e6)


class StepTests:
    """All guardrails in one step of a rollout, at 0% those that a shadow tells. `bins`: of outputs."""

    def __init__(self, settings: RolloutSettings, weight: float = 100.0, bins: int = 0) -> None:
        self._tests = [(each, test_of(each, settings, bins)) for each in settings.guardrails
                       if (each.kind != "drift" or bins) and (weight or each.kind in SHADOW_KINDS)]
        # At the last step nothing is left to be decided.
        steps = max(len(settings.steps) - 1, 1)
        self._worse = math.log(len(settings.guardrails) * steps / settings.alpha)
        self._fine = math.log(1.0 / settings.alpha)
        self._settings = settings
        self._called = weight > 0
        self._samples = 0

    def add(self, a: Seen, b: Seen) -> None:
        self._samples += b.calls if self._called else b.copies.compared
        for _, test in self._tests:
            test.add(a, b)

    def verdict(self) -> Verdict:
        findings = [self._finding(guardrail, test) for guardrail, test in self._tests]
        failed = [each for each in findings if each.result == FAIL]
        if failed:
            return Verdict(FAIL, self._samples, "; ".join(told(each, self._settings) for each in failed), findings)
        if self._samples < self._settings.min_samples:
            return Verdict(NOT_ENOUGH, self._samples, f"{self._samples} of {self._settings.min_samples} "
                           f"{'calls' if self._called else 'copies'}", findings)
        open_ = [each.kind for each in findings if each.result == NOT_ENOUGH]
        if open_:
            return Verdict(NOT_ENOUGH, self._samples, f"not decided yet: {', '.join(open_)}", findings)
        return Verdict(PASS, self._samples, f"every guardrail held over {self._samples} "
                       f"{'calls' if self._called else 'copies'}", findings)

    def _finding(self, guardrail: Guardrail, test: GuardrailTest) -> Finding:
        worse, fine = test.evidence
        # Calls of the candidate are enough before copies need be.
        few = guardrail.kind in SHADOW_KINDS and test.samples < self._settings.min_samples
        result = FAIL if worse >= self._worse else PASS if fine >= self._fine and not few else NOT_ENOUGH
        return Finding(guardrail.kind, guardrail.limit, result, worse, fine, test.samples, *test.figures)


def told(finding: Finding, settings: RolloutSettings) -> str:
    """In words, for people."""
    a, b, samples = finding.baseline, finding.candidate, f"of {finding.samples} calls"
    if finding.kind == "errors":
        return f"errors: {b:.2%} {samples}, {a:.2%} of the baseline's at the same time, limit +{finding.limit:.2%}"
    if finding.kind in SHADOW_KINDS:
        what = ("copies were answered otherwise" if finding.kind == "disagreement"
                else "vectors have another largest element")
        return f"{finding.kind}: {b:.2%} of {finding.samples} {what}, limit {finding.limit:.2%}"
    if finding.kind == "drift":
        return f"drift: more than {finding.limit:g} of the outputs have moved, PSI {b:.2f} {samples}"
    return (f"{finding.kind}: {b:.3g} ms {samples}, {a:.3g} ms of the baseline's at the same time, limit "
            f"{finding.limit:g} times and {settings.latency_slack_ms:g} ms")


def plain(verdict: Verdict) -> dict[str, Any]:
    """As JSON holds it."""
    return {"result": verdict.result, "samples": verdict.samples, "reason": verdict.reason,
            "guardrails": [{**vars(each)} for each in verdict.findings]}
