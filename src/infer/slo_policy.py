"""How large a model's batches may be, and how long they may wait, so that its p99 keeps to what was asked: pure.

One `SloPolicy` per version. Time is what `step` is told of it; called a few times a second. Any thread.

Design note. A request waits at most for the batch that runs and for its own, so twice the time of the largest batch,
and the delay, have to fit. How long a batch of a size takes is a line through what ran lately (a fixed part, and one
per row); a size far beyond what was seen, or is configured, is not trusted. Of sizes that fit, the smallest is taken
that makes nearly as many rows a second as the largest: batching is work-conserving, so what bounds a batch costs
nothing while few requests come, and nothing has to be noticed when many do. What then is left of the time may go into a
delay, where executors have enough to do and larger batches would save much of it. Callers that wait for answers before
they ask again would be slowed down by that, so it is tried first. What is seen of the tail makes the time smaller or
larger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

MARGIN = 0.8                    # of the time asked for; the rest is for wake-ups, the loop and the wire
NEAR = 0.8                      # a call that took more of it than this is close to being late
LATE, CLOSE = 0.01, 0.005       # of calls
ENOUGH_CALLS = 200              # to judge by
SMALLER, LARGER, LEAST = 0.8, 1.05, 0.1
KEPT = 0.9                      # of what batches of a size took before, at each step at which such ran
TRUSTED = 4                     # times the largest batch seen
KNEE = 0.97                     # of the rows a second of the largest batch that fits
FULL = 0.8                      # of the rows that a batch may gather, on average
BUSY, IDLE = 0.5, 0.25          # of the executors' time
WORTH = 0.9                     # of the rows a second of a full batch: below it, a delay may save something
TRIAL_STEPS, REST_STEPS = 4, 120
SLOWED = 0.97                   # of the rows a second before a trial


@dataclass(frozen=True)
class Seen:
    """Of a version, since the step before."""

    seconds: float
    runs: Sequence[tuple[int, int, float]]      # rows of a batch, how many there were, their seconds in all
    calls: int                                  # that ended
    late: int                                   # of them, slower than what was asked for
    close: int                                  # slower than NEAR of it

    @property
    def rows(self) -> int:
        return sum(rows * count for rows, count, _ in self.runs)

    @property
    def batches(self) -> int:
        return sum(count for _, count, _ in self.runs)

    @property
    def busy_s(self) -> float:
        return sum(seconds for *_, seconds in self.runs)


@dataclass(frozen=True)
class Choice:
    gather_rows: int
    delay_s: float


class Curve:
    """How long a batch takes by its rows: least squares, relative to what each took, over the means of sizes that ran.

    Sizes are kept by doublings, each as it was last seen: what is known of large batches holds while few come.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, tuple[float, float, float]] = {}     # by doubling: batches, their rows, their seconds
        self._fixed = self._slope = 0.0
        self.is_fitted = False          # what ran was not all of one size
        self.largest = 0                # rows of a batch so far

    def add(self, runs: Sequence[tuple[int, int, float]]) -> None:
        fresh: dict[int, tuple[float, float, float]] = {}
        for rows, count, seconds in runs:
            self.largest = max(self.largest, rows)
            before = fresh.get(rows.bit_length(), (0.0, 0.0, 0.0))
            fresh[rows.bit_length()] = before[0] + count, before[1] + rows * count, before[2] + seconds
        for size, new in fresh.items():
            old = self._sizes.get(size, (0.0, 0.0, 0.0))
            self._sizes[size] = KEPT * old[0] + new[0], KEPT * old[1] + new[1], KEPT * old[2] + new[2]
        if fresh:
            self._fit()

    def _fit(self) -> None:
        points = [(rows / count, max(seconds / count, 1e-9)) for count, rows, seconds in self._sizes.values()]
        weights = [seconds ** -2 for _, seconds in points]
        total = sum(weights)
        rows = sum(weight * point[0] for weight, point in zip(weights, points, strict=True)) / total
        seconds = sum(weight * point[1] for weight, point in zip(weights, points, strict=True)) / total
        spread = sum(weight * (point[0] - rows) ** 2 for weight, point in zip(weights, points, strict=True))
        self.is_fitted = len(points) > 1
        self._slope, self._fixed = seconds / rows, 0.0
        if self.is_fitted:
            slope = sum(weight * (point[0] - rows) * (point[1] - seconds)
                        for weight, point in zip(weights, points, strict=True)) / spread
            slope = max(slope, 0.0)
            if seconds >= slope * rows:
                self._slope, self._fixed = slope, seconds - slope * rows

    def seconds(self, rows: int) -> float:
        """Never less for more rows; where all were of one size, in proportion."""
        return self._fixed + self._slope * rows

    def rate(self, rows: int) -> float:
        """Rows a second in batches of so many."""
        return rows / max(self.seconds(rows), 1e-9)


class SloPolicy:
    """`rows_max`: what a batch of the version may hold at all. `start`: how it is served until it was measured."""

    def __init__(self, slo_s: float, rows_max: int, max_running: int, start: Choice) -> None:
        self.slo_s, self.rows_max, self.max_running = slo_s, rows_max, max_running
        self.choice = self.start = start
        self.curve = Curve()
        self.scale = 1.0                # of the time, by what was seen of the tail
        self._judged = [0, 0, 0]        # calls, late, close
        self._rates: list[float] = []   # rows a second of the last steps
        self._before = 0.0              # rows a second before the trial; 0: no trial
        self._steps = 0                 # that the trial, or the rest after one that slowed callers, still takes
        self._delays = False            # a trial said that a delay slows nobody

    def step(self, seen: Seen) -> Choice:
        self.curve.add(seen.runs)
        self._judge(seen)
        if seen.batches:
            rows = self._gather_rows()
            self.choice = Choice(rows, self._delay_s(seen, rows))
        return self.choice

    @property
    def budget_s(self) -> float:
        return MARGIN * self.scale * self.slo_s

    def _judge(self, seen: Seen) -> None:
        self._judged = [one + other for one, other in
                        zip(self._judged, (seen.calls, seen.late, seen.close), strict=True)]
        calls, late, close = self._judged
        if calls < ENOUGH_CALLS:
            return
        self._judged = [0, 0, 0]
        if late > LATE * calls:
            # Of full batches smaller ones would only be more: what is late waited for others.
            is_full = seen.batches > 0 and seen.rows >= FULL * self.choice.gather_rows * seen.batches
            self.scale = min(self.scale / SMALLER, 1.0) if is_full else max(self.scale * SMALLER, LEAST)
        elif close <= CLOSE * calls:
            self.scale = min(self.scale * LARGER, 1.0)

    def _gather_rows(self) -> int:
        most = min(self.rows_max, max(TRUSTED * self.curve.largest, self.start.gather_rows))
        fits = _largest(most, lambda rows: 2 * self.curve.seconds(rows) <= self.budget_s)
        enough = KNEE * self.curve.rate(fits)
        if not self.curve.is_fitted:
            return fits
        if self.curve.rate(1) >= enough:
            return 1
        return _largest(fits, lambda rows: self.curve.rate(rows) < enough) + 1

    def _delay_s(self, seen: Seen, gather_rows: int) -> float:
        """0, or as long as a full batch takes to come, if it fits."""
        rate = seen.rows / seen.seconds
        self._rates = [*self._rates[-TRIAL_STEPS + 1:], rate]
        mean_rows = seen.rows / seen.batches
        used = seen.busy_s / (seen.seconds * self.max_running)
        spare_s = self.budget_s - 2 * self.curve.seconds(gather_rows)
        if self._before:
            self._steps -= 1
            if self._steps == 0:
                self._delays = sum(self._rates) / len(self._rates) >= SLOWED * self._before
                self._before, self._steps = 0.0, 0 if self._delays else REST_STEPS
        elif self._delays:
            self._delays = used > IDLE
        elif self._steps:
            self._steps -= 1
        elif (used > BUSY and spare_s > 0 and len(self._rates) == TRIAL_STEPS
              and self.curve.rate(max(int(mean_rows), 1)) < WORTH * self.curve.rate(gather_rows)):
            self._before, self._steps = sum(self._rates) / len(self._rates), TRIAL_STEPS
        if not (self._delays or self._before):
            return 0.0
        return max(min(spare_s, gather_rows / max(rate, 1e-9)), 0.0)


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """Of 1 to `most` the largest that fits, where all smaller ones do; 1 where none does."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
