"""How the bench of fairness reads shares."""

from __future__ import annotations

import tomllib

import pytest

from bench.load.fairness import FEW, MANY, PARTS, ROWS, Part, off_by, share


@pytest.mark.parametrize(("many", "few", "found"), [(10, 10, 0.5), (30, 10, 0.25), (0, 5, 1.0)])
def test_a_share_is_of_what_both_gained(many: int, few: int, found: float) -> None:
    before = {(ROWS, MANY): 7.0, (ROWS, FEW): 3.0}
    after = {(ROWS, MANY): 7.0 + many, (ROWS, FEW): 3.0 + few}
    assert share(before, after, ROWS) == found


@pytest.mark.parametrize(("found", "expected", "per_cent"), [
    (0.5, 0.5, 0), (0.45, 0.5, 10), (0.55, 0.5, 10), (0.2, 0.25, 20), (0.8, 0.75, 20)])
def test_the_one_that_is_further_off_is_judged(found: float, expected: float, per_cent: float) -> None:
    assert off_by(found, expected) == pytest.approx(per_cent)


def test_parts_say_what_they_expect() -> None:
    assert [part.expected for part in PARTS.values()] == [0.5, 0.5, 0.25, 0.75]
    models = tomllib.loads(Part((3, 1), (64, 8)).settings())["models"]
    assert models[MANY] == {"max_batch_size": 64, "weight": 3, "dynamic_batching": {"preferred_batch_size": [64]}}
    assert models[FEW]["weight"] == 1
