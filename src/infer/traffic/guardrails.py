"""What a new version is held to beside the one it replaces, and what all of it comes to. Pure.

A guardrail has two tests, looked at after every batch of counts: whether the candidate is worse than its limit, and
whether it is not. Neither having enough evidence means that there is not enough data, however long that lasts.

Alpha is spent on the whole of a rollout: of `alpha`, each guardrail has an equal share in each step (Bonferroni), since
each step begins its tests anew; within a step they may be looked at all the time. So do restarts of the server, however
many: the first run has nine tenths of it, and the r-th restart a tenth of 1 / (r (r + 1)). A step is passed when every
guardrail is, each at `alpha`: that all of them are wrong together is not more likely than that one is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from infer.rollouts import OUTCOME, SHADOW_KINDS, Guardrail, RolloutSettings
from infer.traffic.guardrail_tests import GuardrailTest, test_of
from infer.traffic.seen import Seen

Result = Literal["pass", "fail", "not enough data"]
PASS: Result = "pass"
FAIL: Result = "fail"
NOT_ENOUGH: Result = "not enough data"


FIRST_SHARE = 0.9


def share_of_alpha(restarts: int) -> float:
    """Of what a server begins after so many restarts; the sum over all is 1."""
    return FIRST_SHARE if restarts == 0 else (1.0 - FIRST_SHARE) / (restarts * (restarts + 1))


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
    detail: str = ""            # of several things that it is about, the worst


@dataclass(frozen=True)
class Verdict:
    """What all of them come to. `samples`: calls of the candidate."""

    result: Result = NOT_ENOUGH
    samples: int = 0
    reason: str = ""
    findings: Sequence[Finding] = ()


class StepTests:
    """All guardrails in one step of a rollout, at 0% those that a shadow tells. `bins`: of outputs; `restarts`: of the
    server since the rollout began."""

    def __init__(self, settings: RolloutSettings, weight: float = 100.0, bins: int = 0, restarts: int = 0) -> None:
        # At the last step nothing is left to be decided.
        steps = max(len(settings.steps) - 1, 1)
        alpha = settings.alpha * share_of_alpha(restarts)
        alphas = alpha / (len(settings.guardrails) * steps), alpha
        self._worse, self._fine = (math.log(1 / alpha) for alpha in alphas)
        self._tests = [(each, test_of(each, settings, bins, alphas)) for each in settings.guardrails
                       if (each.kind != "drift" or bins) and (weight or each.kind in SHADOW_KINDS)]
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
        # Calls of the candidate are enough before copies or outcomes need be.
        few = guardrail.of_others and test.samples < self._settings.min_samples
        result = FAIL if worse >= self._worse else PASS if fine >= self._fine and not few else NOT_ENOUGH
        return Finding(guardrail.kind, guardrail.limit, result, worse, fine, test.samples, *test.figures,
                       detail=test.detail)


def told(finding: Finding, settings: RolloutSettings) -> str:
    """In words, for people."""
    a, b, samples = finding.baseline, finding.candidate, f"of {finding.samples} calls"
    if finding.kind == "errors":
        return f"errors: {b:.2%} {samples}, {a:.2%} of the baseline's at the same time, limit +{finding.limit:.2%}"
    if finding.kind.startswith(OUTCOME):
        return (f"{finding.kind}: {b:.4g} of {finding.samples} outcomes, {a:.4g} of the baseline's at the same time; "
                f"it may {'rise' if finding.limit > 0 else 'fall'} by {abs(finding.limit):g}")
    if finding.kind in SHADOW_KINDS:
        what = ("copies were answered otherwise" if finding.kind == "disagreement"
                else "vectors have another largest element")
        return f"{finding.kind}: {b:.2%} of {finding.samples} {what}, limit {finding.limit:.2%}"
    if finding.kind == "drift":
        which = f"of output {finding.detail!r}" if finding.detail else "of the outputs"
        return f"drift: more than {finding.limit:g} {which} have moved, PSI {b:.2f} {samples}"
    return (f"{finding.kind}: {b:.3g} ms {samples}, {a:.3g} ms of the baseline's at the same time, limit "
            f"{finding.limit:g} times and {settings.latency_slack_ms:g} ms")


def plain(verdict: Verdict) -> dict[str, Any]:
    """As JSON holds it."""
    return {"result": verdict.result, "samples": verdict.samples, "reason": verdict.reason,
            "guardrails": [{**vars(each)} for each in verdict.findings]}
