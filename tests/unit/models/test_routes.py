"""Routes: what calls reach, and the code and words for what they do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infer._core.router import ModelRoute
from infer.models.harness import Incarnation, Key, State
from infer.models.labels import Labels
from infer.models.routes import ModelView, route_of
from infer.models.settings import ModelSettings, VersionPolicy
from tests.support.puppet_loader import files, seen


def row(version: int, state: str, reason: str = "", fingerprint: str = "a") -> Incarnation:
    return Incarnation(Key(version, fingerprint), files(version), ModelSettings("m"), State(state),
                       f"entry {version}" if state in ("loaded", "ready", "draining") else None, reason)


def route(*rows: Incarnation, held: dict[str, int] | None = None, deferred: dict[str, int] | None = None,
          **view: Any) -> ModelRoute:
    given = {"seen": seen("m", {1: "a"}), **view}
    return route_of(ModelView("m", rows, Labels(held or {}, deferred or {}), **given))


def test_calls_reach_ready_versions_and_labels_on_them() -> None:
    found = route(row(1, "ready"), row(3, "ready"), row(2, "loading"), held={"stable": 1, "canary": 3})
    assert found.versions == ("entry 3", "entry 1")
    assert found.labels == {"stable": "entry 1", "canary": "entry 3"}
    assert (found.default, found.reason) == ("entry 1", None)
    assert found.unready == {"2": (14, "model 'm' version 2 is loading; try again")}


@pytest.mark.parametrize(("state", "reason", "code", "words"), [
    ("new", "", 14, "is loading"), ("loading", "", 14, "is loading"), ("loaded", "", 14, "is loading"),
    ("failed", "no such op", 9, "no such op"), ("loading", "no such op", 9, "no such op"),
    ("draining", "", 14, "is being unloaded")])
def test_a_version_that_is_not_ready_says_why(state: str, reason: str, code: int, words: str) -> None:
    found = route(row(1, state, reason))
    assert (found.versions, found.default) == ((), None)
    assert found.reason is not None
    for refusal in (found.unready["1"], found.reason):
        assert refusal[0] == code
        assert words in refusal[1]


def test_what_follows_speaks_for_a_version_whose_old_incarnation_drains() -> None:
    assert route(row(1, "draining", fingerprint="z"), row(1, "failed", "broken")).reason == (9, "broken")
    assert route(row(1, "loading"), row(1, "draining")).unready["1"][1].endswith("is loading; try again")


def test_what_may_become_ready_says_more_than_what_failed() -> None:
    found = route(row(2, "failed", "broken"), row(1, "loading"))
    assert found.reason == found.unready["1"]
    assert route(row(2, "failed", "broken"), row(1, "failed", "bad")).reason == (9, "broken")


def test_labels_that_are_not_ready_say_why() -> None:
    found = route(row(1, "ready"), row(2, "failed", "broken"), held={"canary": 2}, deferred={"next": 7})
    assert found.labels == {}
    assert found.default == "entry 1"
    assert found.unready["canary"] == (9, "label 'canary' of model 'm' names version 2, which is not ready: broken")
    assert found.unready["next"][0] == 14
    assert "has no version 7" in found.unready["next"][1]


def test_calls_without_a_version_do_not_fall_from_stable_to_another() -> None:
    found = route(row(2, "ready"), row(1, "loading"), held={"stable": 1})
    assert found.versions == ("entry 2",)
    assert found.default is None
    assert found.reason == found.unready["stable"]
    assert found.reason[0] == 14


def test_a_model_without_versions_says_why() -> None:
    assert route(seen=None).reason == (5, "model 'm' is not loaded; load it with RepositoryModelLoad or `infer load`")
    assert route(seen=None, failure="no op").reason == (9, "no op")
    assert route(refusal="bad config").reason == (9, "bad config")
    assert route(row(1, "draining"), seen=None).reason == (14, "model 'm' is being unloaded")
    writing = route(seen=seen("m", {1: "~a", 2: "~b"})).reason
    assert writing == (14, "model 'm' has no whole version yet; still being written, of 1, 2; try again")
    broken = seen("m", {1: "~a", 2: "~b"})
    broken = replace(broken, versions={**broken.versions, 2: replace(broken.versions[2], fault="it is empty")})
    assert route(seen=broken).reason == (9, "model 'm' has no version that can be loaded: it is empty")
    specific = seen("m", {1: "a"}, policy=VersionPolicy("specific", versions=(7,)))
    assert route(seen=specific).reason == (9, "model 'm' has no version to serve: expected version 7, found 1; copy it "
                                              "there, or change the version policy")
    assert route(seen=seen("m")).reason == (9, "model 'm' has no version to serve: expected the latest version, found "
                                               "none; copy it there, or change the version policy")
