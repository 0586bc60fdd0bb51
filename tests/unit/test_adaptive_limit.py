"""Which versions are stepped, with what of their counters, and what is set: --adaptive-limit on versions made up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infer.adaptive_limit import REFUSAL, AdaptiveLimit


@dataclass(eq=False)
class Entry:
    version: str
    name: bytes = b"m"
    queue_limit_rows: int = 1000
    gather_rows: int = 8
    max_running: int = 2
    requests: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    refused: int = 0
    adaptive_rows: int = 0

    def overload(self) -> None:
        self.requests += 100
        self.queue_ns += 100 * 1_000_000_000
        self.compute_ns += 100 * 10_000_000
        self.refused += 10

    def stats_snapshot(self, *_: tuple[int, ...]) -> dict[str, Any]:
        return {"queue": (self.requests, self.queue_ns, ()), "compute": (self.requests, self.compute_ns, ()),
                "queue_refused": {REFUSAL: self.refused}}


class Rig:
    """Its pipeline sets what the entry says."""

    def __init__(self, *entries: Entry, enabled: bool = True) -> None:
        self.entries = list(entries)
        self.controller = AdaptiveLimit(
            self, lambda: self.entries, enabled)   # type: ignore[arg-type, return-value]

    def set_adaptive_rows(self, entry: Entry, rows: int) -> None:
        entry.adaptive_rows = rows

    def queued_rows_of(self, entry: Entry) -> int:
        return entry.queue_limit_rows


def test_each_version_has_a_limit_of_its_own_until_it_is_turned_off() -> None:
    busy, idle = Entry("1"), Entry("2")
    rig = Rig(busy, idle)
    for _ in range(20):
        rig.controller.step()
        busy.overload()
    assert (busy.adaptive_rows, idle.adaptive_rows) == (rig.controller.rows()["m", "1"], 1000)
    assert 16 <= busy.adaptive_rows < 40
    rig.controller.enabled = False
    rig.controller.step()
    assert (busy.adaptive_rows, idle.adaptive_rows, rig.controller.rows()) == (0, 0, {})


def test_counts_of_before_say_nothing_and_another_bound_begins_anew() -> None:
    entry = Entry("1")
    entry.overload()
    rig = Rig(entry)
    for _ in range(3):
        rig.controller.step()
    assert entry.adaptive_rows == 1000
    for _ in range(3):
        entry.overload()
        rig.controller.step()
    assert entry.adaptive_rows < 500
    entry.queue_limit_rows = 2000
    rig.controller.step()
    assert entry.adaptive_rows == 2000


def test_one_that_is_not_served_any_more_is_let_go() -> None:
    gone, stays = Entry("1"), Entry("2")
    rig = Rig(gone, stays)
    rig.controller.step()
    rig.entries.remove(gone)
    gone.adaptive_rows = -1
    rig.controller.step()
    assert (gone.adaptive_rows, set(rig.controller.rows())) == (-1, {("m", "2")})


def test_nothing_is_touched_where_it_is_not_asked_for() -> None:
    entry = Entry("1", adaptive_rows=-1)
    rig = Rig(entry, enabled=False)
    entry.overload()
    rig.controller.step()
    assert (entry.adaptive_rows, rig.controller.rows()) == (-1, {})
