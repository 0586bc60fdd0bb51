"""Retention: what may be deleted, and what never."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infer.models.retention import removable
from infer.models.settings import ModelSettings

AGES = {1: 500.0, 2: 400.0, 3: 300.0, 4: 200.0, 5: 100.0}


def settings(count: int | None = None, age_s: float | None = None) -> ModelSettings:
    return ModelSettings("m", keep_versions=count, keep_age_s=age_s)


def test_without_rules_everything_stays() -> None:
    assert removable(settings(), AGES, ()) == ()


def test_the_highest_versions_stay() -> None:
    assert removable(settings(count=2), AGES, ()) == (1, 2, 3)


def test_young_versions_stay() -> None:
    assert removable(settings(age_s=350), AGES, ()) == (1, 2)


def test_what_either_rule_keeps_stays() -> None:
    assert removable(settings(count=3, age_s=150), AGES, ()) == (1, 2)
    assert removable(settings(count=1, age_s=450), AGES, ()) == (1,)


def test_protected_versions_stay() -> None:
    assert removable(settings(count=1), AGES, {1, 3}) == (2, 4)


@given(st.none() | st.integers(0, 6), st.none() | st.floats(0, 600),
       st.dictionaries(st.integers(1, 8), st.floats(0, 600)), st.frozensets(st.integers(1, 8)))
def test_never_what_is_protected_nor_the_highest(count: int | None, age_s: float | None, ages: dict[int, float],
                                                 protected: frozenset[int]) -> None:
    gone = removable(settings(count, age_s), ages, protected)
    assert not set(gone) & protected
    assert set(gone) <= ages.keys()
    assert max(ages, default=0) not in gone
