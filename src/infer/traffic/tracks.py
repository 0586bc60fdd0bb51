"""What the outcomes of one metric say of each arm beside the control, at any time. Pure.

Outcomes are looked at in blocks: one closes when as many have come as `GROWTH` makes of those before, so that there are
few of them however long an experiment lasts, and a server that was started again comes to the same from the blocks
alone. Where a block ends depends on how many outcomes there are and not on what they are. Intervals hold at all times
together: of rates by `sequential.RateInterval`, against the control; of means by `sequential.BoundedMean`, of each arm
and with it of each difference. `alpha` is of all the intervals of the metric.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from infer.outcome_metrics import Metric
from infer.traffic.outcomes import Sums
from infer.traffic.sequential import BoundedMean, RateInterval, samples_needed

Finding = Literal["better", "worse", "alike", ""]

# Of the outcomes so far, those that make a block; the first has FIRST for each arm.
GROWTH = 0.1
FIRST = 10
# With what probability an effect that the report promises to find is found.
POWER = 0.8
NORMAL_80 = 0.8416212335729143
# More than anybody waits for.
MOST = 1e12
# Differences that a rate's interval may end at, on either side of 0.
STEPS = 150


class Effect(NamedTuple):
    """Of an arm, against the control, in the metric's own scale."""

    effect: Any
    low: Any
    high: Any


class Block(NamedTuple):
    """Sums of each arm until then."""

    time: float
    sums: tuple[Sums, ...]


class Track:
    """One metric of one experiment. `arms`: the control first."""

    def __init__(self, metric: Metric, arms: Sequence[str], alpha: float, steps: int | None = None) -> None:
        self.metric, self.arms = metric, tuple(arms)
        self.blocks: list[Block] = []
        self.series: list[tuple[Effect, ...]] = []      # after each block, of all arms but the control
        self._rates = [RateInterval(alpha / (len(arms) - 1), steps=steps or STEPS) for _ in arms[1:]]
        self._means = [BoundedMean(alpha / len(arms)) for _ in arms]
        self._alpha = alpha

    @property
    def alpha(self) -> float:
        """Of one arm's interval."""
        return self._alpha / (len(self.arms) - 1)

    def look(self, now: float, sums: Mapping[str, Sums]) -> bool:
        """Whether that has closed a block."""
        found = tuple(sums.get(arm, Sums()) for arm in self.arms)
        before = sum(each.n for each in self.last)
        if sum(each.n for each in found) - before < max(GROWTH * before, FIRST * len(self.arms)):
            return False
        self.close(Block(now, found))
        return True

    @property
    def last(self) -> tuple[Sums, ...]:
        """Of the last block."""
        return self.blocks[-1].sums if self.blocks else (Sums(),) * len(self.arms)

    def close(self, block: Block) -> None:
        parts = [Sums(*(new - old for new, old in zip(one, other, strict=True)))
                 for one, other in zip(block.sums, self.last, strict=True)]
        self.blocks.append(block)
        if self.metric.kind == "rate":
            control = parts[0]
            for interval, part in zip(self._rates, parts[1:], strict=True):
                interval.add(control.n, control.total, part.n, part.total)
        else:
            for sequence, part in zip(self._means, parts, strict=True):
                sequence.add(*part)
        self.series.append(tuple(self._effect(number) for number in range(1, len(self.arms))))

    def copied(self) -> Track:
        """As it is now, to be read."""
        found = copy.copy(self)
        found.blocks, found.series = list(self.blocks), list(self.series)
        return found

    @property
    def effects(self) -> dict[str, Effect]:
        """By arm, as of the last block; none before the first."""
        return dict(zip(self.arms[1:], self.series[-1], strict=True)) if self.series else {}

    def _effect(self, number: int) -> Effect:
        control, own = self.last[0], self.last[number]
        difference = own.total / max(own.n, 1) - control.total / max(control.n, 1)
        if self.metric.kind == "rate":
            low, high = self._rates[number - 1].bounds
        else:
            (low_a, high_a), (low_b, high_b) = self._means[0].bounds, self._means[number].bounds
            low, high = low_b - high_a, high_b - low_a
        width = self.metric.high - self.metric.low
        return Effect(difference * width, low * width, high * width)

    def finding(self, effect: Effect, min_effect: float = 0.0) -> Finding:
        """What the interval says. One of a rate that ends at 0 leaves it out."""
        up = self.metric.better == "higher"
        if effect.low > 0 or (effect.low == 0 and self.metric.kind == "rate"):
            return "better" if up else "worse"
        if effect.high < 0 or (effect.high == 0 and self.metric.kind == "rate"):
            return "worse" if up else "better"
        return "alike" if -min_effect < effect.low and effect.high < min_effect else ""

    # What may be promised.

    def promised(self, number: int) -> float | None:
        """The effect for the better that would have been found by now in POWER of all cases, in the metric's own scale,
        of the arm of that number; None: no effect, or nothing is known yet."""
        control, own = self.last[0], self.last[number]
        if not self.blocks or min(control.n, own.n) < 2:
            return None
        if self.metric.kind == "mean":
            counts = [(block.sums[0].n, block.sums[number].n) for block in self.blocks]
            return self._mean_effect(counts, control, own) * (self.metric.high - self.metric.low)
        rate = control.total / control.n
        low, high = 0.0, 1.0 - rate if self.metric.better == "higher" else rate
        if self._needed(control, own, high) > own.n:
            return None
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if self._needed(control, own, middle) <= own.n else (middle, high)
        return high

    def needed(self, number: int, effect: float) -> float | None:
        """Outcomes of that arm after which an effect for the better, in the metric's own scale, is found in POWER of
        all cases; None: nothing is known yet, or it takes more than anybody waits for."""
        control, own = self.last[0], self.last[number]
        effect /= self.metric.high - self.metric.low
        if effect <= 0 or min(control.n, own.n) < 2:
            return None
        if self.metric.kind == "rate":
            found = self._needed(control, own, effect)
            return found if found <= MOST else None
        counts: list[tuple[float, float]] = []
        n = float(FIRST)
        while n <= MOST:
            counts.append((n * control.n / own.n, n))
            if self._mean_effect(counts, control, own) <= effect:
                return n
            n *= 1.0 + GROWTH
        return None

    def _needed(self, control: Sums, own: Sums, effect: float) -> float:
        """Of a rate, with what the blocks cost."""
        rate = control.total / control.n
        above = self.metric.better == "higher"
        other = rate + effect if above else rate - effect
        if not 0 <= other <= 1:
            return math.inf
        found = samples_needed(rate, min(max(other, 1e-6), 1 - 1e-6), alpha=self.alpha / 2,
                               share_b=own.n / (own.n + control.n), above=above, power=POWER)
        return (1.0 + GROWTH) * found + FIRST

    def _mean_effect(self, counts: Sequence[tuple[float, float]], control: Sums, own: Sums) -> float:
        """By the sequences that outcomes as they are would make, after so many of both arms, on the scale of 0 to 1."""
        width, variance = 0.0, 0.0
        for side, sums in enumerate((control, own)):
            mean = sums.total / sums.n
            square = max(sums.squares / sums.n - mean * mean, 0.0)
            sequence = BoundedMean(self._alpha / len(self.arms))
            before = 0.0
            for each in counts:
                n = each[side] - before
                sequence.add(n, n * mean, n * (square + mean * mean))
                before = each[side]
            low, high = sequence.bounds
            width += float(high - low) / 2
            variance += square * float(sequence.noise) ** 2
        return width + NORMAL_80 * math.sqrt(variance)
