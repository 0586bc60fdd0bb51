"""Whether each reply came from a generation that was ready at some time between its call's start and its reply. Pure.

When each was, is what the server's audit log says: loaded, which is when it is published, and draining, from when on it
gets no new call. A version that was loaded so many times had so many generations, in that order.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.load.generations import Generation

CALL = np.dtype([("scheduled_ns", "i8"), ("started_ns", "i8"), ("received_ns", "i8"), ("reply", "i8")])
# How exact the audit log's times are.
RESOLUTION_NS = 1_000
NEVER_NS = np.iinfo(np.int64).max


class AuditRow(NamedTuple):
    """Of one model."""

    time: str
    event: str
    version: str
    outcome: str


@dataclass(frozen=True)
class Ready:
    """When a generation was; monotonic."""

    since_ns: int
    until_ns: int = int(NEVER_NS)


class Answer(NamedTuple):
    """What one of the different replies says: the version that it names, and whose content it is."""

    version: str
    generation: int | None


def monotonic_ns(time: str, wall_minus_monotonic_ns: int) -> int:
    moment = datetime.datetime.fromisoformat(time)
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000 - wall_minus_monotonic_ns


def ready_times(rows: Iterable[AuditRow], generations: Sequence[Generation], wall_minus_monotonic_ns: int
                ) -> list[Ready]:
    """By generation. ValueError where the log has not what was done."""
    loaded: dict[str, list[int]] = {}
    left: dict[str, list[int]] = {}
    for row in rows:
        what = {("load", "ok"): loaded, ("unload", "draining"): left}.get((row.event, row.outcome))
        if what is not None:
            what.setdefault(row.version, []).append(monotonic_ns(row.time, wall_minus_monotonic_ns))
    found = []
    for generation in generations:
        version = str(generation.version)
        if not loaded.get(version):
            raise ValueError(f"generation {generation.number} as version {version} was not loaded")
        since_ns = loaded[version].pop(0)
        leaves = left.get(version, [])
        found.append(Ready(since_ns, leaves.pop(0)) if leaves else Ready(since_ns))
    if surplus := [version for version, times in loaded.items() if times]:
        raise ValueError(f"loaded more often than it had content: versions {', '.join(sorted(surplus))}")
    if len([each for each in found if each.until_ns == NEVER_NS]) != 1 or found[-1].until_ns != NEVER_NS:
        raise ValueError("not exactly the last generation is still served")
    return found


def strays(calls: np.ndarray, answers: Sequence[Answer], generations: Sequence[Generation], ready: Sequence[Ready]
           ) -> dict[str, int]:
    """OK calls whose reply is not what it should be, by why."""
    counts = {"unknown content": 0, "content of another version": 0, "before it was ready": 0, "after it had left": 0}
    for index, answer in enumerate(answers):
        mine = calls[calls["reply"] == index]
        if answer.generation is None:
            counts["unknown content"] += len(mine)
            continue
        if answer.version != str(generations[answer.generation].version):
            counts["content of another version"] += len(mine)
        times = ready[answer.generation]
        counts["before it was ready"] += int((mine["received_ns"] < times.since_ns - RESOLUTION_NS).sum())
        if times.until_ns != NEVER_NS:
            counts["after it had left"] += int((mine["started_ns"] > times.until_ns + RESOLUTION_NS).sum())
    return counts


def in_spans(times_ns: np.ndarray, spans: Iterable[tuple[int, int]]) -> np.ndarray:
    """Which of the times are in one of the spans."""
    inside = np.zeros(len(times_ns), bool)
    for begin, end in spans:
        inside |= (times_ns >= begin) & (times_ns < end)
    return inside


def p99_ms(calls: np.ndarray, spans: Iterable[tuple[int, int]]) -> float:
    """Of the latencies of the calls that were due in the spans."""
    latencies = (calls["received_ns"] - calls["scheduled_ns"])[in_spans(calls["scheduled_ns"], spans)]
    if not len(latencies):
        raise ValueError("no call was due in these spans")
    return float(np.quantile(latencies, 0.99, method="inverted_cdf")) / 1e6
