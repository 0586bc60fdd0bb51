"""Settings of experiments: what is one, how it is written, and that the store gives it back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infer.errors import InvalidArgument
from infer.experiments import (
    ExperimentPlan,
    ExperimentSettings,
    parse_experiment,
    parse_experiment_arms,
    parse_experiment_guardrails,
)
from infer.outcome_metrics import Metric, parse_metrics
from infer.rollouts import Guardrail
from infer.split_plan import ArmPlan

ARMS = parse_experiment_arms("control=1,new=2")


def settings(arms: tuple[ArmPlan, ...] = ARMS, metrics: tuple[Metric, ...] = (Metric("m"),), **fields: Any
             ) -> ExperimentSettings:
    return ExperimentSettings(arms, metrics, **fields)


def test_how_arms_are_written() -> None:
    assert (ArmPlan("control", 1.0, "1"), ArmPlan("new", 1.0, "2")) == ARMS
    assert parse_experiment_arms("a=stable, b=other:7", "90,10") == (
        ArmPlan("a", 90.0, "stable"), ArmPlan("b", 10.0, "7", "other"))
    for text, weights, said in (("a", "", "expected NAME=VERSION of each"), ("", "", "expected NAME=VERSION of each"),
                                ("a=1,b=2", "1", "expected one of each arm, 2"),
                                ("a=1,b=2", "1,x", "expected numbers"), ("a=1,=2", "", "expected NAME=VERSION")):
        with pytest.raises(InvalidArgument, match=said):
            parse_experiment_arms(text, weights)


def test_guardrails_are_a_rollouts_without_drift() -> None:
    assert parse_experiment_guardrails([]) == settings().guardrails
    assert parse_experiment_guardrails(["p50=off", "p99=2"]) == (Guardrail("errors", 0.01), Guardrail("p99", 2.0))
    assert parse_experiment_guardrails(["errors=off", "p50=off", "p99=off"]) == ()
    assert settings(guardrails=()).held is None
    held = settings(parse_experiment_arms("a=1,b=2,c=3"), alpha=0.1).held
    assert held is not None
    assert (held.alpha, held.guardrails) == (0.05, settings().guardrails)


@pytest.mark.parametrize(("fields", "said"), [
    ({"arms": ARMS[:1]}, "arms: expected 2 to 8"),
    ({"arms": parse_experiment_arms(",".join(f"a{i}=1" for i in range(9)))}, "arms: expected 2 to 8"),
    ({"arms": parse_experiment_arms("a=1,b=2", "1,0")}, "weights: expected each to be above 0"),
    ({"arms": parse_experiment_arms("a=1,a=2")}, "variant 'a' is named twice"),
    ({"metrics": ()}, "expected 1 to 16 metrics, got 0"),
    ({"metrics": parse_metrics(f"m{i}:rate" for i in range(9))}, "at most 8 metrics"),
    ({"key": ""}, "key: expected a parameter's name"),
    ({"guardrails": (Guardrail("drift", 0.1),)}, "guardrail 'drift' is none of an experiment's"),
    ({"min_samples": 0}, "min_samples"), ({"min_samples": True}, "min_samples"),
    ({"alpha": 0.0}, "alpha"), ({"alpha": True}, "alpha"),
    ({"window_s": 0.5}, "window: expected 1 s to 30 days"), ({"window_s": float("nan")}, "window"),
    ({"min_effect": -0.1}, "min_effect: expected 0 to 1, the range of m"), ({"min_effect": 2.0}, "min_effect"),
])
def test_what_is_no_experiment(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        settings(**fields)


def test_the_store_gives_them_back() -> None:
    made = settings(parse_experiment_arms("a=1,b=other:label", "3,1"),
                    parse_metrics(["m:rate:lower", "spend:mean:-5..5"]), key="user",
                    guardrails=parse_experiment_guardrails(["p95=2"]), min_samples=7, alpha=0.01, window_s=60.0,
                    min_effect=0.125)
    record = json.loads(json.dumps(made.to_record()))
    assert ExperimentSettings.from_record(record) == made
    for damage in ({**record, "arms": None}, {**record, "more": 1}, {**record, "metrics": [{}]}):
        with pytest.raises(InvalidArgument, match="the record of an experiment is damaged"):
            ExperimentSettings.from_record(damage)


TABLE: dict[str, Any] = {"name": "e", "arms": {"control": 1, "new": 2}, "metrics": ["m:rate"]}


def test_a_table_has_the_words_of_the_command_line() -> None:
    assert parse_experiment(TABLE) == ExperimentPlan("e", settings())
    assert parse_experiment({"name": "e", "arms": "control=1,new=2", "metrics": "m:rate"}) == parse_experiment(TABLE)
    assert parse_experiment({
        "name": "f", "arms": {"a": "stable", "b": "other:7"}, "weights": [90, 10.5],
        "metrics": ["m:rate:lower", "spend:mean:-5..5"], "key": "user", "guardrails": {"p50": "off", "p99": 2},
        "alpha": 0.01, "window": "2h", "min_effect": 0.125, "min_samples": 7}) == ExperimentPlan("f", settings(
            parse_experiment_arms("a=stable,b=other:7", "90,10.5"), parse_metrics(["m:rate:lower", "spend:mean:-5..5"]),
            key="user", guardrails=parse_experiment_guardrails(["p50=off", "p99=2"]), alpha=0.01, window_s=7200.0,
            min_effect=0.125, min_samples=7))
    assert parse_experiment({**TABLE, "weights": "3,1", "window": 60}).settings == settings(
        parse_experiment_arms("control=1,new=2", "3,1"), window_s=60.0)


@pytest.mark.parametrize(("changed", "said"), [
    ({"nam": "e"}, "'nam' is no setting of an experiment: expected some of name, arms, weights"),
    ({"name": 7}, "name: expected text, got 7"), ({"name": "a b"}, "'a b': expected a name of 1 to 128"),
    ({"key": ["user"]}, "key: expected text"), ({"key": ""}, "key: expected a parameter's name"),
    ({"arms": ["control", "new"]}, "arms: expected the version that each leads to"),
    ({"arms": {"control": 1, "new": True}}, "arms: expected the version that each leads to"),
    ({"arms": {"control": 1, "new": {"to": 2}}}, "arms: expected the version that each leads to"),
    ({"arms": {"control": 1, "new": "2,more=3"}}, "variant 'new': expected a version"),
    ({"arms": {"control": 1}}, "arms: expected 2 to 8"), ({"arms": "control,new"}, "expected NAME=VERSION"),
    ({"weights": 1}, "weights: expected one of each arm, such as"), ({"weights": [1]}, "expected one of each arm, 2"),
    ({"weights": [1, True]}, "expected numbers"), ({"weights": [1, 0]}, "weights: expected each to be above 0"),
    ({"metrics": []}, "expected 1 to 16 metrics"), ({"metrics": 1}, "metrics: expected what clients report"),
    ({"metrics": [1]}, "metrics: expected what clients report"), ({"metrics": ["m"]}, "expected NAME:rate"),
    ({"guardrails": ["errors=0.1"]}, "guardrails: expected limits by kind"),
    ({"guardrails": {"drift": 0.1}}, "guardrail 'drift' is none of an experiment's"),
    ({"guardrails": {"errors": True}}, "expected KIND=LIMIT"), ({"window": "soon"}, "time 'soon'"),
    ({"window": 0}, "window: expected 1 s to 30 days"), ({"alpha": "0.05"}, "alpha"),
    ({"min_samples": 1.5}, "min_samples"), ({"min_effect": float("nan")}, "min_effect"),
])
def test_what_is_no_table_of_one(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_experiment({**TABLE, **changed})


@pytest.mark.parametrize("missing", ["name", "arms", "metrics"])
def test_what_a_table_needs(missing: str) -> None:
    with pytest.raises(ValueError, match=f"{missing}: an experiment needs one"):
        parse_experiment({key: value for key, value in TABLE.items() if key != missing})
