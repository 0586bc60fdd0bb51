"""Labels: they move to ready versions only, are deferred before, and leave no gap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.models.labels import LABEL, default_version, moved

VERSIONS = st.integers(1, 4)
LABELS = st.dictionaries(st.sampled_from(["stable", "canary", "old"]), VERSIONS)


def test_a_label_moves_once_its_version_is_ready() -> None:
    before = moved({"stable": 2}, {1}, {"stable": 1})
    assert (before.held, before.deferred) == ({"stable": 1}, {"stable": 2})
    after = moved({"stable": 2}, {1, 2}, before.held)
    assert (after.held, after.deferred) == ({"stable": 2}, {})


def test_a_label_named_before_any_version_is_ready_is_deferred() -> None:
    labels = moved({"canary": 3}, {1}, {})
    assert (labels.held, labels.deferred, labels.effective({1})) == ({}, {"canary": 3}, {})


def test_a_label_that_is_no_longer_wanted_is_gone() -> None:
    assert moved({}, {1}, {"stable": 1}).held == {}


def test_a_label_remembers_its_version_while_that_is_not_ready() -> None:
    labels = moved({"stable": 1}, {2}, {"stable": 1})
    assert labels.held == {"stable": 1}
    assert labels.effective({2}) == {}
    assert labels.deferred == {}


@given(LABELS, st.frozensets(VERSIONS), LABELS)
def test_labels_only_ever_move_to_ready_versions(wanted: dict[str, int], ready: frozenset[int],
                                                 held: dict[str, int]) -> None:
    labels = moved(wanted, ready, held)
    assert labels.held.keys() <= wanted.keys()
    for label, version in labels.held.items():
        assert version == held.get(label) or version in ready
    assert set(labels.effective(ready).values()) <= ready
    # Each wanted label is at its version or deferred to it.
    for label, version in wanted.items():
        assert (labels.held.get(label) == version) != (labels.deferred.get(label) == version)
    again = moved(wanted, ready, labels.held)
    assert again == labels


def test_the_default_is_stable_once_it_was_set_else_the_highest() -> None:
    assert default_version({}, {1, 3}) == 3
    assert default_version({"canary": 1}, {1, 3}) == 3
    assert default_version({"stable": 1}, {1, 3}) == 1
    assert default_version({"stable": 2}, {1, 3}) is None
    assert default_version({}, set()) is None


@pytest.mark.parametrize(("label", "allowed"), [
    ("stable", True), ("v2", True), ("a.b-c_D", True), ("x" * 128, True), ("x" * 129, False), ("", False), ("3", False),
    ("03", False), ("a b", False), ("a/b", False), ("a\n", False), ("-3", False),
])
def test_labels_that_could_be_versions_are_none(label: str, allowed: bool) -> None:
    assert bool(LABEL.fullmatch(label)) == allowed
