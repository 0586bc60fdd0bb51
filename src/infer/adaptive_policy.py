"""How many rows of a model may wait, by what waiting costs: an adaptive concurrency limit, pure.

One `LimitPolicy` per version. Time is what `step` is told of it; called a few times a second. Any thread.

Design note. The gradient of Netflix's concurrency-limits (Gradient2; TCP Vegas before it) compares what a call takes
with what it would take if nothing waited. Elsewhere the latter has to be guessed from the shortest times seen; here the
queue and the run are measured apart, so it is known: a request that comes to a busy executor waits for the batch that
runs, which is no queue, and a limit below what the next batches gather would only leave executors idle. What is waited
beyond that makes the limit smaller in proportion; the square root of the limit is allowed on top, so that it grows
where nothing is lost by it, and bursts find room.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ALLOWED_S = 0.005               # of waiting, however short the runs are
LEAST_GRADIENT = 0.5
SMOOTHING = 0.5                 # of a larger limit; a smaller one counts at once
ENOUGH_REQUESTS = 20            # to judge by


@dataclass(frozen=True)
class Waited:
    """Requests of a version that ran, since the step before."""

    requests: int
    queue_s: float              # sums over them
    run_s: float
    refused: int                # for the limit


class LimitPolicy:
    """`most`: rows that may wait in any case."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows = most
        self._exact = float(most)
        self._waited = Waited(0, 0.0, 0.0, 0)

    def step(self, waited: Waited, least: int, waiting: int) -> int:
        """`least`: what the batches gather that may run at once; `waiting`: rows that wait now. The rows that may."""
        before = self._waited
        self._waited = now = Waited(before.requests + waited.requests, before.queue_s + waited.queue_s,
                                    before.run_s + waited.run_s, before.refused + waited.refused)
        if now.requests < ENOUGH_REQUESTS:
            return self.rows
        self._waited = Waited(0, 0.0, 0.0, 0)
        queue_s, run_s = now.queue_s / now.requests, now.run_s / now.requests
        allowed_s = run_s + max(run_s, ALLOWED_S)
        gradient = min(1.0, max(LEAST_GRADIENT, allowed_s / max(queue_s + run_s, 1e-9)))
        wanted = self._exact * gradient + math.sqrt(self._exact)
        # A limit that nobody came near says nothing about a larger one.
        if wanted > self._exact and not now.refused and 2 * waiting < self._exact:
            wanted = self._exact
        if wanted > self._exact:
            wanted = self._exact + SMOOTHING * (wanted - self._exact)
        self._exact = min(max(wanted, float(least)), float(self.most))
        self.rows = round(self._exact)
        return self.rows
