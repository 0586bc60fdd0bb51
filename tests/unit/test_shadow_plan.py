"""What may be asked of a shadow, as tables, records and RPCs have it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from infer.errors import InvalidArgument
from infer.models.settings import written_shadows
from infer.models.toml_models import parse_toml_models
from infer.shadow_plan import ATOL, RTOL, ShadowPlan, plan_of


def test_a_plan_and_its_record() -> None:
    plan = ShadowPlan("stable", 0.25, 0.1, 0)
    assert plan_of(plan.record()) == plan
    assert str(plan) == "25% of requests to stable, rtol 0.1, atol 0"
    assert plan_of({"to": 4}) == ShadowPlan("4", 1.0, RTOL, ATOL)


@pytest.mark.parametrize(("fields", "said"), [
    ({}, "expected a table with the version that has the copies"),
    ("4", "expected a table with the version that has the copies"),
    ({"to": "a b"}, "to: expected a version or a label, got 'a b'"),
    ({"to": True}, "to: expected a version or a label, got True"),
    ({"to": "4", "fraction": 0}, "fraction: expected a part of all requests, above 0 and at most 1, got 0.0"),
    ({"to": "4", "fraction": 1.5}, "at most 1, got 1.5"),
    ({"to": "4", "fraction": math.nan}, "fraction: expected a number from 0, got nan"),
    ({"to": "4", "rtol": -1}, "rtol: expected a number from 0, got -1"),
    ({"to": "4", "atol": "1"}, "atol: expected a number from 0, got '1'"),
    ({"to": "4", "part": 1}, "'part' is nothing that a shadow has; expected to, fraction, rtol, atol"),
])
def test_what_is_no_plan(fields: Any, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        plan_of(fields)
    assert said in caught.value.message


def test_a_model_s_table() -> None:
    text = '[models.m.shadow]\nto = "4"\nfraction = 0.5\n[models.n]\nmax_batch_size = 4\n'
    written = parse_toml_models(text, Path("infer.toml"))
    assert not written.problems
    assert written_shadows({each.name: each for each in written.models}) == {"m": ShadowPlan("4", 0.5)}
    [problem] = parse_toml_models("[models.m.shadow]\nto = 4\nfraction = 2\n", Path("infer.toml")).problems
    assert str(problem).startswith("infer.toml:1:1: shadow: fraction: expected a part of all requests")
