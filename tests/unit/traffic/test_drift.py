"""Drift of outputs between two arms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from infer.traffic.drift import GROUPS, DriftTest, groups_of, psi

BINS = 64
EDGES = stats.norm.ppf(np.linspace(0, 1, BINS + 1))


def counts(rng: np.random.Generator, n: int, shift: float = 0.0) -> np.ndarray:
    return np.histogram(rng.normal(shift, 1, n), EDGES)[0].astype(float)


def batches_until(shift: float, tolerance: float, *, alike: bool = False, alpha: float = 0.0025, seed: int = 1,
                  batches: int = 60, n: tuple[int, int] = (1000, 20)) -> float:
    rng, test = np.random.default_rng(seed), DriftTest(tolerance)
    for batch in range(1, batches + 1):
        test.add(counts(rng, n[0]), counts(rng, n[1], shift))
        if (test.log_e_alike if alike else test.log_e) >= math.log(1 / alpha):
            return batch
    return math.inf


def test_psi() -> None:
    assert psi([10, 20, 30], [10, 20, 30]) == 0.0
    a, b = np.array([100.5, 300.5, 600.5]), np.array([300.5, 300.5, 400.5])
    a, b = a / a.sum(), b / b.sum()
    assert psi([100, 300, 600], [300, 300, 400]) == pytest.approx(stats.entropy(a, b) + stats.entropy(b, a))


def test_groups_are_neighbours_with_about_equal_shares() -> None:
    groups = groups_of(np.ones(BINS))
    assert (np.diff(groups) >= 0).all()
    assert np.bincount(groups, minlength=GROUPS).tolist() == pytest.approx([BINS / GROUPS] * GROUPS, abs=1)
    assert len(set(groups_of(np.array([0.0, 500.0, 500.0])))) >= 2


def test_what_is_alike_is_seldom_called_moved() -> None:
    runs = 100
    wrong = sum(math.isfinite(batches_until(0.0, 0.0, alpha=0.05, seed=seed, batches=40, n=(100, 40)))
                for seed in range(runs))
    assert proportion_confint(wrong, runs, alpha=0.1, method="beta")[0] <= 0.05


@pytest.mark.parametrize(("shift", "at_most"), [(1.0, 25), (3.0, 5), (-3.0, 5)])
def test_outputs_that_moved_are_found(shift: float, at_most: float) -> None:
    found = [batches_until(shift, 0.1, seed=seed) for seed in range(20)]
    assert np.mean([each <= at_most for each in found]) >= 0.8, found


def test_alike_within_the_tolerance_is_found_too() -> None:
    found = [batches_until(0.0, 0.1, alike=True, alpha=0.05, seed=seed) for seed in range(20)]
    assert np.mean([each <= 30 for each in found]) >= 0.8, found
    assert all(math.isinf(batches_until(2.0, 0.1, alike=True, alpha=0.05, seed=seed)) for seed in range(5))


def test_before_anything_was_learnt_nothing_is_said() -> None:
    test = DriftTest(0.1)
    test.add([10, 10], [0, 20])
    assert (test.log_e, test.log_e_alike, test.psi) == (0.0, 0.0, 0.0)


def test_two_values_only() -> None:
    test = DriftTest(0.1)
    for _ in range(20):
        test.add([500, 500], [19, 1])
    assert test.log_e > math.log(400)
    assert test.psi > 0.25
