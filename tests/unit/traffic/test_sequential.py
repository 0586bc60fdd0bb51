"""Sequential tests: how often they are wrong when they are looked at after every batch, and how much they need."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from infer.traffic.sequential import (
    DISTANCES,
    BoundedMean,
    RateInterval,
    RateTest,
    ShareTest,
    log_gamma,
    log_ratio,
    mean_difference,
    mean_draws,
    points,
    probability_best,
    rate_draws,
    sample_ratio_log_e,
    samples_needed,
)

RUNS = 1000
ALPHA = 0.05


def assert_seldom(wrong: int, runs: int = RUNS, alpha: float = ALPHA) -> None:
    """The 95% lower limit of the observed share is not above what was promised."""
    assert proportion_confint(wrong, runs, alpha=0.1, method="beta")[0] <= alpha, (wrong, runs)


def assert_mostly(right: int, runs: int = RUNS, least: float = 0.8) -> None:
    assert proportion_confint(right, runs, alpha=0.1, method="beta")[1] >= least, (right, runs)


def found_after(test: RateTest, rng: np.random.Generator, batches: int, n: tuple[int, int], rates: object, *,
                alpha: float = ALPHA) -> np.ndarray:
    """By run: batches after which the test had enough, looked at after each; inf for never."""
    found = np.full(RUNS, np.inf)
    for batch in range(1, batches + 1):
        rate_a, rate_b = rates(batch) if callable(rates) else rates  # type: ignore[misc]
        test.add(np.full(RUNS, n[0]), rng.binomial(n[0], rate_a, RUNS), np.full(RUNS, n[1]),
                 rng.binomial(n[1], rate_b, RUNS))
        found[(test.log_e >= math.log(1 / alpha)) & np.isinf(found)] = batch
    return found


def chances(n: int, p: float) -> list[float]:
    """Of 0 to n cases; scipy's do not take the smallest rates."""
    return [math.comb(n, x) * p ** x * (1 - p) ** (n - x) for x in range(n + 1)]


@settings(max_examples=150, deadline=None)
@given(n_a=st.integers(1, 12), n_b=st.integers(1, 12), expected=st.floats(0.001, 0.999),
       ratio=st.sampled_from([0.5, 1.0, 2.0]), increase=st.sampled_from([-0.3, 0.0, 0.01, 0.2]),
       side=st.sampled_from([1, -1]), rate_a=st.floats(0, 1), along=st.floats(0, 1))
def test_a_block_is_worth_at_most_1_wherever_the_null_holds(
        *, n_a: int, n_b: int, expected: float, ratio: float, increase: float, side: int, rate_a: float, along: float
        ) -> None:
    border = ratio * rate_a + increase
    low, high = (0.0, min(border, 1.0)) if side > 0 else (max(border, 0.0), 1.0)
    if low > high:
        return      # no rate of b for which it holds
    rate_b = low + along * (high - low)
    q_a, q_b, p_a, p_b = points(n_a, n_b, expected, ratio=ratio, increase=increase, side=side)
    worth_a = [np.exp(log_ratio(n_a, x, p_a, q_a)) for x in range(n_a + 1)]
    worth_b = [np.exp(log_ratio(n_b, x, p_b, q_b)) for x in range(n_b + 1)]
    mean_a = sum(chance * worth for chance, worth in zip(chances(n_a, rate_a), worth_a, strict=True))
    mean_b = sum(chance * worth for chance, worth in zip(chances(n_b, rate_b), worth_b, strict=True))
    assert (mean_a * mean_b <= 1 + 1e-9).all()


@pytest.mark.parametrize(("n", "rates", "ratio", "increase", "above"), [
    ((1980, 20), (0.01, 0.01), 1.0, 0.0, True),
    ((1980, 20), (0.0, 0.01), 1.0, 0.01, True),
    ((100, 100), (0.3, 0.3), 1.0, 0.0, True),
    ((30, 30), (0.05, 0.05), 1.0, 0.0, False),
    ((50, 200), (0.02, 0.04), 2.0, 0.0, True),
    ((1980, 20), (0.01, 0.02), 1.0, 0.01, False),
    ((200, 50), (0.2, 0.15), 1.0, -0.05, True),
    # An outage of both, once.
    ((500, 20), lambda batch: (0.5, 0.5) if 50 < batch < 60 else (0.001, 0.001), 1.0, 0.0, True),
    # More and more of both.
    ((100, 100), lambda batch: (batch / 300, batch / 300 + 0.01), 1.0, 0.01, True),
])
def test_equal_arms_are_seldom_told_apart(n: tuple[int, int], rates: object, ratio: float, increase: float, above: bool
                                          ) -> None:
    test = RateTest(ratio=ratio, increase=increase, above=above)
    found = found_after(test, np.random.default_rng(1), 200, n, rates)
    assert_seldom(np.isfinite(found).sum())


def test_calls_that_share_a_batch_count_as_one() -> None:
    rng = np.random.default_rng(2)
    test = RateTest()
    wrong = np.zeros(RUNS, bool)
    for _ in range(100):
        test.add(np.full(RUNS, 80), 8 * rng.binomial(10, 0.1, RUNS), np.full(RUNS, 80), 8 * rng.binomial(10, 0.1, RUNS),
                 clump=8)
        wrong |= test.log_e >= math.log(1 / ALPHA)
    assert_seldom(wrong.sum())


@pytest.mark.parametrize(("n", "rates", "increase", "above", "alpha"), [
    ((1980, 20), (0.0, 0.05), 0.01, True, 0.0025),
    ((1980, 20), (0.001, 0.1), 0.01, True, 0.0025),
    ((1980, 20), (0.5, 0.9), 0.05, True, 0.0025),
    ((100, 100), (0.1, 0.15), 0.0, True, 0.05),
    ((50, 50), (0.0, 0.0), 0.01, False, 0.05),
    ((1980, 20), (0.01, 0.005), 0.01, False, 0.05),
])
def test_as_much_as_promised_is_enough(n: tuple[int, int], rates: tuple[float, float], increase: float, above: bool,
                                       alpha: float) -> None:
    needed = samples_needed(*rates, alpha=alpha, share_b=n[1] / sum(n), increase=increase, above=above)
    batches = math.ceil(needed / n[1])
    # The first batch is only learnt from.
    found = found_after(RateTest(increase=increase, above=above), np.random.default_rng(3), batches + 1, n, rates,
                        alpha=alpha)
    assert_mostly(np.isfinite(found).sum())


def test_within_the_border_nothing_is_ever_enough() -> None:
    assert samples_needed(0.1, 0.1, alpha=0.05, share_b=0.5) == math.inf
    assert samples_needed(0.1, 0.05, alpha=0.05, share_b=0.5) == math.inf
    assert samples_needed(0.1, 0.2, alpha=0.05, share_b=0.5, above=False) == math.inf


def test_5_percent_of_errors_at_1_percent_of_2000_calls_a_second_are_found_within_30_s() -> None:
    found = found_after(RateTest(increase=0.01), np.random.default_rng(4), 30, (1980, 20), (0.0, 0.05), alpha=0.0025)
    assert np.mean(found <= 30) > 0.97


def test_a_long_good_past_does_not_hide_what_begins_late() -> None:
    found = found_after(RateTest(increase=0.01), np.random.default_rng(5), 230, (1980, 20),
                        lambda batch: (0.0, 0.0 if batch <= 200 else 0.1), alpha=0.0025)
    assert np.mean(found <= 230) > 0.97
    assert np.mean(found <= 200) <= ALPHA


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize(("limit", "n", "clump"), [(0.01, 60, 1), (0.3, 5, 1), (0.05, 80, 8)])
def test_a_share_at_its_limit_is_seldom_told_from_it(limit: float, n: int, clump: int, above: bool) -> None:
    rng = np.random.default_rng(12)
    test = ShareTest(limit, above=above)
    wrong = np.zeros(RUNS, bool)
    for _ in range(200):
        test.add(np.full(RUNS, n), clump * rng.binomial(n // clump, limit, RUNS), clump)
        wrong |= test.log_e >= math.log(1 / ALPHA)
    assert_seldom(wrong.sum())


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 12), limit=st.floats(0.001, 0.9), along=st.floats(0, 1), above=st.booleans())
def test_a_share_is_worth_at_most_1_wherever_the_null_holds(*, n: int, limit: float, along: float, above: bool) -> None:
    share = along * limit if above else limit + along * (1 - limit)
    worth = np.zeros(())
    for x, chance in enumerate(chances(n, share)):
        test = ShareTest(limit, above=above)
        test.add(n, x)
        worth = worth + chance * np.exp(test.log_e)
    assert worth <= 1 + 1e-9


@pytest.mark.parametrize(("share", "limit", "above", "needed"), [
    (0.05, 0.01, True, 300), (0.02, 0.01, True, 2000), (0.0, 0.01, False, 700), (0.5, 0.01, True, 20)])
def test_shares_beyond_their_limit_are_found(share: float, limit: float, above: bool, needed: int) -> None:
    rng = np.random.default_rng(13)
    test = ShareTest(limit, above=above)
    found = np.zeros(RUNS, bool)
    for _ in range(needed // 10):
        test.add(np.full(RUNS, 10), rng.binomial(10, share, RUNS))
        found |= test.log_e >= math.log(1 / ALPHA)
    assert_mostly(found.sum())


def test_without_one_of_the_arms_there_is_no_evidence() -> None:
    test = RateTest()
    for _ in range(10):
        test.add(0, 0, 100, 50)
        test.add(100, 0, 0, 0)
    assert test.log_e <= 1e-9


def test_intervals_cover_at_every_look() -> None:
    """At the true difference neither side of the interval ever rejects."""
    rng = np.random.default_rng(6)
    tests = RateTest(increase=0.03, above=True), RateTest(increase=0.03, above=False)
    missed = np.zeros(RUNS, bool)
    for _ in range(200):
        batch = np.full(RUNS, 60), rng.binomial(60, 0.1, RUNS), np.full(RUNS, 40), rng.binomial(40, 0.13, RUNS)
        for test in tests:
            test.add(*batch)
            missed |= test.log_e >= math.log(2 / ALPHA)
    assert_seldom(missed.sum())


def test_an_interval_holds_the_one_that_may_be_looked_at_once_and_is_not_much_wider() -> None:
    rng = np.random.default_rng(7)
    interval = RateInterval()
    cases = np.zeros(2)
    for _ in range(100):
        a, b = rng.binomial(100, 0.1), rng.binomial(100, 0.14)
        cases += a, b
        interval.add(100, a, 100, b)
    low, high = confint_proportions_2indep(cases[1], 10_000, cases[0], 10_000, method="wald")
    assert interval.bounds[0] <= low < 0.04 < high <= interval.bounds[1]
    assert interval.bounds[0] > 0.0
    assert interval.bounds[1] - interval.bounds[0] <= 3 * (high - low)


def test_means_of_bounded_values_are_covered_at_every_look() -> None:
    rng = np.random.default_rng(8)
    sequence = BoundedMean(ALPHA)
    missed = np.zeros(RUNS, bool)
    for _ in range(100):
        values = rng.beta(2, 6, (RUNS, 20))
        sequence.add(np.full(RUNS, 20), values.sum(1), (values ** 2).sum(1))
        low, high = sequence.bounds
        missed |= (low > 0.25) | (high < 0.25)
    assert_seldom(missed.sum())
    fixed = stats.t.interval(0.95, 1999, 0, stats.beta.std(2, 6) / math.sqrt(2000))
    assert np.median(high - low) <= 3 * (fixed[1] - fixed[0])


def test_differences_of_means_are_covered_at_every_look() -> None:
    rng = np.random.default_rng(9)
    missed = np.zeros(RUNS, bool)
    sums = np.zeros((2, 3, RUNS))
    for _ in range(60):
        for arm, values in enumerate((rng.exponential(3, (RUNS, 50)), 0.5 + rng.exponential(3, (RUNS, 25)))):
            sums[arm] += np.full(RUNS, values.shape[1]), values.sum(1), (values ** 2).sum(1)
        difference, low, high = mean_difference(tuple(sums[0]), tuple(sums[1]), alpha=ALPHA)
        missed |= (low > 0.5) | (high < 0.5)
    assert_seldom(missed.sum())
    assert abs(np.mean(difference) - 0.5) < 0.02
    once = 2 * 1.96 * 3 * math.sqrt(1 / 3000 + 1 / 1500)
    assert np.median(high - low) <= 3 * once


def test_winners_are_seldom_found_among_equals() -> None:
    rng = np.random.default_rng(10)
    better, worse = RateTest(above=True), RateTest(above=False)
    won = np.zeros(RUNS, bool)
    for _ in range(200):
        batch = np.full(RUNS, 50), rng.binomial(50, 0.2, RUNS), np.full(RUNS, 50), rng.binomial(50, 0.2, RUNS)
        for test in (better, worse):
            test.add(*batch)
            won |= test.log_e >= math.log(2 / ALPHA)
    assert_seldom(won.sum())


def test_sample_ratio() -> None:
    rng = np.random.default_rng(11)
    weights = np.array([0.5, 0.3, 0.2])
    counts = np.zeros((RUNS, 3))
    told = np.zeros(RUNS, bool)
    for _ in range(100):
        counts += rng.multinomial(100, weights, RUNS)
        told |= sample_ratio_log_e(counts, weights) >= math.log(1 / ALPHA)
    assert_seldom(told.sum())
    other = rng.multinomial(10_000, [0.47, 0.33, 0.2], RUNS)
    assert np.mean(sample_ratio_log_e(other, weights) >= math.log(1 / ALPHA)) > 0.8
    mixed = stats.dirichlet_multinomial.logpmf([40, 35, 25], 100 * weights, 100)
    null = stats.multinomial.logpmf([40, 35, 25], 100, weights)
    assert sample_ratio_log_e([40, 35, 25], weights) == pytest.approx(mixed - null)


@given(st.floats(1e-3, 1e6))
def test_log_gamma(x: float) -> None:
    assert float(log_gamma(x)) == pytest.approx(special.gammaln(x), rel=1e-10, abs=1e-9)


def test_probability_of_being_best() -> None:
    calls, cases = [1000, 1000, 400], [100, 115, 45]
    found = probability_best(rate_draws(calls, cases))
    posteriors = [stats.beta(x + 0.5, n - x + 0.5) for n, x in zip(calls, cases, strict=True)]
    for arm, posterior in enumerate(posteriors):
        others = [each for each in posteriors if each is not posterior]
        exact, _ = integrate.quad(
            lambda p, posterior=posterior, others=others: posterior.pdf(p) * math.prod(each.cdf(p) for each in others),
            0, 1, points=[0.1, 0.115], limit=200)
        assert found[arm] == pytest.approx(exact, abs=0.01)
    first, second = probability_best(mean_draws([100, 100], [500, 510], [2600, 2701]))
    error = math.sqrt((26 - 25) / 99 + (27.01 - 26.01) / 99)
    assert first + second == 1
    assert second == pytest.approx(stats.norm.cdf(0.1 / error), abs=0.01)


def test_distances_are_those_of_the_mixture() -> None:
    """At a border that is known, the worth of a case is what its alternatives say."""
    _, q_b, _, p_b = points(1e12, 1.0, 0.2, ratio=1.0, increase=0.0, side=1)
    moved = special.logit(p_b) - special.logit(q_b)
    assert moved == pytest.approx(DISTANCES, rel=1e-3)
