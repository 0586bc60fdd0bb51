"""Settings of a model: which edits need a reload, and one writing over another."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from infer.experiments import parse_experiment
from infer.models.breaker_settings import BreakerSettings
from infer.models.settings import (
    LIVE_FIELDS,
    ModelSettings,
    QueuePolicy,
    TensorSetting,
    VersionPolicy,
    Warmup,
    changed_fields,
    overlaid,
    reload_needed,
)
from infer.rollouts import RolloutSettings
from infer.shadow_plan import ShadowPlan
from infer.split_plan import ArmPlan, SplitPlan

PLAIN = ModelSettings("m")

# For every field another value than the default.
EDITS: dict[str, Any] = {
    "name": "n", "base": None, "origin": "f:1", "filename": "m.onnx", "max_batch_size": 8,
    "inputs": (TensorSetting("x", "FP32", (4,)),), "outputs": (TensorSetting("y", "FP32", (4,)),),
    "policy": VersionPolicy("all"), "labels": {"stable": 1}, "availability_preserving": False, "keep_versions": 3,
    "keep_age_s": 60.0, "instances": 2, "kind": "gpu", "gpus": (1,), "dynamic_batching": True,
    "preferred_batch_sizes": (4,), "max_queue_delay_us": 5, "weight": 3, "slo_p99_ms": 20.0,
    "queue": QueuePolicy(max_size=1), "priority_levels": 2, "default_priority": 1,
    "priority_queues": {1: QueuePolicy()}, "warmups": (Warmup("w"),), "response_cache": True,
    "cache_ttl_s": 1.0, "cache_bytes": 1 << 20, "cache_rows": True,
    "graph_optimization": "off", "providers": (("cpu", {}),), "parameters": {"a": "b"},
    "histogram_buckets": {"f": (1.0,)}, "breaker": BreakerSettings(fallback="previous"), "run_timeout_s": 1.0,
    "rollout": RolloutSettings((50.0, 100.0)), "shadow": ShadowPlan("4"),
    "split": SplitPlan((ArmPlan("3", 90, "3"), ArmPlan("4", 10, "4"))),
    "experiment": parse_experiment({"name": "e", "arms": "a=3,b=4", "metrics": "m:rate"}),
    "places": {"name": "f:1:1"},
}
LIVE = {"policy", "labels", "availability_preserving", "keep_versions", "keep_age_s", "max_queue_delay_us", "queue",
        "priority_queues", "default_priority", "weight", "slo_p99_ms", "breaker", "run_timeout_s", "shadow",
        "split", "rollout", "experiment"}


def test_the_list_of_edits_is_complete() -> None:
    assert set(EDITS) == {field.name for field in dataclasses.fields(ModelSettings)}
    assert LIVE == LIVE_FIELDS


@pytest.mark.parametrize("name", sorted(EDITS))
def test_an_edit_reloads_unless_it_is_applied_to_what_serves(name: str) -> None:
    new = dataclasses.replace(PLAIN, **{name: EDITS[name]})
    silent = name in ("base", "origin", "places")       # base: the same value here
    assert changed_fields(PLAIN, new) == (frozenset() if silent else {name})
    assert reload_needed(PLAIN, new) == (not silent and name not in LIVE)


def test_one_field_that_reloads_among_many_that_do_not() -> None:
    new = dataclasses.replace(PLAIN, policy=VersionPolicy("all"), labels={"stable": 1}, instances=2)
    assert reload_needed(PLAIN, new)


def test_overlaid_takes_what_was_written_and_nothing_else() -> None:
    under = ModelSettings("m", origin="a:1", max_batch_size=8, instances=2,
                          places={"max_batch_size": "a:2:1", "instances": "a:3:1", "inputs.x.dims": "a:4:1"})
    over = ModelSettings("other", origin="b:1", max_batch_size=0, labels={"stable": 1},
                         places={"max_batch_size": "b:2:1", "labels": "b:3:1", "labels.stable": "b:3:9"})
    both = overlaid(under, over)
    assert (both.name, both.origin, both.max_batch_size, both.instances, both.labels) == ("m", "b:1", 0, 2,
                                                                                         {"stable": 1})
    assert both.places == {"max_batch_size": "b:2:1", "labels": "b:3:1", "labels.stable": "b:3:9",
                           "instances": "a:3:1", "inputs.x.dims": "a:4:1"}


def test_places() -> None:
    settings = ModelSettings("m", origin="f:1", places={"inputs": "f:2:1", "inputs.x": "f:3:1"})
    assert [settings.place_of(name) for name in ("inputs.x.dims", "inputs.z", "kind")] == ["f:3:1", "f:2:1", "f:1"]
    assert settings.is_given("inputs")
    assert not settings.is_given("kind")


@pytest.mark.parametrize(("written", "threads"), [("2", 2), ("0", None), ("-1", None), ("two", None)])
def test_intra_op(written: str, threads: int | None) -> None:
    assert dataclasses.replace(PLAIN, parameters={"intra_op_thread_count": written}).intra_op == threads
    assert PLAIN.intra_op is None
