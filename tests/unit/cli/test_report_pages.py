"""Pages of experiments and replays: what stands in them, that names are escaped, that plots keep to their boxes."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core.difference import EDGES, Comparison
from infer.cli import experiment_page, replay_page
from infer.cli.experiment import lines_of
from infer.cli.page import WIDTH, Scale, ticks
from infer.cli.replay_page import between
from infer.traffic.report import report_of
from tests.support.pages import Page, read_page
from tests.unit.traffic.test_experiment import SEEN, after, experiment

EVIL = "<script>alert(1)</script>\"'&"


def report(**fields: Any) -> dict[str, Any]:
    made = after(4000, 0.2, 0.3, 0.2, min_effect=0.05)
    return {**report_of("m", made, [SEEN] * 3, now=300.0, outcomes={"accepted": 8000, "late": 2}), **fields}


def assert_inside(page: Page) -> None:
    """Each plot keeps to its box; texts begin and end there, as far as one can know without their widths."""
    heights = iter(float(str(plot["viewbox"]).split()[3]) for plot in page.of("svg"))
    height = 0.0
    for tag, attributes in page.tags:
        if tag == "svg":
            height = next(heights)
        named = {name: float(value or "nan") for name, value in attributes.items()
                 if name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "r")}
        for name, value in named.items():
            assert 0 <= value <= (WIDTH if name in ("x", "x1", "x2", "cx", "width") else height), (tag, attributes)
        for point in (attributes.get("points") or "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH, attributes
            assert 0 <= y <= height, attributes


def test_an_experiments_page() -> None:
    page = read_page(experiment_page.page_of(report()))
    assert_inside(page)
    assert "Experiment e of model m" in page.text
    assert "Decision: winner: b" in page.text
    assert "8,000 accepted, 2 late" in page.text
    # The intervals, the course of both arms, the probability of being best.
    assert len(page.of("svg")) == 4
    said = [str(plot["aria-label"]) for plot in page.of("svg")]
    assert said[0].startswith("Effects on m: b +0.1, from +0.0")
    assert said[1].startswith("Effect of b on m after ")
    assert said[3].startswith("Probability of being the best by m, at the end: control 0.0%; b 100.0%; c 0.0%")
    assert [attributes["class"] for attributes in page.of("polyline")] == [
        "s1 curve", "s2 curve", "s0 curve", "s1 curve", "s2 curve"]


def test_names_are_no_markup() -> None:
    found = report(model=EVIL, experiment=EVIL, reason=EVIL, end_reason=EVIL, who=EVIL, problems=[EVIL])
    found["decision"]["reason"] = EVIL
    for arm in (found["arms"][1], found["metrics"][0]["arms"][1], found["metrics"][0]["series"]["arms"][1]):
        arm["name"] = EVIL
    found["metrics"][0]["name"] = EVIL
    content = experiment_page.page_of(found)
    page = read_page(content)
    assert "<script>alert(1)</script>" in page.text
    assert "<script" not in content
    assert_inside(page)


@pytest.mark.parametrize("metrics", [("m:rate",), ("m:rate", "spend:mean:0..10")])
def test_a_page_of_nothing(metrics: tuple[str, ...]) -> None:
    found = report_of("m", experiment(metrics), [SEEN, SEEN], now=101.0, outcomes={})
    page = read_page(experiment_page.page_of(found))
    assert "Decision: not enough data" in page.text
    assert page.of("svg") == []
    assert "outcomes: none" in lines_of(found)


@pytest.mark.parametrize(("means", "metric"), [
    ((0.0, 0.0), "m:rate"), ((1.0, 1.0), "m:rate"), ((0.3, 0.1), "m:mean:lower:0..1"), ((0.5, 0.5), "m:mean:0..1")])
def test_plots_of_what_hardly_differs(means: tuple[float, float], metric: str) -> None:
    found = report_of("m", after(400, *means, metric=metric), [SEEN, SEEN], now=1.0, outcomes={})
    assert_inside(read_page(experiment_page.page_of(found)))


def test_a_mismatch_and_a_guardrail_are_told() -> None:
    found = report(guardrails=[{"arm": "b", "kind": "errors", "limit": 0.01, "result": "fail", "control": 0.01,
                                "value": 0.25, "samples": 400},
                               {"arm": "b", "kind": "p99", "limit": 1.5, "result": "pass", "control": 1.5,
                                "value": 1.75, "samples": 400}])
    found["sample_ratio"]["ok"] = False
    page = read_page(experiment_page.page_of(found))
    assert "Sample ratio mismatch: units were not dealt by the weights" in page.text
    assert "25.00%" in page.text
    assert "1.75 ms" in page.text
    text = "\n".join(lines_of(found))
    assert "sample ratio: MISMATCH" in text
    assert re.search(r"errors +b +0.01 +1.00% +25.00% +400 +fail", text)


def comparison(*scales: float) -> dict[str, Any]:
    import numpy as np

    compared = Comparison(1e-5, 1e-8)
    one = np.ones((1, 4), np.float32)
    for scale in scales:
        compared.add(("FP32", (1, 4), one.tobytes()), ("FP32", (1, 4), (one * np.float32(scale)).tobytes()))
    return dict(compared.result())


def replay(*scales: float, **fields: Any) -> dict[str, Any]:
    output = comparison(*scales)
    return {"sent": len(scales), "agreed": len(scales) - output["differing"], "differed": output["differing"],
            "failed": 0, "statuses": {}, "failure": "", "outputs": {"y": output}, "worst": [], "torn": False,
            "redacted": [], "file": "a.calls", "model": "m", "to": "", "rtol": 1e-5, "atol": 1e-8, **fields}


def test_a_replays_page() -> None:
    page = read_page(replay_page.page_of(replay(
        1, 1, 1.5, 3, 1.0001, failed=3, statuses={"INTERNAL": 3}, failure=f"first {EVIL}", torn=True, redacted=[EVIL],
        to="m:4", worst=[{"apart": math.inf, "number": 7, "id": EVIL}, {"apart": 0.5, "number": 1, "id": ""}])))
    assert_inside(page)
    for text in ("3 of 5 answers differ, 3 calls failed", "2 agree (40.00%)", "answered by m:4", "torn", "infinite",
                 "The first: first <script>", "Pairs that differ"):
        assert text in page.text, text
    assert len(page.of("svg")) == 2
    assert "2 up to 1e-09; 1 from 1e-04 to 1e-03" in str(page.of("svg")[1]["aria-label"])


def test_a_replay_without_a_difference() -> None:
    page = read_page(replay_page.page_of(replay(1, 1, 1)))
    assert_inside(page)
    assert "No answer differs" in page.text
    page = read_page(replay_page.page_of(replay(sent=0)))
    assert page.of("svg") == []


def test_far_apart() -> None:
    assert_inside(read_page(replay_page.page_of(replay(1e12, math.inf, -1e30))))


def test_pairs_between_edges() -> None:
    assert between(10, [0] * 14 + [3, 7]) == [0] * 14 + [3, 4, 3]
    assert len(between(0, [0] * len(EDGES))) == len(EDGES) + 1


@given(widths=st.floats(-100, 100), width=st.floats(1e-6, 1e9), wanted=st.integers(2, 8))
def test_ticks_are_round_and_between(widths: float, width: float, wanted: int) -> None:
    low = widths * width
    found = ticks(low, low + width, wanted)
    assert len(found) <= wanted + 1
    assert all(low - 1e-6 * width <= value <= low + width * (1 + 1e-6) for value in found)
    for one, other in pairwise(found):
        digits = f"{other - one:.3e}"
        assert re.match(r"[125]\.000|9\.99|1\.99|4\.99", digits), digits


def test_a_scale_keeps_to_its_ends() -> None:
    scale = Scale(1.0, 3.0, 100.0, 200.0)
    assert [scale.at(value) for value in (0.0, 1.0, 2.0, 3.0, 9.0)] == [100.0, 100.0, 150.0, 200.0, 200.0]
    assert Scale(1.0, 1.0, 0.0, 10.0).at(1.0) == 5.0
