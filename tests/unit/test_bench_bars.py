"""What the bench holds its figures against."""

import pytest

from bench.bars import Bar, number
from bench.compare import Counts, bars, disagreement
from bench.load.idle import ACK, PING, SETTINGS, frame, frames


@pytest.mark.parametrize(
    ("value", "at_most", "met"),
    [(39.9, False, False), (40.0, False, True), (40.0, True, True), (40.1, True, False)],
)
def test_limit_belongs_to_what_is_allowed(value: float, at_most: bool, met: bool) -> None:
    assert Bar("rate", value, 40, at_most).met is met


def test_bar_that_does_not_apply_is_not_judged() -> None:
    bar = Bar("rate", 1.0, 40, applies=False)
    assert bar.verdict == "does not apply"
    assert bar.record()["verdict"] == "does not apply"


@pytest.mark.parametrize(
    ("value", "text"), [(123456.7, "123,457 /s"), (123.45, "123.5 /s"), (12.345, "12.35 /s"), (0.25, "0.250 /s")]
)
def test_figures_are_cut_to_what_they_carry(value: float, text: str) -> None:
    assert number(value, "/s") == text


def entry(target: str, model: str, point: str, **medians: float) -> dict[str, object]:
    runs = [{"void": ""}, {"void": "the generator counts 2 replies, the server 1"}]
    return {"target": target, "model": model, "point": point, "medians": medians, "runs": runs}


def test_the_portable_transport_has_bars_of_its_own() -> None:
    points = [
        entry("infer", "tiny", "c256", rate=140_000.0), entry("grpcio", "tiny", "c256", rate=3_500.0),
        entry("in_handler", "tiny", "c256", rate=2_800.0)]
    by_name = {bar.name: bar for bar in bars(points, {})}
    bar = by_name["tiny c256, --transport grpcio: rate, by the baseline's"]
    assert (bar.value, bar.limit, bar.met) == (1.25, 1.2, True)
    assert by_name["tiny c256: rate, by the baseline's"].value == 50


def test_bars_of_what_was_measured() -> None:
    points = [
        entry("infer", "tiny", "c256", rate=140_000.0),
        entry("queued", "tiny", "c256", rate=2_800.0),
        entry("infer", "mid", "c256", rate=9_000.0, cpu_us=100.0),
        entry("queued", "mid", "c256", rate=1_000.0),
        entry("infer", "tiny", "open", p99_us=2_000.0),
    ]
    found = {bar.name: bar for bar in bars(points, {"mid": {"rows_per_s": 10_000.0, "cpu_us": 95.0}})}
    assert found["tiny c256: rate, by the baseline's"].value == pytest.approx(50)
    assert found["tiny c256: rate"].applies
    assert not found["mid c256: rows/s, by ONNX Runtime's alone"].met
    assert found["mid c256: ONNX Runtime's CPU per row, by the server's"].value == pytest.approx(95)
    assert found["tiny open loop: p99"].value == pytest.approx(2.0)
    assert found["tiny open loop: runs with a failure"].value == 1
    assert len(found) == 6


def test_point_whose_runs_are_all_void_has_no_bar() -> None:
    assert bars([entry("infer", "tiny", "c256"), entry("queued", "tiny", "c256", rate=2_800.0)], {}) == []


@pytest.mark.parametrize(
    ("counts", "data_bytes", "said"),
    [
        (Counts(10, 10, 1), 150, ""),
        (Counts(9, 10, 1), 150, "the server 9"),
        (Counts(10, 11, 1), 150, "11 inferences"),
        (Counts(10, 10, 1), 149, "149 bytes"),
    ],
)
def test_counts_agree_or_the_run_is_void(counts: Counts, data_bytes: int, said: str) -> None:
    text = disagreement(10, counts, data_bytes, reply_bytes=10)
    assert (said in text) if said else not text


def test_frames_of_a_settings_exchange() -> None:
    data = frame(SETTINGS, 0, bytes(6)) + frame(SETTINGS, ACK) + frame(PING, ACK, bytes(8))
    assert frames(data) == [(SETTINGS, 0), (SETTINGS, ACK), (PING, ACK)]
    assert frames(data[:-1]) == [(SETTINGS, 0), (SETTINGS, ACK)]
