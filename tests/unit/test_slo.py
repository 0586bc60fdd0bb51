"""Who is stepped, with what of its counters, and what is set: slo_p99_ms on versions that are made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from infer.models.settings import ModelSettings
from infer.slo import SloController
from infer.slo_policy import Choice


@dataclass(eq=False)
class Entry:
    name: bytes = b"m"
    version: str = "1"
    batched: bool = True
    max_rows: int = 512
    gather_rows: int = 64
    delay_ns: int = 0
    max_running: int = 1
    settings: ModelSettings = field(default_factory=lambda: ModelSettings("m"))
    latencies_ns: list[int] = field(default_factory=list)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)

    def run(self, rows: int, batches: int, took_ns: int, latency_ns: int) -> None:
        runs, spent_ns = self.sizes.get(rows, (0, 0))
        self.sizes[rows] = runs + batches, spent_ns + batches * took_ns
        self.latencies_ns += [latency_ns] * rows * batches

    def stats_snapshot(self, bounds_ns: tuple[int, ...], _: tuple[int, ...]) -> dict[str, Any]:
        below = [sum(each <= bound for each in self.latencies_ns) for bound in bounds_ns]
        return {"request": (len(self.latencies_ns), sum(self.latencies_ns), below),
                "batch_sizes": [(rows, runs, 0, spent_ns, 0) for rows, (runs, spent_ns) in self.sizes.items()]}


class Rig:
    """Its pipeline sets what the entry says."""

    def __init__(self, *entries: Entry, default_ms: float = 0.0) -> None:
        self.entries = list(entries)
        self.now = 100.0
        self.set = 0
        self.controller = SloController(self, lambda: self.entries, default_ms)   # type: ignore[arg-type, return-value]

    def set_batching(self, entry: Entry, *, gather_rows: int, delay_ns: int) -> None:
        entry.gather_rows, entry.delay_ns = gather_rows, delay_ns
        self.set += 1

    def step(self) -> None:
        self.now += 0.25
        self.controller.step(self.now)


def slow(entry: Entry) -> None:
    """A millisecond a row."""
    for rows in (1, 8):
        entry.run(rows, 5, rows * 1_000_000 + 100_000, 20_000_000)


def test_a_version_without_one_keeps_its_settings() -> None:
    entry = Entry()
    rig = Rig(entry)
    for _ in range(3):
        slow(entry)
        rig.step()
    assert (entry.gather_rows, rig.set, rig.controller.choices()) == (64, 0, {})


@pytest.mark.parametrize(("own", "default_ms"), [(50.0, 0.0), (None, 50.0), (50.0, 1.0)])
def test_rows_that_take_a_millisecond_make_small_batches(own: float | None, default_ms: float) -> None:
    entry = Entry(settings=ModelSettings("m", slo_p99_ms=own))
    rig = Rig(entry, default_ms=default_ms)
    rig.step()
    assert rig.controller.choices() == {("m", "1"): Choice(64, 0.0)}
    slow(entry)
    rig.step()
    assert entry.gather_rows == 3        # nearly as many rows a second as the 19 that fit into twice 20 ms
    assert rig.controller.choices() == {("m", "1"): Choice(3, 0.0)}
    assert rig.set == 1
    slow(entry)
    rig.step()
    assert rig.set == 1


def test_what_ran_before_is_not_counted() -> None:
    entry = Entry(settings=ModelSettings("m", slo_p99_ms=50.0))
    slow(entry)
    rig = Rig(entry)
    rig.step()
    rig.step()
    assert (entry.gather_rows, rig.set) == (64, 0)


def test_a_model_that_is_not_batched_has_nothing_to_choose() -> None:
    rig = Rig(Entry(batched=False, gather_rows=1), default_ms=50.0)
    rig.step()
    assert rig.controller.choices() == {}


@pytest.mark.parametrize("edited_ns", [None, 3_000_000])
def test_without_it_what_was_configured_comes_back(edited_ns: int | None) -> None:
    """The delay that was set meanwhile, if one was."""
    entry = Entry(delay_ns=2_000_000)
    rig = Rig(entry, default_ms=50.0)
    rig.step()
    slow(entry)
    rig.step()
    assert (entry.gather_rows, entry.delay_ns) == (3, 0)
    rig.controller.default_ms = 0.0
    if edited_ns is not None:
        entry.delay_ns = edited_ns
    rig.step()
    assert (entry.gather_rows, entry.delay_ns) == (64, edited_ns or 2_000_000)
    assert rig.controller.choices() == {}


def test_another_one_begins_anew_from_what_was_configured() -> None:
    entry = Entry(settings=ModelSettings("m", slo_p99_ms=50.0))
    rig = Rig(entry)
    rig.step()
    slow(entry)
    rig.step()
    entry.settings = ModelSettings("m", slo_p99_ms=1_000.0)
    rig.step()
    slow(entry)
    rig.step()
    assert entry.gather_rows == 4
    entry.settings = ModelSettings("m", slo_p99_ms=0.0)
    rig.step()
    assert entry.gather_rows == 64


def test_a_version_that_is_gone_is_forgotten_and_not_touched() -> None:
    entry = Entry()
    rig = Rig(entry, default_ms=50.0)
    rig.step()
    slow(entry)
    rig.step()
    rig.entries.clear()
    rig.step()
    assert (entry.gather_rows, rig.controller.choices()) == (3, {})
