"""Guardrails on counts of two arms: what they find, when, and what they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from infer.rollouts import LIMITS, RolloutSettings, parse_guardrails
from infer.traffic.guardrail_tests import quantile_of
from infer.traffic.guardrails import StepTests, Verdict, plain, share_of_alpha
from infer.traffic.outcomes import Sums
from infer.traffic.seen import Copies, Seen

STEPS = (1.0, 5.0, 25.0, 50.0, 100.0)
BINS = 32


class Arms:
    """Calls of two versions, a second at a time; latencies in buckets an eighth of a doubling wide."""

    def __init__(self, seed: int, rate: int = 2000, share: float = 0.01) -> None:
        self.rng = np.random.default_rng(seed)
        self.counts = round(rate * (1 - share)), round(rate * share)

    def seen(self, arm: int, errors: float = 0.001, ms: float = 5.0, shift: float = 0.0) -> Seen:
        n = int(self.rng.poisson(self.counts[arm]))
        failed = int(self.rng.binomial(n, errors))
        ns = ms * 1e6 * self.rng.lognormal(0, 0.4, n - failed)
        floors = 2.0 ** (np.floor(np.log2(ns) * 8) / 8)
        values = np.clip(np.floor(self.rng.normal(BINS / 2 + shift, 4, n)), 0, BINS - 1)
        return Seen(n, failed, counted(floors), {"y": counted(values)})

    def verdict_after(self, seconds: int, candidate: dict[str, float], guardrails: tuple[str, ...] = (),
                      min_samples: int = 100) -> tuple[Verdict, int]:
        """The first that is a failure, or the last; and the seconds until then."""
        tests = step_tests(guardrails, min_samples)
        verdict, passed = Verdict(), 0
        while verdict.result != "fail" and passed < seconds:
            tests.add(self.seen(0), self.seen(1, **candidate))
            verdict, passed = tests.verdict(), passed + 1
        return verdict, passed


def step_tests(guardrails: tuple[str, ...] = (), min_samples: int = 1, steps: tuple[float, ...] = STEPS,
               weight: float = 1.0, **settings: Any) -> StepTests:
    return StepTests(RolloutSettings(steps, guardrails=parse_guardrails(guardrails), min_samples=min_samples,
                                     **settings), weight, BINS)


def counted(values: np.ndarray) -> dict[int, int]:
    found, counts = np.unique(values.astype(np.int64), return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


@pytest.mark.parametrize(("kind", "candidate"), [
    ("errors", {"errors": 0.05}), ("p50", {"ms": 15.0}), ("p99", {"ms": 15.0}), ("drift", {"shift": 4.0})])
def test_what_a_version_does_wrong_is_found_within_30_s(kind: str, candidate: dict[str, float]) -> None:
    times = []
    others = tuple(f"{each}=off" for each in ("p50", "p99") if each != kind)
    for seed in range(20):
        verdict, seconds = Arms(seed).verdict_after(60, candidate, others)
        assert verdict.result == "fail"
        assert kind in [each.kind for each in verdict.findings if each.result == "fail"]
        assert kind in verdict.reason
        times.append(seconds)
    assert np.mean([each <= 30 for each in times]) >= 0.9, times


def test_a_good_version_passes_and_seldom_fails() -> None:
    runs, failed, passed = 25, 0, 0
    for seed in range(runs):
        verdict, _ = Arms(seed).verdict_after(100, {})
        failed += verdict.result == "fail"
        passed += verdict.result == "pass"
    assert proportion_confint(failed, runs, alpha=0.1, method="beta")[0] <= 0.05
    assert passed >= 0.8 * runs, (passed, failed)


def test_a_faster_version_passes() -> None:
    assert Arms(1).verdict_after(120, {"ms": 2.0})[0].result == "pass"


def test_few_calls_are_never_enough() -> None:
    tests = step_tests(steps=(100.0,))
    for look in range(20):
        tests.add(Seen(100, 0, {1000: 100}, {"y": {1: 50, 2: 50}}), Seen(1, 0, {1000: 1}, {"y": {1 + look % 2: 1}}))
    assert tests.verdict().result == "not enough data"
    assert "not decided yet" in tests.verdict().reason


def test_less_than_the_minimum_is_not_enough_whatever_the_tests_say() -> None:
    arms = Arms(2)
    verdict, _ = arms.verdict_after(60, {}, ("p50=off", "p99=off", "drift=off"), min_samples=10 ** 6)
    assert (verdict.result, verdict.findings[0].result) == ("not enough data", "pass")
    assert f"{verdict.samples} of 1000000 calls" in verdict.reason


def test_without_a_baseline_nothing_is_decided() -> None:
    tests = step_tests(steps=(100.0,))
    for _ in range(20):
        tests.add(Seen(), Seen(1000, 500, {1000: 500}, {"y": {1: 500}}))
    assert tests.verdict().result == "not enough data"


@pytest.mark.parametrize(("slack_ms", "result"), [(0.5, "pass"), (0.3, "fail")])
def test_the_latency_of_calls_that_are_quick_anyhow_is_of_no_matter(slack_ms: float, result: str) -> None:
    """Within the slack nothing is slower, whatever the ratio is."""
    tests = step_tests(("errors=off", "drift=off"), steps=(100.0,), latency_slack_ms=slack_ms)
    for _ in range(60):
        tests.add(Seen(1000, 0, {50_000: 500, 100_000: 500}), Seen(50, 0, {600_000: 50}))
    assert tests.verdict().result == result
    assert slack_ms == 0.5 or f"limit 1.5 times and {slack_ms:g} ms" in tests.verdict().reason


def copies(rng: np.random.Generator, share: float, n: int = 100, vectors: int = 1) -> Seen:
    """Of which `share` differ; those have other largest elements in all of their vectors."""
    differing = int(rng.binomial(n, share))
    return Seen(copies=Copies(n, differing, vectors * n, vectors * differing))


@pytest.mark.parametrize("kind", ["disagreement", "top1"])
@pytest.mark.parametrize(("share", "result"), [(0.1, "fail"), (0.0, "pass")])
def test_what_a_shadow_tells_before_the_first_call(kind: str, share: float, result: str) -> None:
    rng = np.random.default_rng(4)
    tests = step_tests((f"{kind}=0.01",), 100, (0.0, *STEPS), weight=0.0)
    looks = 0
    while tests.verdict().result == "not enough data":
        tests.add(Seen(), copies(rng, share, vectors=2))
        looks += 1
    verdict = tests.verdict()
    assert verdict.result == result
    assert [each.kind for each in verdict.findings] == [kind]
    assert (f"{kind}: " if share else "every guardrail held") in verdict.reason
    assert looks <= 10


def test_copies_that_were_dropped_count_for_nothing() -> None:
    tests = step_tests(("disagreement=0.01",), 1, (0.0, 100.0), weight=0.0)
    for _ in range(100):
        tests.add(Seen(), Seen())
    assert tests.verdict().result == "not enough data"
    assert tests.verdict().samples == 0


def test_few_copies_are_never_enough() -> None:
    rng = np.random.default_rng(5)
    tests = step_tests(("disagreement=0.5",), 1000, (0.0, 100.0), weight=0.0)
    for _ in range(9):
        tests.add(Seen(), copies(rng, 0.0))
    assert tests.verdict().findings[0].log_e_fine > 5
    assert tests.verdict().result == "not enough data"
    tests.add(Seen(), copies(rng, 0.0))
    assert tests.verdict().result == "pass"


def test_a_version_that_agrees_as_its_limit_says_seldom_fails() -> None:
    """At the limit itself, over all steps."""
    runs, failed = 100, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        for _ in STEPS:
            tests = step_tests(("disagreement=0.02", "errors=off", "p50=off", "p99=off", "drift=off"), 100)
            for _ in range(50):
                tests.add(Seen(), copies(rng, 0.02))
                failed += tests.verdict().result == "fail"
                if tests.verdict().result == "fail":
                    break
    assert proportion_confint(failed, runs, alpha=0.1, method="beta")[0] <= 0.05


# Means 0.3 and 0.1 of the scale: of 0 or 1, and of amounts that lie closely together.
METRICS = {"outcome:bought": (0.3, 1.0), "outcome:spend:mean:0..500": (0.1, 500.0)}


class Reports:
    """Outcomes of both versions, a look at a time."""

    def __init__(self, seed: int, kind: str, mean_b: float, n: tuple[int, int] = (50, 20)) -> None:
        self.rng = np.random.default_rng(seed)
        self.metric = kind.split(":")[1]
        self.is_rate = kind.count(":") == 1
        self.means, self.n = (METRICS[kind][0], mean_b), n

    def seen(self, arm: int) -> Seen:
        mean, n = self.means[arm], int(self.rng.poisson(self.n[arm]))
        values = self.rng.binomial(1, mean, n) if self.is_rate else self.rng.beta(20 * mean, 20 * (1 - mean), n)
        return Seen(outcomes={self.metric: Sums(n, float(values.sum()), float((values ** 2).sum()))})


def outcome_tests(kind: str, limit: float, **settings: Any) -> StepTests:
    """`limit`: on the scale of 0 to 1."""
    return step_tests((f"{kind}={limit * METRICS[kind][1]:g}", "errors=off", "p50=off", "p99=off", "drift=off"),
                      **settings)


def found(tests: StepTests) -> str:
    return str(tests.verdict().findings[0].result)


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize(("limit", "change", "looks", "result"), [
    (-0.05, -0.05, 120, "none"),        # as much worse as it may be
    (0.05, 0.05, 120, "none"),
    (-0.05, -0.15, 150, "fail"),
    (0.05, 0.15, 150, "fail"),
    (-0.05, 0.05, 300, "pass"),
    (0.05, -0.05, 300, "pass"),
])
def test_outcomes_that_clients_report(kind: str, limit: float, change: float, looks: int, result: str) -> None:
    mean = METRICS[kind][0] + change * (0.6 if kind.count(":") > 1 else 1.0)
    limit = limit * (0.6 if kind.count(":") > 1 else 1.0)
    runs, results = 40, []
    for seed in range(runs):
        reports, tests = Reports(seed, kind, mean), outcome_tests(kind, limit, steps=(50.0, 100.0))
        for _ in range(looks):
            tests.add(reports.seen(0), reports.seen(1))
            if found(tests) != "not enough data":
                break
        results.append(found(tests))
    if result == "none":
        assert proportion_confint(results.count("fail"), runs, alpha=0.1, method="beta")[0] <= 0.05
        assert proportion_confint(results.count("pass"), runs, alpha=0.1, method="beta")[0] <= 0.05
    else:
        assert results.count(result) >= 0.8 * runs, results


def test_outcomes_that_come_one_by_one_are_put_together() -> None:
    tests = outcome_tests("outcome:bought", -0.2, steps=(50.0, 100.0))
    for _ in range(300):
        tests.add(Seen(outcomes={"bought": Sums(1, 1.0, 1.0)}), Seen())
        tests.add(Seen(), Seen(outcomes={"bought": Sums(1, 0.0, 0.0)}))
    verdict = tests.verdict()
    assert verdict.result == "fail"
    assert verdict.reason == ("outcome:bought: 0 of 300 outcomes, 1 of the baseline's at the same time; it may fall by "
                              "0.2")


def test_few_outcomes_are_never_enough() -> None:
    tests = outcome_tests("outcome:bought", -0.3, min_samples=1000)
    for _ in range(99):
        tests.add(Seen(1000, outcomes={"bought": Sums(10, 5.0, 5.0)}),
                  Seen(1000, outcomes={"bought": Sums(10, 5.0, 5.0)}))
    assert tests.verdict().findings[0].log_e_fine > 5
    assert tests.verdict().result == "not enough data"


class Outputs:
    """Values of several outputs, a look at a time; `shifts` of the candidate's."""

    def __init__(self, seed: int, shifts: dict[str, float], shares: dict[str, float] | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.shifts, self.shares = shifts, shares or {}

    def seen(self, arm: int, n: int) -> Seen:
        return Seen(n, outputs={name: counted(np.clip(np.floor(self.rng.normal(
            BINS / 2 + shift * arm, 4, self.rng.binomial(n, self.shares.get(name, 1.0)))), 0, BINS - 1))
            for name, shift in self.shifts.items()})

    def result(self, looks: int) -> Verdict:
        tests = step_tests(("errors=off", "p50=off", "p99=off"), steps=(50.0, 100.0))
        for _ in range(looks):
            tests.add(self.seen(0, 200), self.seen(1, 40))
            if tests.verdict().result != "not enough data":
                break
        return tests.verdict()


ALIKE = {"y": 0.0, "z": 0.0, "w": 0.0, "v": 0.0}


def test_any_output_that_moves_is_found() -> None:
    results = [Outputs(seed, {**ALIKE, "w": 3.0}).result(60) for seed in range(20)]
    assert np.mean([each.result == "fail" for each in results]) >= 0.9
    assert "drift: more than 0.1 of output 'w' have moved" in results[0].reason
    assert results[0].findings[0].detail == "w"


def test_outputs_that_are_all_alike_pass_and_seldom_fail() -> None:
    runs = 40
    results = [Outputs(seed, ALIKE).result(100).result for seed in range(runs)]
    assert proportion_confint(results.count("fail"), runs, alpha=0.1, method="beta")[0] <= 0.05
    assert results.count("pass") >= 0.8 * runs


def test_an_output_that_is_hardly_asked_for_holds_nobody_up() -> None:
    assert Outputs(1, ALIKE, {"v": 0.0, "w": 0.002}).result(100).result == "pass"
    # One that many ask for has to be alike.
    verdict = Outputs(1, {**ALIKE, "w": 1.0}, {"w": 0.1}).result(60)
    assert verdict.result == "not enough data"


def test_outputs_that_one_version_does_not_have() -> None:
    tests = step_tests(("errors=off", "p50=off", "p99=off"), steps=(50.0, 100.0))
    outputs = Outputs(2, {"y": 0.0})
    for _ in range(100):
        a, b = outputs.seen(0, 200), outputs.seen(1, 40)
        tests.add(Seen(200, outputs={**a.outputs, "old": {3: 200}}), Seen(40, outputs={**b.outputs, "new": {9: 40}}))
    assert tests.verdict().result == "pass"


def test_plain_is_json() -> None:
    import json

    verdict, _ = Arms(3).verdict_after(5, {})
    told = json.loads(json.dumps(plain(verdict)))
    assert [each["kind"] for each in told["guardrails"]] == list(LIMITS)


def test_quantiles() -> None:
    assert [quantile_of({10: 5, 20: 5}, q) for q in (0.0, 0.49, 0.5, 0.99, 1.0)] == [10, 10, 20, 20, 20]


def test_restarts_share_alpha_and_what_they_begin_needs_more_evidence() -> None:
    shares = [share_of_alpha(restarts) for restarts in range(1000)]
    assert 0.99 < sum(shares) <= 1.0
    assert shares == sorted(shares, reverse=True)
    settings = RolloutSettings(STEPS, guardrails=parse_guardrails(("p50=off", "p99=off", "drift=off")), min_samples=1)
    calls = []
    for restarts in (0, 1, 20):
        tests, looks = StepTests(settings, 1.0, BINS, restarts), 0
        while tests.verdict().result != "fail":
            tests.add(Seen(calls=1000), Seen(calls=10, errors=1))
            looks += 1
        calls.append(looks)
    assert calls[0] < calls[1] < calls[2]
