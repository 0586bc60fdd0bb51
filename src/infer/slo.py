"""`slo_p99_ms`: steps the policy of each version that has one, and sets what it chooses. Loop thread only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from infer._core.model_version import VersionEntry
from infer._core.pipeline import Pipeline
from infer.slo_policy import NEAR, Choice, Seen, SloPolicy

STEP_SECONDS = 0.25


@dataclass
class _Version:
    policy: SloPolicy
    configured: Choice
    at: float
    calls: tuple[int, int, int] = (0, 0, 0)                         # all, not late, not close
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)     # runs and their ns by rows


class SloController:
    """`versions`: those that are served. `default_ms`: of those whose settings say nothing; 0: none."""

    def __init__(self, pipeline: Pipeline, versions: Callable[[], Iterable[VersionEntry]], default_ms: float) -> None:
        self.default_ms = default_ms
        self._pipeline = pipeline
        self._served = versions
        self._versions: dict[VersionEntry, _Version] = {}

    def step(self, now: float) -> None:
        """`now`: seconds of any clock that only grows."""
        served = [(entry, self._slo_s(entry)) for entry in self._served()]
        wanted = {entry: slo_s for entry, slo_s in served if slo_s > 0}
        for entry in [each for each in self._versions if each not in wanted]:
            version = self._versions.pop(entry)
            if (entry, 0.0) in served:
                self._restore(entry, version)
        for entry, slo_s in wanted.items():
            self._step(entry, slo_s, now)

    def choices(self) -> dict[tuple[str, str], Choice]:
        """By model and version; any thread."""
        return {(entry.name.decode(), entry.version): version.policy.choice
                for entry, version in list(self._versions.items())}

    def _slo_s(self, entry: VersionEntry) -> float:
        own = None if entry.settings is None else entry.settings.slo_p99_ms
        return (self.default_ms if own is None else own) / 1e3 if entry.batched else 0.0

    def _step(self, entry: VersionEntry, slo_s: float, now: float) -> None:
        version = self._versions.get(entry)
        stats = entry.stats_snapshot((round(NEAR * slo_s * 1e9), round(slo_s * 1e9)), ())
        if version is None or version.policy.slo_s != slo_s:
            configured = version.configured if version else Choice(entry.gather_rows, entry.delay_ns / 1e9)
            rows_max = max(entry.max_rows, configured.gather_rows)
            version = self._versions[entry] = _Version(
                SloPolicy(slo_s, rows_max, entry.max_running, configured), configured, now)
            version.calls, version.sizes = _calls(stats), _sizes(stats)
            return
        if now <= version.at:
            return
        calls, sizes = _calls(stats), _sizes(stats)
        ended, in_time, not_close = (new - old for new, old in zip(calls, version.calls, strict=True))
        runs = []
        for rows, (count, spent_ns) in sizes.items():
            before = version.sizes.get(rows, (0, 0))
            if count > before[0]:
                runs.append((rows, count - before[0], (spent_ns - before[1]) / 1e9))
        choice = version.policy.step(Seen(now - version.at, runs, ended, ended - in_time, ended - not_close))
        version.at, version.calls, version.sizes = now, calls, sizes
        self._set(entry, choice)

    def _restore(self, entry: VersionEntry, version: _Version) -> None:
        """What was configured, unless other settings came meanwhile."""
        chosen_ns = round(version.policy.choice.delay_s * 1e9)
        delay_s = version.configured.delay_s if entry.delay_ns == chosen_ns else entry.delay_ns / 1e9
        self._set(entry, Choice(version.configured.gather_rows, delay_s))

    def _set(self, entry: VersionEntry, choice: Choice) -> None:
        delay_ns = round(choice.delay_s * 1e9)
        if (entry.gather_rows, entry.delay_ns) != (choice.gather_rows, delay_ns):
            self._pipeline.set_batching(entry, gather_rows=choice.gather_rows, delay_ns=delay_ns)


def _calls(stats: Any) -> tuple[int, int, int]:
    count, _, (not_close, in_time) = stats["request"]
    return count, in_time, not_close


def _sizes(stats: Any) -> dict[int, tuple[int, int]]:
    return {rows: (runs, gather_ns + run_ns + scatter_ns)
            for rows, runs, gather_ns, run_ns, scatter_ns in stats["batch_sizes"]}
