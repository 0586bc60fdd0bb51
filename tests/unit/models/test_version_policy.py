"""Version policies: latest, all and specific over what is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.models.settings import VersionPolicy
from infer.models.version_policy import aspired, described


@pytest.mark.parametrize(("policy", "expected"), [
    (VersionPolicy(), {5}),
    (VersionPolicy("latest", 2), {3, 5}),
    (VersionPolicy("latest", 9), {1, 2, 3, 5}),
    (VersionPolicy("all"), {1, 2, 3, 5}),
    (VersionPolicy("specific", versions=(1, 3)), {1, 3}),
    (VersionPolicy("specific", versions=(4, 5)), {5}),
    (VersionPolicy("specific"), set()),
])
def test_a_policy_picks(policy: VersionPolicy, expected: set[int]) -> None:
    assert aspired(policy, [3, 1, 5, 2]) == expected


@given(st.frozensets(st.integers(1, 99)), st.integers(1, 5))
def test_latest_are_the_highest(available: frozenset[int], count: int) -> None:
    chosen = aspired(VersionPolicy("latest", count), available)
    assert len(chosen) == min(count, len(available))
    assert not chosen or min(chosen) > max(available - chosen, default=0)


def test_messages_name_the_policy() -> None:
    assert described(VersionPolicy()) == "the latest version"
    assert described(VersionPolicy("latest", 2)) == "the latest 2 versions"
    assert described(VersionPolicy("all")) == "all versions"
    assert described(VersionPolicy("specific", versions=(3,))) == "version 3"
    assert described(VersionPolicy("specific", versions=(3, 1))) == "versions 3, 1"
