"""Settings of rollouts: what may be written, and what it comes to."""

from __future__ import annotations

import json

import pytest

from infer.errors import InvalidArgument
from infer.outcome_metrics import Metric
from infer.rollouts import (
    LIMITS,
    Guardrail,
    RolloutSettings,
    parse_guardrails,
    parse_rollout,
    parse_seconds,
    parse_steps,
)


def test_guardrails() -> None:
    assert {each.kind: each.limit for each in parse_guardrails(())} == LIMITS
    assert parse_guardrails(("errors=0.1", "p50=off", "p99=off", "drift=off")) == (Guardrail("errors", 0.1),)
    assert Guardrail("p95", 2.0) in parse_guardrails(("p95=2",))
    assert str(Guardrail("p95", 2.0)) == "p95=2"


@pytest.mark.parametrize("wrong", ["errors", "errors=x", "errors=1", "errors=-0.1", "p99=0.5", "drift=nan",
                                   "errors=inf", "speed=1", "speed=off", "top1=0", "disagreement=1",
                                   "outcome:bought=0", "outcome:bought=1", "outcome:=0.1", "outcome:a:mean=0.1",
                                   "outcome:a:mean:0..10=-10"])
def test_what_is_no_guardrail(wrong: str) -> None:
    with pytest.raises(InvalidArgument, match=r"guardrail|metric"):
        parse_guardrails((wrong,))


def test_guardrails_that_are_told_by_others() -> None:
    settings = RolloutSettings(guardrails=parse_guardrails((
        "errors=off", "p50=off", "p99=off", "drift=off", "top1=0.01", "outcome:bought=-0.02",
        "outcome:spend:mean:0..500=5")))
    assert settings.metrics == (Metric("bought"), Metric("spend", "mean", "higher", 0.0, 500.0))
    assert settings.has_shadow
    assert RolloutSettings.from_record(json.loads(json.dumps(settings.to_record()))) == settings
    assert not RolloutSettings().has_shadow
    with pytest.raises(InvalidArgument, match="'bought' is named twice"):
        RolloutSettings(guardrails=(Guardrail("outcome:bought", 0.1), Guardrail("outcome:bought:mean:0..9", 0.1)))


def test_a_table_says_it() -> None:
    assert parse_rollout({}) == RolloutSettings()
    assert parse_rollout({
        "steps": [10, 100], "every": "2m", "guardrails": {"errors": 0.02, "drift": "off"}, "min_samples": 500,
        "alpha": 0.01, "on_restart": "rollback", "on_new_version": "rollout"}) == RolloutSettings(
            (10, 100), 120.0, (Guardrail("errors", 0.02), Guardrail("p50", 1.5), Guardrail("p99", 1.5)), 500, 0.01,
            "rollback", "rollout")
    assert parse_rollout({"steps": "5,100", "every": 30}) == RolloutSettings((5.0, 100.0), 30.0)


@pytest.mark.parametrize(("table", "told"), [
    (1, "expected a table"), ({"step": 1}, "is no setting"), ({"steps": [1, 50]}, "steps"), ({"steps": []}, "steps"),
    ({"steps": [5, 1, 100]}, "steps"), ({"steps": [0, 100]}, "steps"), ({"steps": ["1", 100]}, "steps"),
    ({"steps": "x"}, "steps"), ({"every": "soon"}, "time"), ({"every": "40d"}, "every"),
    ({"guardrails": 1}, "guardrails"), ({"guardrails": dict.fromkeys(LIMITS, "off")}, "guardrails"),
    ({"min_samples": 0}, "min_samples"), ({"min_samples": "1"}, "min_samples"), ({"alpha": 0.9}, "alpha"),
    ({"alpha": True}, "alpha"), ({"on_restart": "stop"}, "on_restart"), ({"on_new_version": "wait"}, "on_new_version")])
def test_what_is_no_table_of_it(table: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_rollout(table)


def test_a_record_is_all_of_it() -> None:
    settings = RolloutSettings((1.5, 100.0), 1.0, parse_guardrails(("p95=3",)), 7, 0.1, "rollback", "rollout")
    assert RolloutSettings.from_record(json.loads(json.dumps(settings.to_record()))) == settings


def test_texts() -> None:
    assert parse_steps("1,5,100") == (1.0, 5.0, 100.0)
    assert [parse_seconds(each) for each in ("300", "5m", "1.5h", "2d", "10s")] == [300, 300, 5400, 172800, 10]
    for wrong in ("", "5 m", "-1", "m", "1w"):
        with pytest.raises(InvalidArgument):
            parse_seconds(wrong)
