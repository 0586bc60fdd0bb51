"""How the bench of slo_p99_ms reads its calls, and which fixed setting it holds the chosen ones against."""

from __future__ import annotations

import array
from types import SimpleNamespace
from typing import Any

import pytest

from bench.load.slo import Outcome, best, outcome, phases, times_ns

MS = 1_000_000


def result(*calls: tuple[int, int, int, int]) -> Any:
    return SimpleNamespace(calls=array.array("q", [part for call in calls for part in call]).tobytes(), sent=len(calls))


def test_latency_is_from_the_scheduled_time_and_over_all_phases() -> None:
    first = result(*((number * MS, number * MS, (number + 2) * MS, 0) for number in range(99)))
    second = result((99 * MS, 150 * MS, 199 * MS, 0), (100 * MS, 150 * MS, 160 * MS, -1))
    assert len(list(times_ns(second.calls))) == 1
    assert outcome([first, second]) == Outcome(pytest.approx(100 / 0.199), 100.0, 1)


def test_phases_follow_each_other() -> None:
    assert list(phases([(2.0, 0.5), (1.0, 0.25)], 1000.0)) == [(0.0, 2.0, 500.0), (2.0, 1.0, 250.0)]


def test_the_best_setting_is_the_fastest_of_those_that_keep_to_the_time() -> None:
    grid = {"slow": Outcome(90, 10, 0), "late": Outcome(200, 51, 0), "fails": Outcome(150, 20, 3),
            "good": Outcome(100, 49, 0)}
    assert best(grid, 50) == ("good", grid["good"])
    assert best(grid, 5) == ("slow", grid["slow"])
