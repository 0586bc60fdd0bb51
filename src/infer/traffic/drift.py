"""Whether two arms' outputs are distributed alike: a sequential test of that, and the PSI that people know. Pure.

Values are counted in bins that both arms share, in the order of the values. The first `LEARN` values of the baseline
join neighbouring bins into at most `GROUPS` of about the same share; from then on each border between two groups has
two tests, whether the candidate's share of values below it is larger than the baseline's of the same time by more than
`tolerance`, and whether it is smaller by more. That bounds the distance of Kolmogorov and Smirnov at those borders. The
mean of e-values is one, so their number costs its logarithm.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infer.traffic.sequential import RateTest

Counts = NDArray[np.float64]

LEARN = 200
GROUPS = 10


def psi(reference: Any, counts: Any) -> float:
    """Population stability index of counts against a reference, half a value added to each bin."""
    a, b = np.asarray(reference, float) + 0.5, np.asarray(counts, float) + 0.5
    a, b = a / a.sum(), b / b.sum()
    return float(((b - a) * np.log(b / a)).sum())


def groups_of(counts: Counts) -> NDArray[np.int64]:
    """The group of each bin: neighbours that have about a share of 1 / GROUPS together."""
    before = np.concatenate([[0.0], np.cumsum(counts)[:-1]]) + counts / 2
    groups = (before / max(counts.sum(), 1.0) * GROUPS).astype(np.int64)
    return np.asarray(np.minimum(groups, GROUPS - 1))


class DriftTest:
    """One per guardrail. `log_e`: evidence that more than `tolerance` of the values have moved over a border;
    `log_e_alike`: that over no border as many have."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._groups: NDArray[np.int64] | None = None
        self._a: Counts = np.zeros(0)
        self._b: Counts = np.zeros(0)
        self._moved: tuple[RateTest, RateTest] | None = None
        self._alike: tuple[RateTest, RateTest] | None = None

    @property
    def psi(self) -> float:
        """Of what was counted so far; 0 before there is anything of both."""
        return psi(self._a, self._b) if self._a.sum() and self._b.sum() else 0.0

    @property
    def log_e(self) -> float:
        if self._moved is None:
            return 0.0
        both = np.concatenate([np.broadcast_to(test.log_e, len(self._a) - 1) for test in self._moved])
        return float(np.logaddexp.reduce(both) - math.log(len(both)))

    @property
    def log_e_alike(self) -> float:
        if self._alike is None:
            return 0.0
        return float(min(test.log_e.min() for test in self._alike))

    def add(self, a: Any, b: Any, clump: float = 1.0) -> None:
        """A batch: counts of the baseline and of the candidate by bin."""
        a, b = np.asarray(a, float), np.asarray(b, float)
        if self._groups is None:
            self._a = self._a + a if self._a.size else a
            if self._a.sum() >= LEARN:
                self._learn()
            return
        size = len(self._a)
        a, b = (np.bincount(self._groups, each, size) for each in (a, b))
        self._a, self._b = self._a + a, self._b + b
        n_a, n_b = np.full(size - 1, a.sum()), np.full(size - 1, b.sum())
        below_a, below_b = (np.cumsum(each)[:-1] for each in (a, b))
        assert self._moved is not None
        assert self._alike is not None
        for test in (*self._moved, *self._alike):
            test.add(n_a, below_a, n_b, below_b, clump)

    def _learn(self) -> None:
        # Groups without a bin are left out.
        self._groups = np.unique(groups_of(self._a), return_inverse=True)[1]
        size = int(self._groups.max()) + 1
        self._a = np.asarray(np.bincount(self._groups, self._a, size), float)
        self._b = np.zeros(size)
        prior = np.full(size - 1, self._a.sum()), np.cumsum(self._a)[:-1]
        up, down = np.full(size - 1, self._tolerance), np.full(size - 1, -self._tolerance)

        def test(increase: Counts, *, above: bool) -> RateTest:
            return RateTest(increase=increase, above=above, prior=prior)

        self._moved = test(up, above=True), test(down, above=False)
        self._alike = test(up, above=False), test(down, above=True)
