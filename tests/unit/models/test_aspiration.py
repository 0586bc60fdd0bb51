"""Which incarnations shall serve: policy, labels, and what is there in memory alone."""

from __future__ import annotations

from typing import Any

from infer.models.aspiration import aspired_keys
from infer.models.harness import Key
from infer.models.settings import VersionPolicy
from infer.models.snapshot import ModelSeen
from tests.support.puppet_loader import seen

ALL = VersionPolicy("all")


def keys(model: ModelSeen, ready: tuple[Key, ...] = (), **arguments: Any) -> dict[Key, bool]:
    """Whether there are files, by key."""
    given = {"generation": 0, "wanted": {}, "held": {}, **arguments}
    chosen = aspired_keys(model, ready={key.version: key for key in ready}, **given)
    return {key: files is not None for key, files in chosen.items()}


def test_the_policy_picks_among_whole_versions() -> None:
    assert keys(seen("m", {1: "a", 2: "b", 3: "~c"})) == {Key(2, "b"): True}


def test_a_changed_version_and_changed_settings_are_new_incarnations() -> None:
    assert keys(seen("m", {1: "b"}), (Key(1, "a"),)) == {Key(1, "b"): True}
    assert keys(seen("m", {1: "a"}), (Key(1, "a"),), generation=1) == {Key(1, "a", 1): True}


def test_a_version_that_is_written_anew_serves_as_it_was() -> None:
    assert keys(seen("m", {1: "~b"}), (Key(1, "a"),)) == {Key(1, "a"): False}


def test_what_lost_its_files_serves_from_memory_while_nothing_else_is_there() -> None:
    assert keys(seen("m"), (Key(1, "a"),)) == {Key(1, "a"): False}
    assert keys(seen("m", {2: "b"}), (Key(3, "a"),)) == {Key(2, "b"): True}
    assert keys(seen("m", {2: "b"}, policy=ALL), (Key(1, "a"),)) == {Key(2, "b"): True}


def test_what_lost_its_files_serves_from_memory_while_it_is_named() -> None:
    both = VersionPolicy("specific", versions=(1, 2))
    assert keys(seen("m", {2: "b"}, policy=both), (Key(1, "a"),)) == {Key(1, "a"): False, Key(2, "b"): True}
    labelled = keys(seen("m", {2: "b"}), (Key(1, "a"),), wanted={"stable": 1})
    assert labelled == {Key(1, "a"): False, Key(2, "b"): True}


def test_labels_keep_their_versions() -> None:
    model = {1: "a", 2: "b", 3: "c"}
    assert keys(seen("m", model), wanted={"stable": 1}, held={"stable": 2}) == {
        Key(1, "a"): True, Key(2, "b"): True, Key(3, "c"): True}
    frugal = seen("m", model, availability_preserving=False)
    assert keys(frugal, wanted={"stable": 1}, held={"stable": 2}) == {Key(1, "a"): True, Key(3, "c"): True}
    assert keys(seen("m", model), wanted={"stable": 9}) == {Key(3, "c"): True}


def test_what_is_being_deleted_is_not_loaded() -> None:
    model = seen("m", {1: "a", 2: "b"}, policy=ALL)
    assert keys(model, leaving={1}) == {Key(2, "b"): True}
    assert keys(model, wanted={"old": 1}, leaving={1}) == {Key(2, "b"): True}
