"""Metrics of outcomes as they are written, and the scale that sums are kept in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.errors import InvalidArgument
from infer.outcome_metrics import MAX_METRICS, Metric, parse_metric, parse_metrics


@pytest.mark.parametrize(("text", "metric"), [
    ("clicked:rate", Metric("clicked")),
    ("churned:rate:lower", Metric("churned", better="lower")),
    ("churned:lower:rate", Metric("churned", better="lower")),
    ("spend:mean:0..500", Metric("spend", "mean", "higher", 0.0, 500.0)),
    ("seconds:mean:lower:-1.5..1e3", Metric("seconds", "mean", "lower", -1.5, 1000.0)),
])
def test_how_they_are_written(text: str, metric: Metric) -> None:
    assert parse_metric(text) == metric
    assert parse_metric(str(metric)) == metric
    assert Metric.from_record(vars(metric)) == metric


@pytest.mark.parametrize(("text", "said"), [
    ("clicked", "expected NAME:rate or NAME:mean"),
    ("clicked:often", "expected NAME:rate or NAME:mean"),
    ("clicked:rate:mean", "expected NAME:rate or NAME:mean"),
    ("clicked:rate:0..2", "a rate is of outcomes that are 0 or 1"),
    ("spend:mean", "a mean needs the bounds"),
    ("spend:mean:0-5", "expected NAME:rate or NAME:mean"),
    ("spend:mean:a..5", "expected NAME:rate or NAME:mean"),
    ("spend:mean:5..5", "bounds MIN..MAX of -1e15 to 1e15 that rise"),
    ("spend:mean:0..inf", "bounds MIN..MAX of -1e15 to 1e15 that rise"),
    ("spend:mean:nan..1", "bounds MIN..MAX of -1e15 to 1e15 that rise"),
    (":rate", "expected a name of 1 to 64"),
    ("a b:rate", "expected a name of 1 to 64"),
])
def test_what_is_no_metric(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        parse_metric(text)


def test_how_many_there_are() -> None:
    assert [each.name for each in parse_metrics(["a:rate", "b:rate"])] == ["a", "b"]
    with pytest.raises(InvalidArgument, match="expected 1 to 16 metrics, got 0"):
        parse_metrics([])
    with pytest.raises(InvalidArgument, match="expected 1 to 16 metrics, got 17"):
        parse_metrics(f"m{i}:rate" for i in range(MAX_METRICS + 1))
    with pytest.raises(InvalidArgument, match="'a' is named twice"):
        parse_metrics(["a:rate", "a:mean:0..1"])


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), share=st.floats(0, 1))
def test_there_and_back(low: float, width: float, share: float) -> None:
    metric = Metric("m", "mean", "higher", low, low + width)
    value = min(low + share * width, metric.high)
    assert 0 <= metric.unit_of(value) <= 1
    assert math.isclose(metric.value_of(metric.unit_of(value)), value, rel_tol=1e-6, abs_tol=1e-9 * (abs(low) + width))


@pytest.mark.parametrize(("metric", "value"), [
    (Metric("m"), 0.5), (Metric("m"), 2.0), (Metric("m"), -1.0), (Metric("m"), math.nan),
    (Metric("m", "mean", "higher", 1, 2), 0.99), (Metric("m", "mean", "higher", 1, 2), math.inf),
    (Metric("m", "mean", "higher", 1, 2), math.nan)])
def test_values_out_of_bounds(metric: Metric, value: float) -> None:
    with pytest.raises(InvalidArgument, match="metric 'm'"):
        metric.unit_of(value)
