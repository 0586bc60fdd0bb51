"""Tests of two arms that may be looked at after every batch: evidence that bounds how often it is ever wrong. Pure.

Each test is an e-process: its expectation is at most 1 at every time at which one may stop while its null hypothesis
holds, so that it ever reaches 1 / alpha with probability at most alpha (Ville). Numbers or arrays of one shape go in, a
test per element comes out; evidence is kept as a logarithm. Counts come in batches, one of each arm at the same time.

Design note. `RateTest` judges rates of two arms by blocks (Turner, Ly & Gruenwald 2024, "Generic E-variables for exact
sequential k-sample tests that allow for optional stopping"; Turner & Gruenwald 2023 for half planes). Its null says
p_b <= ratio * p_a + increase (or >=), in every batch anew: rates may drift as they like as long as both arms' do.
A block's evidence is the likelihood ratio of a point outside of the half plane and the point of its border that is
nearest to it by Kullback-Leibler divergence; where the gradient of the divergence is normal to the border, the
expectation, whose logarithm is concave in the rates, has its largest value, 1, there. The border's point is chosen
first and the other so that this holds exactly, which needs no search. Points come from what was seen before the block.
Evidence is a mixture over some distances from the border, so that none has to be known, and over the times at which
the difference may have begun (as e-detectors: Shin, Ramdas & Rinaldo 2024), so that a long good past does not hide it.
`ShareTest` has one arm, and a border that is given: the likelihood ratio of each alternative and the border, whose
expectation is at most 1 for every share on the border's other side.
Calls that share a batch share a fate: with `clump` calls together, evidence is taken to the power 1 / clump, which is
exact for calls that are alike, and valid anyhow (Jensen).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Distances of alternatives from the border, in log odds.
DISTANCES = np.array([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4])
# Share of the evidence that takes the difference to be there from the start, and batches between later beginnings.
FROM_START = 0.5
BEGIN_EVERY = 10
# What a batch counts for the expected rate of the first arm after the next one.
MEMORY = 0.98
# A rate is never expected to be nearer to 0 or 1.
LEAST_RATE = 1e-6
# Of the way to where a likelihood ratio could become 0.
FARTHEST = 0.9


def _logit(p: Any) -> Any:
    return np.log(p) - np.log1p(-p)


def _expit(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def _clipped(p: Any) -> Any:
    return np.clip(p, LEAST_RATE, 1.0 - LEAST_RATE)


def log_ratio(n: Any, x: Any, p: Any, q: Any) -> Any:
    """Logarithm of the likelihood ratio of rates p and q after x of n."""
    return x * np.log(p / q) + (n - x) * np.log((1.0 - p) / (1.0 - q))


def points(n_a: Any, n_b: Any, rate_a: Any, *, ratio: Any, increase: Any, side: int) -> tuple[Floats, ...]:
    """Rates (border's a and b, alternative's a and b) for a block; the last axis is that of DISTANCES.

    `side`: 1 for alternatives above the border, -1 below.
    """
    n_a, n_b, rate_a, ratio, increase = (np.asarray(each, float)[..., None] for each in (
        n_a, n_b, rate_a, ratio, increase))
    border = _clipped(ratio * rate_a + increase)
    wanted = _expit(_logit(border) + side * DISTANCES)
    back = (wanted - increase) / ratio
    pooled = _clipped((n_a * rate_a + n_b * back) / np.maximum(n_a + n_b, 1.0))
    pooled_b = _clipped(ratio * pooled + increase)
    weight_b = n_b * ratio ** 2 * pooled * (1.0 - pooled) / (pooled_b * (1.0 - pooled_b))
    share = weight_b / np.maximum(n_a + weight_b, 1e-300)
    low = np.maximum(LEAST_RATE, (LEAST_RATE - increase) / ratio)
    high = np.minimum(1.0 - LEAST_RATE, (1.0 - LEAST_RATE - increase) / ratio)
    q_a = np.clip(rate_a + share * (back - rate_a), low, np.maximum(low, high))
    # Without a border between possible rates nothing is bet.
    missing = low > high
    q_a = np.where(missing, 0.5, q_a)
    q_b = np.where(missing, 0.5, ratio * q_a + increase)
    wanted = np.where(missing, 0.5, wanted)
    variance_a, variance_b = q_a * (1.0 - q_a), q_b * (1.0 - q_b)
    slope = n_b * (wanted - q_b) / variance_b
    slope = np.maximum(slope, 0.0) if side > 0 else np.minimum(slope, 0.0)
    room = FARTHEST * n_a / ratio
    slope = np.minimum(slope, room / (1.0 - q_a)) if side > 0 else np.maximum(slope, -room / q_a)
    p_a = q_a - ratio * slope * variance_a / np.maximum(n_a, 1.0)
    p_b = q_b + slope * variance_b / np.maximum(n_b, 1.0)
    return q_a, q_b, p_a, p_b


class _Evidence:
    """Over a mixture of distances (the last axis), and of times at which the difference may have begun."""

    def __init__(self) -> None:
        self._active: Floats = np.array(-np.inf)
        self._batches = 0
        self._begun = 0
        self._unspent = 1.0

    @property
    def log_e(self) -> Floats:
        """Logarithm of the evidence so far."""
        with np.errstate(divide="ignore"):
            unspent = np.log(self._unspent)
        if not self._active.ndim:
            return np.zeros(())
        total = np.logaddexp.reduce(self._active, axis=-1) - math.log(len(DISTANCES))
        return np.asarray(np.logaddexp(total, unspent))

    def _gain(self, gained: Floats) -> None:
        if self._batches % BEGIN_EVERY == 0:
            self._begin()
        self._active = self._active + gained
        self._batches += 1

    def _begin(self) -> None:
        k = self._begun
        weight = FROM_START if k == 0 else (1.0 - FROM_START) / (k * (k + 1))
        self._begun += 1
        self._unspent = max(self._unspent - weight, 0.0)
        self._active = np.logaddexp(self._active, math.log(weight))


class ShareTest(_Evidence):
    """Evidence that the share of cases is larger than `limit` (`above`), or that it is less."""

    def __init__(self, limit: float, *, above: bool) -> None:
        super().__init__()
        self._border = _clipped(limit)
        self._alternatives = _clipped(_expit(_logit(self._border) + (1 if above else -1) * DISTANCES))

    def add(self, n: Any, x: Any, clump: Any = 1.0) -> None:
        """A batch: how many, and how many of them were cases."""
        n, x, clump = (np.asarray(each, float)[..., None] for each in (n, x, clump))
        self._gain(log_ratio(n, x, self._alternatives, self._border) / np.maximum(clump, 1.0))


class RateTest(_Evidence):
    """Evidence that p_b > ratio * p_a + increase (`above`), or that it is less. What holds all the time shows as
    evidence soon; a border that no pair of rates can cross never does."""

    def __init__(self, *, ratio: Any = 1.0, increase: Any = 0.0, above: bool = True, prior: tuple[Any, Any] = (0, 0)
                 ) -> None:
        """`prior`: calls and cases of arm a before; without, the first batch is only learnt from."""
        super().__init__()
        self.ratio, self.increase = np.asarray(ratio, float), np.asarray(increase, float)
        self._side = 1 if above else -1
        self._calls, self._cases = (np.asarray(each, float) for each in prior)

    def add(self, n_a: Any, x_a: Any, n_b: Any, x_b: Any, clump: Any = 1.0) -> None:
        """A batch of both arms: calls, and how many of them were cases."""
        n_a, x_a, n_b, x_b = (np.asarray(each, float) for each in (n_a, x_a, n_b, x_b))
        known = self._calls > 0
        rate_a = _clipped((self._cases + 0.5) / (self._calls + 1.0))
        q_a, q_b, p_a, p_b = points(
            n_a, n_b, rate_a, ratio=self.ratio, increase=self.increase, side=self._side)
        gained = log_ratio(n_a[..., None], x_a[..., None], p_a, q_a) + log_ratio(
            n_b[..., None], x_b[..., None], p_b, q_b)
        gained = gained / np.maximum(np.asarray(clump, float), 1.0)[..., None]
        self._gain(np.where((known & (n_a > 0) & (n_b > 0))[..., None], gained, 0.0))
        self._calls = MEMORY * self._calls + n_a
        self._cases = MEMORY * self._cases + x_a


def samples_needed(rate_a: float, rate_b: float, *, alpha: float, share_b: float, ratio: float = 1.0,
                   increase: float = 0.0, above: bool = True, power: float = 0.8) -> float:
    """Calls of arm b after which a RateTest has found, with that probability, rates that are so; inf where they are
    within the border. `share_b`: of the calls. By the normal approximation of the sum of log likelihood ratios."""
    if (rate_b - ratio * rate_a - increase) * (1 if above else -1) <= 0:
        return math.inf
    n_b = 1.0
    n_a = max((1.0 - share_b) / share_b, 1e-9)
    # A block as large as one call of b: n_a is not whole, which the formulas do not mind.
    scale = 1000.0
    q_a, q_b, p_a, p_b = points(n_a * scale, n_b * scale, _clipped(rate_a), ratio=ratio, increase=increase,
                                side=1 if above else -1)
    jump_a, base_a = np.log(p_a * (1 - q_a) / (q_a * (1 - p_a))), np.log((1 - p_a) / (1 - q_a))
    jump_b, base_b = np.log(p_b * (1 - q_b) / (q_b * (1 - p_b))), np.log((1 - p_b) / (1 - q_b))
    mean = n_a * (base_a + rate_a * jump_a) + n_b * (base_b + rate_b * jump_b)
    spread = n_a * rate_a * (1 - rate_a) * jump_a ** 2 + n_b * rate_b * (1 - rate_b) * jump_b ** 2
    # The distance that is right has its share of the mixture; jumps go beyond the bound.
    wanted = math.log(len(DISTANCES) / (FROM_START * alpha)) + np.maximum(jump_b, 0.0)
    z = _normal_quantile(power)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = (z * np.sqrt(spread) + np.sqrt(z * z * spread + 4.0 * mean * wanted)) / (2.0 * mean)
    best = np.where(mean > 0, root ** 2, np.inf)
    return float(best.min())


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)


class RateInterval:
    """Confidence sequence of p_b - p_a: the differences that no test has rejected (Turner & Gruenwald 2023,
    "Anytime-valid confidence intervals for contingency tables and beyond"). It may be read after every batch."""

    def __init__(self, alpha: float = 0.05, widest: float = 1.0, steps: int = 150) -> None:
        half = np.sinh(np.linspace(0.0, 8.0, steps + 1)[1:]) / np.sinh(8.0) * widest
        self.differences = np.concatenate([-half[::-1], [0.0], half])
        self._alpha = alpha
        inside = np.clip(self.differences, -1.0 + 1e-9, 1.0 - 1e-9)
        self._above = RateTest(increase=inside, above=True)
        self._below = RateTest(increase=inside, above=False)

    def add(self, n_a: Any, x_a: Any, n_b: Any, x_b: Any, clump: Any = 1.0) -> None:
        counts = [np.asarray(each, float)[..., None] for each in (n_a, x_a, n_b, x_b, clump)]
        self._above.add(*counts)
        self._below.add(*counts)

    @property
    def bounds(self) -> tuple[Any, Any]:
        """A bound of 0 leaves 0 itself out: it was rejected."""
        wanted = math.log(2.0 / self._alpha)
        low = np.where(self._above.log_e >= wanted, self.differences, -1.0)
        high = np.where(self._below.log_e >= wanted, self.differences, 1.0)
        return low.max(-1), high.min(-1)


class BoundedMean:
    """Confidence sequence of the mean of values in 0..1, exact: predictable plug-in empirical Bernstein
    (Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting", theorem 2)."""

    def __init__(self, alpha: float = 0.05) -> None:
        self._wanted = math.log(2.0 / alpha)
        self.count: Any = 0.0
        self.total: Any = 0.0
        self.squares: Any = 0.0
        self._weight: Any = 0.0
        self._weighted: Any = 0.0
        self._weight_squares: Any = 0.0
        self._penalty: Any = 0.0
        self._bounds: tuple[Any, Any] = (0.0, 1.0)

    def add(self, n: Any, total: Any, squares: Any) -> None:
        """A batch: how many values, their sum and that of their squares."""
        n, total, squares = (np.asarray(each, float) for each in (n, total, squares))
        mean = (self.total + 0.5) / (self.count + 1.0)
        variance = (self.squares - self.total * self.total / np.maximum(self.count, 1.0) + 0.25) / (self.count + 1.0)
        variance = np.maximum(variance, 1e-6)
        middle = self.count + (n + 1.0) / 2.0
        bet = np.minimum(np.sqrt(2.0 * self._wanted / (variance * middle * np.log1p(middle))), 0.5)
        distance = np.maximum(squares - 2.0 * mean * total + n * mean * mean, 0.0)
        self._weight = self._weight + bet * n
        self._weight_squares = self._weight_squares + bet * bet * n
        self._weighted = self._weighted + bet * total
        self._penalty = self._penalty + distance * (-np.log1p(-bet) - bet)
        self.count, self.total, self.squares = self.count + n, self.total + total, self.squares + squares
        weight = np.maximum(self._weight, 1e-300)
        centre, width = self._weighted / weight, (self._wanted + self._penalty) / weight
        self._bounds = (np.maximum(self._bounds[0], centre - width), np.minimum(self._bounds[1], centre + width))

    @property
    def bounds(self) -> tuple[Any, Any]:
        return self._bounds

    @property
    def noise(self) -> Any:
        """Standard deviation of the sequence's centre, by that of a value."""
        return np.sqrt(self._weight_squares) / np.maximum(self._weight, 1e-300)


def mean_difference(a: tuple[Any, Any, Any], b: tuple[Any, Any, Any], *, alpha: float = 0.05, planned: float = 1000.0
                    ) -> tuple[Any, Any, Any]:
    """Mean of b less that of a, and its confidence sequence, from (count, sum, sum of squares) of each arm: asymptotic,
    for values without known bounds (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, "Time-uniform central limit
    theory and asymptotic confidence sequences"; mixture as in Robbins 1970 and Howard, Ramdas et al. 2021). Narrowest
    near `planned` values in all. Not to be looked at before each arm has a few dozens."""
    (n_a, sum_a, squares_a), (n_b, sum_b, squares_b) = a, b
    mean_a, mean_b = sum_a / np.maximum(n_a, 1), sum_b / np.maximum(n_b, 1)
    variance = sum(np.maximum(squares / np.maximum(n, 1) - mean * mean, 0.0) / np.maximum(n - 1, 1) for n, mean, squares
                   in ((n_a, mean_a, squares_a), (n_b, mean_b, squares_b)))
    n = n_a + n_b
    spread = np.sqrt(variance * n)
    rho2 = (-2.0 * math.log(alpha) + math.log(-2.0 * math.log(alpha)) + 1.0) / planned
    width = spread * np.sqrt(2.0 * (n * rho2 + 1.0) / (n * n * rho2) * np.log(np.sqrt(n * rho2 + 1.0) / alpha))
    width = np.where((n_a > 1) & (n_b > 1), width, np.inf)
    difference = mean_b - mean_a
    return difference, difference - width, difference + width


def log_gamma(x: Any) -> Any:
    """Of x > 0: Stirling's series after a shift that makes it exact to double precision."""
    x = np.asarray(x, float)
    shift = sum(np.log(x + k) for k in range(10))
    x = x + 10.0
    tail = 1.0 / (12.0 * x) - 1.0 / (360.0 * x ** 3) + 1.0 / (1260.0 * x ** 5) - 1.0 / (1680.0 * x ** 7)
    return (x - 0.5) * np.log(x) - x + 0.5 * math.log(2.0 * math.pi) + tail - shift


def sample_ratio_log_e(counts: Any, weights: Any, strength: float = 100.0) -> Any:
    """Log evidence that counts (last axis: arms) were not dealt by the weights: Dirichlet mixture of multinomials
    (Lindon & Malek 2022, "Anytime-valid inference for multinomial count data"). Counts of independent things: keys."""
    counts, weights = np.asarray(counts, float), np.asarray(weights, float)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    prior = strength * weights
    mixed = (log_gamma(prior.sum(-1)) - log_gamma(prior.sum(-1) + counts.sum(-1))
             + (log_gamma(prior + counts) - log_gamma(prior)).sum(-1))
    return mixed - (counts * np.log(weights)).sum(-1)


def probability_best(draws: Floats) -> Floats:
    """Of each arm (last axis) of draws from the posteriors: how often it is the largest."""
    arms = draws.shape[-1]
    won = np.bincount(draws.argmax(-1).ravel(), minlength=arms)
    return np.asarray(won / (draws.size // arms))


def rate_draws(calls: Any, cases: Any, draws: int = 100_000, seed: int = 0) -> Floats:
    """From the posteriors of rates, Beta(1/2, 1/2) before."""
    calls, cases = np.asarray(calls, float), np.asarray(cases, float)
    return np.random.default_rng(seed).beta(cases + 0.5, calls - cases + 0.5, (draws, len(calls)))


def mean_draws(counts: Any, sums: Any, squares: Any, draws: int = 100_000, seed: int = 0) -> Floats:
    """From the posteriors of means, normal with a flat prior."""
    counts, sums, squares = (np.asarray(each, float) for each in (counts, sums, squares))
    means = sums / counts
    errors = np.sqrt(np.maximum(squares / counts - means ** 2, 0.0) / np.maximum(counts - 1, 1))
    return np.random.default_rng(seed).normal(means, errors, (draws, len(counts)))
