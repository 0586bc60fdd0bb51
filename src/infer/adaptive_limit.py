"""`--adaptive-limit`: steps the policy of each served version, and sets what it finds. Loop thread only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from infer._core.model_version import VersionEntry
from infer._core.pipeline import Pipeline
from infer.adaptive_policy import LimitPolicy, Waited

# As the core names refusals for it.
REFUSAL = "adaptive_limit"
# Requests, sums of seconds in the queue and in runs, refusals.
_Counts = tuple[int, float, float, int]


class AdaptiveLimit:
    """`versions`: those that are served. While `enabled` is False none is limited."""

    def __init__(self, pipeline: Pipeline, versions: Callable[[], Iterable[VersionEntry]], enabled: bool) -> None:
        self.enabled = enabled
        self._pipeline = pipeline
        self._served = versions
        self._versions: dict[VersionEntry, tuple[LimitPolicy, _Counts]] = {}

    def step(self) -> None:
        served = list(self._served())
        wanted = served if self.enabled else []
        for entry in [each for each in self._versions if each not in wanted]:
            del self._versions[entry]
            if entry in served:
                self._pipeline.set_adaptive_rows(entry, 0)
        for entry in wanted:
            counts = _counts(entry.stats_snapshot((), ()))
            known = self._versions.get(entry)
            if known is None or known[0].most != entry.queue_limit_rows:
                self._versions[entry] = LimitPolicy(entry.queue_limit_rows), counts
                self._pipeline.set_adaptive_rows(entry, entry.queue_limit_rows)
                continue
            policy, before = known
            waited = Waited(counts[0] - before[0], counts[1] - before[1], counts[2] - before[2], counts[3] - before[3])
            rows = policy.step(waited, entry.gather_rows * entry.max_running, self._pipeline.queued_rows_of(entry))
            self._versions[entry] = policy, counts
            self._pipeline.set_adaptive_rows(entry, rows)

    def rows(self) -> dict[tuple[str, str], int]:
        """By model and version; any thread."""
        return {(entry.name.decode(), entry.version): policy.rows
                for entry, (policy, _) in list(self._versions.items())}


def _counts(stats: Any) -> _Counts:
    requests, queue_ns, _ = stats["queue"]
    return requests, queue_ns / 1e9, stats["compute"][1] / 1e9, stats["queue_refused"][REFUSAL]
