"""How the benches of models that come and go, and of many models, tell replies apart and judge what they saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.load import many_models
from bench.load.attribution import CALL, NEVER_NS, Answer, AuditRow, Ready, monotonic_ns, p99_ms, ready_times, strays
from bench.load.generations import MARKER, STRIDE, Generation, Lineage, make_small, plan
from bench.load.payload import row_values
from bench.load.reload import Figures, in_blocks, judged
from infer._core.ort_runtime import Runtime
from infer._core.ort_session import OrtSession

GENERATIONS = plan(3)       # versions 1001, 1002, 1003 and 1003 anew
DAY = "2026-01-01T00:00:0"
START_NS = 1_767_225_600 * 10**9


def row(second: str, event: str, outcome: str, version: int) -> AuditRow:
    return AuditRow(f"{DAY}{second}+00:00", event, str(version), outcome)


LOG = [
    row("0", "load", "ok", 1001),
    row("1", "load", "ok", 1002), row("1.5", "unload", "draining", 1001), row("1.6", "unload", "ok", 1001),
    row("2", "load", "failed", 1003), row("2", "load", "ok", 1003), row("2", "unload", "draining", 1002),
    row("3", "load", "ok", 1003), row("3", "unload", "draining", 1003),
]
SECOND = 10**9


def test_every_third_generation_is_the_content_of_the_version_before_it() -> None:
    assert [(each.number, each.version, each.is_replacement) for each in plan(7)] == [
        (0, 1001, False), (1, 1002, False), (2, 1003, False), (3, 1003, True), (4, 1004, False), (5, 1005, False),
        (6, 1005, True), (7, 1006, False)]
    assert len({len(str(each.version)) for each in plan(1000)}) == 1


def test_a_generation_takes_the_place_of_the_one_before_it(tmp_path: Path) -> None:
    def make(path: Path, number: int) -> float:
        path.write_text(str(number))
        return number * STRIDE + 0.5

    lineage = Lineage(tmp_path / "models", tmp_path / "staging", "m", make, 4)
    base = tmp_path / "models" / "m"

    def versions() -> dict[str, str]:
        return {each.name: (each / "model.onnx").read_text() for each in base.iterdir()}

    assert versions() == {"1001": "0"}
    seen = []
    for number in range(1, 5):
        lineage.stage(number)
        assert (base / f".next-{number}" / "model.onnx").exists()
        lineage.place(number)
        seen.append(versions())
    assert seen == [{"1002": "1"}, {"1003": "2"}, {"1003": "3"}, {"1004": "4"}]
    assert not (base / "1004" / MARKER).exists()
    assert [lineage.generation_of(each) for each in (0.5, 100.5, 400.505, 0.52, 500.5, -99.5, float("inf"))] == [
        0, 1, 4, None, None, None, None]


def test_what_is_said_to_be_answered_is_what_the_model_answers(tmp_path: Path) -> None:
    path = tmp_path / "m" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    expected = make_small(path, 3)
    session = OrtSession(Runtime(), path)
    ((_, shape, raw),) = session.run([("FP32", (1, 16), row_values((1, 16)).tobytes())])
    assert (shape, np.frombuffer(raw, "<f4").item()) == ((1, 1), pytest.approx(expected, abs=1e-3))
    assert abs(expected - 3 * STRIDE) < STRIDE / 2


def test_times_of_the_audit_log_in_the_monotonic_clock() -> None:
    assert monotonic_ns("2026-01-01T00:00:01.000007+00:00", START_NS - 5) == SECOND + 7_005


def test_a_generation_is_ready_from_its_load_until_it_drains() -> None:
    assert ready_times(LOG, GENERATIONS, START_NS) == [
        Ready(0, 1_500_000_000), Ready(SECOND, 2 * SECOND), Ready(2 * SECOND, 3 * SECOND), Ready(3 * SECOND)]


@pytest.mark.parametrize(("log", "said"), [
    (LOG[:1], "generation 1 as version 1002 was not loaded"),
    ([*LOG, row("4", "load", "ok", 1002)], "more often than it had content: versions 1002"),
    (LOG[:-1], "not exactly the last generation"),
    ([*LOG, row("4", "unload", "draining", 1003)], "not exactly the last generation"),
])
def test_a_log_that_has_not_what_was_done(log: list[AuditRow], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ready_times(log, GENERATIONS, START_NS)


def calls(*each: tuple[int, int, int, int]) -> np.ndarray:
    return np.array(list(each), CALL)


def test_replies_are_held_against_the_time_of_their_generation() -> None:
    generations = [Generation(0, 1001), Generation(1, 1002)]
    ready = [Ready(0, 10_000_000), Ready(9_000_000)]
    right, other, unknown = Answer("1001", 0), Answer("1001", 1), Answer("1002", None)
    good = calls((0, 0, 1, 0), (0, 9_999_999, 20_000_000, 0), (0, 10_001_000, 20_000_000, 0), (0, 0, 5, -1))
    assert sum(strays(good, [right], generations, ready).values()) == 0
    late = calls((0, 10_001_001, 20_000_000, 0))
    assert strays(late, [right], generations, ready)["after it had left"] == 1
    answers = [right, Answer("1002", 1), other, unknown]
    early = calls((0, 1, 8_998_999, 1), (0, 1, 8_999_000, 1))
    assert strays(early, answers, generations, ready)["before it was ready"] == 1
    wrong = calls((0, 1, 9_500_000, 2), (0, 1, 9_500_000, 3), (0, 1, 9_500_000, 3))
    assert strays(wrong, answers, generations, ready) == {
        "unknown content": 2, "content of another version": 1, "before it was ready": 0, "after it had left": 0}
    assert NEVER_NS == 2**63 - 1


def test_p99_is_of_the_calls_that_were_due_in_a_span() -> None:
    hundred = calls(*[(k, k, k + 1_000_000 * (k + 1), 0) for k in range(100)], (500, 500, 10**12, 0))
    assert p99_ms(hundred, [(0, 50), (50, 100)]) == pytest.approx(99.0)
    assert p99_ms(hundred, [(0, 10)]) == pytest.approx(10.0)
    with pytest.raises(ValueError, match="no call"):
        p99_ms(hundred, [(1000, 2000)])


def test_blocks_are_even() -> None:
    assert (in_blocks(12, 5), in_blocks(3, 5), in_blocks(1, 1)) == ([2, 2, 3, 2, 3], [1, 1, 1], [1])
    assert sum(in_blocks(150, 7)) == 150


def test_bars_of_a_reload() -> None:
    good = Figures(20, 1000, 0, {"unknown content": 0}, 1.0, 3.0, 9.0, (100, 109), (0.98, 1.009))
    assert [bar.met for bar in judged("watched", good)] == [True] * 5
    bad = Figures(20, 1000, 1, {"unknown content": 0, "after it had left": 1}, 1.0, 3.1, 9.0, (100, 111), (1.0, 1.04))
    assert [bar.met for bar in judged("watched", bad)] == [False] * 5


def test_figures_of_many_models() -> None:
    assert many_models.WEIGHTS_BYTES == 2180
    assert many_models.excess_bytes(9 * 3000 + 500, 500, 10) == 3000 - 2180
    assert many_models.spread([10, 12, 11]) == pytest.approx(1.2)
    assert many_models.spread([0, 12]) == float("inf")
    assert many_models.name_of(7) == "small-0007"
