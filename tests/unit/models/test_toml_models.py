"""Models' settings in the server's TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.experiments import ExperimentPlan, ExperimentSettings, parse_experiment_arms
from infer.models.config_pbtxt import parse_config
from infer.models.settings import (
    ModelSettings,
    QueuePolicy,
    TensorSetting,
    VersionPolicy,
    overlaid,
    written_experiments,
)
from infer.models.toml_models import OWN_KEYS, key_positions, parse_toml_models, read_toml_models
from infer.outcome_metrics import parse_metrics
from infer.proto import message
from infer.rollouts import RolloutSettings

FILE = Path("/etc/infer.toml")
TEXT = """
port = 8001

[models.fraud]
base_path = "fraud"
max_batch_size = 8
version_policy = { latest = 2 }   # as { latest = { num_versions = 2 } }
labels = { stable = 3, canary = 4 }
availability_preserving = false
keep_versions = 5
keep_age = "30d"
response_cache = true
cache_ttl = "10m"
cache_bytes = "1MiB"

[models.fraud.dynamic_batching]
max_queue_delay_microseconds = 100
priority_levels = 1
default_priority_level = 1
priority_queue_policy.1.max_queue_size = 3

[[models.fraud.input]]
name = "x"
data_type = "TYPE_FP32"
dims = [
  4,
]

[[models.fraud.input]]
name = "z"
data_type = "TYPE_STRING"
dims = 1
reshape = []

[models.fraud.parameters]
intra_op_thread_count = "2"

[models."other.one"]
version_policy.specific = [1, 2]
weight = 3
slo_p99_ms = 12.5
rollout = { steps = [10, 100], every = "1m", on_new_version = "rollout" }
cache_rows = true
"""


def said(text: str) -> list[str]:
    return [str(problem).removeprefix(f"{FILE}:") for problem in parse_toml_models(text, FILE).problems]


def test_every_kind_of_setting() -> None:
    models, problems = parse_toml_models(TEXT, FILE)
    assert problems == ()
    fraud, other = models
    assert fraud == ModelSettings(
        "fraud", Path("/etc/fraud"), f"{FILE}:4", max_batch_size=8, policy=VersionPolicy("latest", 2),
        labels={"canary": 4, "stable": 3}, availability_preserving=False, keep_versions=5, keep_age_s=30 * 86400.0,
        response_cache=True, cache_ttl_s=600.0, cache_bytes=1 << 20,
        dynamic_batching=True, max_queue_delay_us=100, priority_levels=1, default_priority=1,
        priority_queues={1: QueuePolicy(3)},
        inputs=(TensorSetting("x", "FP32", (4,)), TensorSetting("z", "BYTES", (1,), ())),
        parameters={"intra_op_thread_count": "2"})
    assert other == ModelSettings("other.one", origin=f"{FILE}:38", policy=VersionPolicy("specific", versions=(1, 2)),
                                  weight=3, slo_p99_ms=12.5, cache_rows=True,
                                  rollout=RolloutSettings((10, 100), 60.0, on_new_version="rollout"))
    assert {name: fraud.place_of(name) for name in ("labels", "keep_age_s", "max_queue_delay_us", "inputs.z.dims",
                                                    "filename")} == {
        "labels": f"{FILE}:8:1", "keep_age_s": f"{FILE}:11:1", "max_queue_delay_us": f"{FILE}:17:1",
        "inputs.z.dims": f"{FILE}:32:1", "filename": f"{FILE}:4"}


def test_an_experiment_is_what_the_command_line_would_begin() -> None:
    models, problems = parse_toml_models("""
[models.fraud.experiment]
name = "retrained"
arms = { control = 3, new = "other:stable" }
metrics = ["caught:rate", "loss:mean:lower:0..5000"]
""", FILE)
    assert problems == ()
    (fraud,) = models
    assert fraud.experiment == ExperimentPlan("retrained", ExperimentSettings(
        parse_experiment_arms("control=3,new=other:stable"), parse_metrics(["caught:rate", "loss:mean:lower:0..5000"])))
    assert fraud.place_of("experiment") == f"{FILE}:2:1"
    assert written_experiments({"fraud": fraud, "m": ModelSettings("m")}) == {"fraud": fraud.experiment}


def test_it_stands_over_the_models_own_file() -> None:
    under = parse_config("max_batch_size: 4 dynamic_batching { preferred_batch_size: 2 }", "c", "fraud").settings
    assert under is not None
    (over,) = parse_toml_models("[models.fraud]\ndynamic_batching.max_queue_delay_microseconds = 7", FILE).models
    both = overlaid(under, over)
    assert (both.max_batch_size, both.preferred_batch_sizes, both.max_queue_delay_us) == (4, (2,), 7)
    assert (both.place_of("preferred_batch_sizes"), both.place_of("max_queue_delay_us")) == ("c:1:38", f"{FILE}:2:1")


@pytest.mark.parametrize(("text", "problem"), [
    ("max_bach_size = 1", "2:1: max_bach_size: is no field of ModelConfig; did you mean 'max_batch_size'? [E102]"),
    ("label = { a = 1 }", "2:1: label: is no setting of a model; did you mean 'labels'? [E102]"),
    ("max_batch_size = 'a'", '2:1: max_batch_size: expected a whole number from -2147483648 to 2147483647, got "a"; '
     "leave the quotes out [E103]"),
    ("keep_versions = 0", "2:1: keep_versions: expected a whole number from 1, got 0; correct the value [E103]"),
    ("slo_p99_ms = '5 s'", "2:1: slo_p99_ms: expected a number of milliseconds such as 20 or 0.5, got '5 s'"),
    ("rollout = 1", "2:1: rollout: expected a table such as { steps = [1, 10, 100], every = \"5m\" }, got 1"),
    ("experiment = 1", '2:1: experiment: expected a table such as { name = "retrained", arms = { control = 3, new = '),
    ("weight = 1\n\n[models.m.experiment]\nname = 'e'\narm = 'a=1,b=2'",
     "4:1: experiment: 'arm' is no setting of an experiment: expected some of name, arms, weights, metrics, key, "),
    ("experiment = { name = 'e', arms = { a = 1, b = 2 }, metrics = ['c:rate'], alpha = 2 }",
     "2:1: experiment: alpha: expected 1e-6 to 0.5, got 2, got {'name': 'e', "),
    ("slo_p99_ms = -1", "2:1: slo_p99_ms: expected milliseconds up to 600000; 0 for none, got -1"),
    ("weight = 0", "2:1: weight: expected a whole number from 1 to 1000, got 0; correct the value [E103]"),
    ("weight = 1001", "2:1: weight: expected a whole number from 1 to 1000, got 1001"),
    ("weight = 0.5", "2:1: weight: expected a whole number such as 64 or 1k, got 0.5"),
    ("keep_age = 'soon'",
     "2:1: keep_age: expected a time such as 30, 1.5s, 500ms or 2m, got 'soon'; correct the value [E103]"),
    ("keep_age = 0", "2:1: keep_age: expected a time above 0, such as 30d or 12h, got 0; correct the value [E103]"),
    ("keep_age = true", "2:1: keep_age: expected a time such as"),
    ("keep_age = inf", "2:1: keep_age: expected a time above 0"),
    ("availability_preserving = 1",
     "2:1: availability_preserving: expected true or false, got 1; correct the value [E103]"),
    ("base_path = ''", "2:1: base_path: expected a directory in quotes, got ''; correct the value [E103]"),
    ("labels = { 1 = 2 }", "2:1: labels: expected labels of A-Z a-z 0-9 _ . - that are no numbers, not '1', got "),
    ("labels = { a = true }",
     "2:1: labels: expected the number of a version for 'a', got {'a': True}; correct the value [E103]"),
    ("labels = 3", "2:1: labels: expected labels with their versions: { stable = 3 }, got 3; correct the value [E103]"),
    ("name = 'n'", "2:1: name: expected 'm', as the model's directory is called, got 'n'"),
    ("[[models.m.input]]\nname = 'x'\ndata_type = 'FP32'\ndims = [4]",
     "4:1: input[0].data_type: expected TYPE_FP32, got FP32; write TYPE_FP32 [E104]"),
    ('cache_ttl = "2y"', "2:1: cache_ttl: expected a time such as 30, 1.5s, 500ms or 2m, got '2y'"),
    ("cache_ttl = -1", "2:1: cache_ttl: expected a time of up to a year, such as 10m; 0 for no bound, got -1"),
    ("cache_rows = 1", "2:1: cache_rows: expected true or false, got 1; correct the value [E103]"),
    ("cache_bytes = 0", "2:1: cache_bytes: expected a size such as 16MiB, got 0"),
    ("response_cache = { enable = 2026-01-01 }", "2:1: response_cache.enable: expected true or false, got 2026-01-01"),
])
def test_a_setting_with_an_error(text: str, problem: str) -> None:
    models, problems = parse_toml_models(f"[models.m]\n{text}\n[models.good]\n", FILE)
    assert [each.name for each in models] == ["good"]
    assert len(problems) == 1
    assert str(problems[0]).removeprefix(f"{FILE}:").startswith(problem)


@pytest.mark.parametrize(("text", "problem"), [
    ("models = 3", "1: models: expected tables of models: [models.NAME], got 3; correct the value [E103]"),
    ("[models]\nm = 3", "2:1: m: expected a table: [models.NAME], got 3; correct the value [E103]"),
    ('[models."a/b"]',
     "1:1: a/b: expected a name of 1 to 128 of A-Z a-z 0-9 _ . -, got 'a/b'; correct the value [E103]"),
    ("models = ", "is not TOML: Invalid value"),
])
def test_something_else_than_models(text: str, problem: str) -> None:
    assert problem in said(text)[0]
    assert parse_toml_models(text, FILE).models == ()


def test_own_keys_are_no_fields_of_a_configuration() -> None:
    assert set(OWN_KEYS).isdisjoint(message("inference.ModelConfig").DESCRIPTOR.fields_by_name)


def test_reading(tmp_path: Path) -> None:
    file = tmp_path / "infer.toml"
    assert "cannot be read" in str(read_toml_models(file).problems[0])
    file.write_text("port = 1\n")
    assert read_toml_models(file) == ((), ())


KEYS = st.sampled_from(["a", "b", "c d"])
VALUES = st.recursive(
    st.sampled_from([1, True, 'two\n\n[x]\ny = 1', "[["]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6)


def inline(value: Any, spread: bool) -> str:
    """TOML for a value; spread over lines where TOML lets it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"""\n{value}"""' if spread else '"' + value.replace("\n", "\\n") + '"'
    if isinstance(value, list):
        gap = "\n  " if spread else " "
        return f"[{gap}" + f",{gap}".join(inline(each, spread) for each in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {inline(each, False)}' for key, each in value.items()) + "}"
    return str(value)


@given(st.lists(st.tuples(KEYS, VALUES, st.booleans()), max_size=4, unique_by=lambda each: each[0]),
       st.lists(st.tuples(KEYS, VALUES, st.booleans()), max_size=3, unique_by=lambda each: each[0]), st.booleans())
def test_positions_of_keys(top: list[Any], inner: list[Any], array: bool) -> None:
    lines: list[str] = ["# one"]
    wanted = {}
    for header, statements in (("", top), ("[[t.u]]" if array else "[t.u]", inner)):
        if header:
            wanted["t", "u"] = len(lines) + 1
            lines.append(header)
        for key, value, spread in statements:
            path = ("t", "u", *((0,) if array else ()), key) if header else (key,)
            wanted[path] = len(lines) + 1
            lines += f'"{key}" = {inline(value, spread)}'.split("\n")
            lines.append("")
    text = "\n".join(lines)
    tomllib.loads(text)
    positions = key_positions(text)
    assert {keys: positions(keys)[0] for keys in wanted} == wanted
    assert positions(("t", "u", 0, "nothing") if array else ("t", "u", "nothing"))[0] == wanted["t", "u"]


def test_positions_in_tables_of_tables() -> None:
    positions = key_positions("[[a]]\nx = 1\n[[a.b]]\ny = 1\n[[a]]\n[[a.b]]\n  y = 2\n[a.c]\nz = 1\n")
    assert [positions(keys) for keys in (("a", 0, "x"), ("a", 0, "b", 0, "y"), ("a", 1), ("a", 1, "b", 0, "y"),
                                         ("a", 1, "c", "z"))] == [(2, 1), (4, 1), (5, 1), (7, 3), (9, 1)]
