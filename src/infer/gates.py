"""Whether a version may have its first call: golden outputs, a latency budget, captured calls. On a thread beside the
loop; runs are at the lowest priority where the session's are (SCHED_IDLE, CPU), so that whatever else the machine does
makes them longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infer.errors import InferError
from infer.golden import failure_of, golden_inputs
from infer.models.batchability import find_fill, sample
from infer.models.effective import as_model_has
from infer.replayed import replayed
from infer.rollouts import RolloutSettings

if TYPE_CHECKING:
    from infer._core.model_version import VersionEntry
    from infer._core.ort_session import Tensor

# Runs that the latency budget is about, after those that warm up.
RUNS, WARM_UP_RUNS = 100, 5
QUANTILE = 0.95


@dataclass(frozen=True)
class Gates:
    """`golden`: the file with golden outputs, None: there is none; `captured`: the file of calls that are replayed."""

    settings: RolloutSettings
    golden: Path | None = None
    captured: Path | None = None

    def checked(self, entry: VersionEntry, stopped: threading.Event, now: Callable[[], float] = time.perf_counter
                ) -> tuple[str, str]:
        """Why the version is not to have a call ("": it may), and what it came to."""
        told = []
        try:
            if self.golden is not None:
                if failure := failure_of(entry.session, self.golden):
                    return failure, ""
                told.append("golden outputs are as they were")
            if self.settings.gates.latency_ms:
                budget_ms = self.settings.gates.latency_ms
                took_ms = p95_ms(entry, self._inputs(entry), budget_ms, stopped, now)
                if took_ms > budget_ms:
                    return (f"latency: more than {1 - QUANTILE:.0%} of {RUNS} runs took longer than {budget_ms:g} ms, "
                            f"one of them {took_ms:.3g} ms"), ""
                told.append(f"latency: 95% of the runs within {took_ms:.3g} ms")
            if self.captured is not None:
                found = replayed(entry, self.captured, self.settings.gates, rtol=self.settings.rtol,
                                 atol=self.settings.atol, stopped=stopped.is_set)
                if found.failure:
                    return f"replay: {found.failure}", ""
                told.append(f"replay: {found.told}")
        except InferError as error:
            return error.message, ""
        return "", "; ".join(told)

    def _inputs(self, entry: VersionEntry) -> list[Tensor | None]:
        """The golden ones, else one made-up row."""
        session = entry.session
        if self.golden is not None:
            return golden_inputs(session, self.golden)
        rows = 1 if entry.batched else None
        inputs = as_model_has(entry.inputs)
        fill = find_fill(session, inputs, rows)
        if fill is None:
            raise InferError("latency: the version runs with no inputs that can be made up; put golden.npz beside it")
        return sample(inputs, fill, rows, 0)


def p95_ms(entry: VersionEntry, inputs: list[Tensor | None], budget_ms: float, stopped: threading.Event,
           now: Callable[[], float]) -> float:
    """The 95th of 100 runs by their length; once that can only be beyond the budget, one that is."""
    session = entry.session
    for _ in range(WARM_UP_RUNS):
        session.run(inputs)
    took: list[float] = []
    within = round(RUNS * QUANTILE)
    while len(took) < RUNS:
        if stopped.is_set():
            raise InferError("the rollout has ended meanwhile")
        begin = now()
        session.run(inputs)
        took.append((now() - begin) * 1e3)
        over = sorted(each for each in took if each > budget_ms)
        if len(over) > RUNS - within:
            return over[0]
    return sorted(took)[within - 1]
