"""The manager step by step, over a puppet loader: what each mode serves, asks, labels, failures, edits, deletions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from infer.errors import FailedPrecondition, InferError, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from infer.models.harness import State
from infer.models.loading import Backoff, Bounds, LoadSpec
from infer.models.settings import VersionPolicy
from infer.models.snapshot import ModelSeen
from tests.support.puppet_loader import World, broken, seen

ALL = VersionPolicy("all")
SECOND = 1_000_000_000


def watching(**arguments: Any) -> World:
    return World("watch", arguments)


def explicit(*models: ModelSeen, **arguments: Any) -> World:
    """Models that are known; nothing is loaded but what `start` names."""
    world = World("explicit", arguments)
    world.observe(*models)
    world.run()
    return world


def serving(*models: ModelSeen, **arguments: Any) -> World:
    """A manager that watches, with everything loaded."""
    world = watching(**arguments)
    world.observe(*models)
    world.run()
    return world


def state(world: World, version: int = 1, name: str = "m") -> State:
    report = world.manager.report(name)
    assert report is not None
    return next(each.state for each in report.versions if each.version == version)


# The order of a change.

def test_a_new_version_is_loaded_published_and_only_then_is_the_old_one_closed() -> None:
    world = serving(seen("m", {1: "a"}))
    old = world.table["m"].default
    world.observe(seen("m", {1: "a", 2: "b"}))
    assert [spec.version for spec, _ in world.loader.loads] == [2]
    assert world.served() == {1: "a"}
    published_at_close = []
    world.loader.close = lambda entry, done: published_at_close.append((entry, world.served()))
    world.loader.end_load()
    world.step()
    assert published_at_close == [(old, {2: "b"})]
    assert state(world, 1) is State.DRAINING
    assert world.table["m"].unready["1"][0] == 14


def test_a_changed_directory_is_loaded_beside_what_serves_and_swapped_in_one_table() -> None:
    world = serving(seen("m", {1: "a"}))
    tables = len(world.tables)
    world.observe(seen("m", {1: "b"}))
    world.run()
    assert [route["m"].versions[0].spec.files.fingerprint for route in world.tables[tables - 1:]] == ["a", "b"]
    assert [len(route["m"].versions) for route in world.tables] == [0, 1, 1]


def test_preserving_resources_the_old_version_is_gone_before_the_new_one_is_loaded() -> None:
    world = serving(seen("m", {1: "a"}, availability_preserving=False))
    world.observe(seen("m", {2: "b"}, availability_preserving=False))
    assert world.served() == {}
    assert world.table["m"].reason == (14, "model 'm' version 2 is loading; try again")
    assert world.loader.loads == []
    world.loader.end_close()
    world.step()
    assert [spec.version for spec, _ in world.loader.loads] == [2]
    world.run()
    assert world.served() == {2: "b"}


def test_what_became_unwanted_while_it_loaded_is_closed_unpublished() -> None:
    world = watching()
    world.observe(seen("m", {1: "a"}))
    world.observe(seen("m", {2: "b"}))
    world.run()
    assert world.served() == {2: "b"}
    assert [(entry.spec.version, entry.drained) for entry in world.loader.entries] == [(1, True), (2, False)]
    assert all(1 not in [entry.spec.version for entry in table["m"].versions] for table in world.tables)


def test_loads_are_bounded_and_models_take_turns() -> None:
    world = watching(bounds=Bounds(loading=2))
    world.observe(seen("m", {1: "a", 2: "a", 3: "a"}, policy=ALL), seen("n", {1: "a"}), seen("o", {1: "a"}))
    begun = []
    while world.loader.loads:
        assert len(world.loader.loads) <= 2
        begun.append(world.loader.loads[0][0])
        world.loader.end_load()
        world.step()
    assert sorted(spec.name for spec in begun[:3]) == ["m", "n", "o"]
    assert world.manager.gauges()["models_ready"] == 5
    assert world.manager.gauges()["models_waiting"] == 0


def test_models_with_nothing_ready_are_loaded_first() -> None:
    world = serving(seen("m", {1: "a"}), bounds=Bounds(loading=1))
    world.observe(seen("m", {1: "a", 2: "a", 3: "a"}, policy=ALL))
    world.observe(seen("m", {1: "a", 2: "a", 3: "a"}, policy=ALL), seen("n", {1: "a"}))
    assert [spec.name for spec, _ in world.loader.loads] == ["m"]
    assert world.manager.gauges()["models_waiting"] == 2
    world.loader.end_load()
    world.step()
    assert [spec.name for spec, _ in world.loader.loads] == ["n"]


# Failures.

def test_a_failed_load_takes_nothing_away_and_is_tried_again_later_and_later() -> None:
    world = serving(seen("m", {1: "a"}), backoff=Backoff(SECOND, 4 * SECOND))
    world.good = lambda spec: spec.version == 1
    world.observe(seen("m", {1: "a", 2: "b"}))
    for wait_s in (1, 2, 4, 4):
        world.run()
        assert world.served() == {1: "a"}
        assert world.table["m"].unready["2"] == (9, "model 'm' version 2 is broken")
        assert world.due_ns == world.now_ns + wait_s * SECOND
        world.now_ns += wait_s * SECOND - 1
        world.step()
        assert world.loader.loads == []
        world.now_ns += 1
        world.step()
        assert len(world.loader.loads) == 1
        # The reason is shown while it is tried again, too.
        assert world.table["m"].unready["2"] == (9, "model 'm' version 2 is broken")
    # It is told once, until it changes.
    assert world.told("load") == [(1, "ok"), (2, "failed")]
    world.loader.end_load(error=InferError("no memory", 8))
    world.step()
    assert world.table["m"].unready["2"] == (9, "no memory")
    assert world.told("load")[2:] == [(2, "failed")]
    world.good = lambda spec: True
    world.now_ns += 4 * SECOND
    world.run()
    assert world.served() == {2: "b"}
    assert world.due_ns is None or world.due_ns > world.now_ns


def test_the_time_between_tries_is_bounded_and_jitter_only_shortens_it() -> None:
    full, half = Backoff(SECOND, 60 * SECOND), Backoff(SECOND, 60 * SECOND, jitter=lambda: 0.0)
    assert [full.delay_ns(attempts) // SECOND for attempts in (1, 2, 3, 6, 7, 1000)] == [1, 2, 4, 32, 60, 60]
    assert [half.delay_ns(attempts) * 2 // SECOND for attempts in (1, 2, 7, 1000)] == [1, 2, 60, 60]


def test_a_changed_directory_is_tried_at_once() -> None:
    world = watching()
    world.observe(seen("m", {1: "a"}))
    world.good = lambda spec: spec.files.fingerprint == "b"
    world.run()
    assert world.table["m"].reason == (9, "model 'm' version 1 is broken")
    world.observe(seen("m", {1: "b"}))
    assert world.table["m"].reason == (14, "model 'm' version 1 is loading; try again")
    world.run()
    assert world.served() == {1: "b"}


def test_one_bad_model_blocks_no_other() -> None:
    world = watching(bounds=Bounds(loading=1))
    world.good = lambda spec: spec.name != "bad"
    world.observe(seen("bad", {1: "a", 2: "a", 3: "a"}, policy=ALL), seen("m", {1: "a"}), seen("n", {1: "a"}))
    world.run()
    assert (world.served("m"), world.served("n"), world.served("bad")) == ({1: "a"}, {1: "a"}, {})


def test_a_load_that_ends_twice_is_an_error_of_the_loader() -> None:
    world = watching()
    world.observe(seen("m", {1: "a"}))
    spec, done = world.loader.loads[0]
    world.loader.end_load()
    world.step()
    done(spec, InferError("again"))
    with pytest.raises(KeyError):
        world.step()


# What the repositories hold.

def test_a_version_being_written_is_not_loaded_and_takes_nothing_away() -> None:
    world = serving(seen("m", {1: "a"}))
    world.observe(seen("m", {1: "a", 2: "~b"}))
    assert world.loader.loads == []
    world.observe(seen("m", {1: "~c"}))
    assert (world.loader.loads, world.served()) == ([], {1: "a"})
    world.observe(seen("m", {1: "a"}))
    assert (world.loader.loads, world.served()) == ([], {1: "a"})


def test_a_version_serves_from_memory_when_its_directory_is_deleted() -> None:
    world = serving(seen("m", {1: "a"}))
    world.observe(seen("m"))
    assert world.served() == {1: "a"}
    report = world.manager.report("m")
    assert report is not None
    assert [(each.in_memory_only, each.state) for each in report.versions] == [(True, State.READY)]


def test_a_model_that_is_removed_is_unloaded_and_forgotten() -> None:
    world = serving(seen("m", {1: "a"}), seen("n", {1: "a"}))
    world.observe(seen("n", {1: "a"}))
    assert world.table["m"].reason == (14, "model 'm' is being unloaded")
    assert world.table["m"].unready["1"][1].startswith("model 'm' version 1 is being unloaded")
    world.run()
    assert set(world.table) == {"n"}
    assert world.manager.report("m") is None
    assert [each.name for each in world.manager.reports()] == ["n"]


def test_a_root_that_cannot_be_read_takes_nothing_away() -> None:
    world = serving(seen("m", {1: "a"}))
    world.observe(complete=False)
    world.run()
    assert world.served() == {1: "a"}


def test_a_broken_configuration_changes_nothing_and_is_shown() -> None:
    world = serving(seen("m", {1: "a"}))
    world.observe(seen("m", {1: "b"}, refusal="config.pbtxt:3: bad"),
                  seen("n", {1: "a"}, refusal="config.pbtxt:1: bad"))
    world.run()
    assert world.served() == {1: "a"}
    assert world.table["n"].reason == (9, "config.pbtxt:1: bad")
    assert world.manager.unready() == {"n": "config.pbtxt:1: bad"}
    report = world.manager.report("m")
    assert report is not None
    assert report.refusal == "config.pbtxt:3: bad"
    assert [event.detail for event in world.events if event.kind == "model"] == ["config.pbtxt:3: bad",
                                                                                "config.pbtxt:1: bad"]
    world.observe(seen("m", {1: "b"}), seen("n", {1: "a"}))
    world.run()
    assert (world.served("m"), world.served("n")) == ({1: "b"}, {1: "a"})


def test_a_version_that_drains_may_be_loaded_again_before_it_is_gone() -> None:
    world = explicit(seen("m", {1: "a"}), start=("m",))
    world.manager.ask_unload("m", world.answer, "ann")
    world.step()
    assert (world.answers, world.served()) == ([None], {})
    world.manager.ask_load("m", world.answer, "ann")
    world.step()
    world.loader.end_load()
    world.step()
    assert (world.answers, world.served()) == ([None, None], {1: "a"})
    assert world.manager.gauges()["models_draining"] == 1
    world.run()
    assert world.manager.idle


# Settings.

def test_an_edit_that_needs_no_reload_is_applied_to_what_serves() -> None:
    world = serving(seen("m", {1: "a"}))
    world.observe(seen("m", {1: "a"}, max_queue_delay_us=7))
    assert (world.loader.loads, world.table["m"].default.settings.max_queue_delay_us) == ([], 7)
    assert [(event.outcome, event.detail) for event in world.events if event.kind == "settings"] == [
        ("applied", "max_queue_delay_us")]


def test_an_edit_during_a_load_is_applied_once_that_has_ended() -> None:
    world = watching()
    world.observe(seen("m", {1: "a"}))
    world.observe(seen("m", {1: "a"}, max_queue_delay_us=7))
    world.run()
    assert world.table["m"].default.settings.max_queue_delay_us == 7
    assert len(world.loader.entries) == 1


def test_an_edit_that_needs_a_reload_swaps_and_one_taken_back_does_not() -> None:
    world = serving(seen("m", {1: "a"}))
    first = world.table["m"].default
    world.observe(seen("m", {1: "a"}, instances=2))
    assert world.table["m"].default is first
    world.observe(seen("m", {1: "a"}))
    world.run()
    assert world.table["m"].default is first
    world.observe(seen("m", {1: "a"}, instances=2))
    world.run()
    assert world.table["m"].default.settings.instances == 2
    assert first.drained
    assert [event.outcome for event in world.events if event.kind == "settings"] == ["reload"] * 3


# Labels.

def test_labels_are_deferred_until_ready_and_move_with_the_table() -> None:
    world = serving(seen("m", {1: "a", 2: "a"}, policy=VersionPolicy("specific", versions=(1,)), labels={"stable": 1}))
    assert world.labels() == {"stable": 1}
    world.manager.ask_label("m", "stable", 2, world.answer, "ann")
    world.step()
    assert (world.answers, world.labels()) == ([None], {"stable": 1})
    assert world.table["m"].default.spec.version == 1
    tables = len(world.tables)
    world.run()
    assert world.labels() == {"stable": 2}
    assert world.table["m"].default.spec.version == 2
    assert [table["m"].labels["stable"].spec.version for table in world.tables[tables:]] == [2]
    assert world.told("label") == [(1, "deferred"), (1, "moved"), (2, "deferred"), (2, "moved")]
    assert [event.who for event in world.events if event.kind == "label"] == ["repository"] * 2 + ["ann"] * 2
    # Without the label of run time the settings' holds again.
    world.manager.ask_label("m", "stable", None, world.answer, "ann")
    world.run()
    assert world.labels() == {"stable": 1}


def test_a_label_is_refused_with_its_reason() -> None:
    world = serving(seen("m", {1: "a"}), bounds=Bounds(labels=2))
    for label, version, error in (("1", 1, InvalidArgument), ("a b", 1, InvalidArgument), ("old", 0, InvalidArgument)):
        with pytest.raises(error, match="model 'm'"):
            world.manager.ask_label("m", label, version, world.answer, "ann")
    with pytest.raises(NotFound, match="unknown model 'x'"):
        world.manager.ask_label("x", "stable", 1, world.answer, "ann")
    for label in ("a", "b", "a"):
        world.manager.ask_label("m", label, 1, world.answer, "ann")
    with pytest.raises(ResourceExhausted, match="has 2 labels"):
        world.manager.ask_label("m", "c", 1, world.answer, "ann")


# Modes.

def test_none_serves_what_the_first_look_found() -> None:
    world = World("none")
    world.observe()
    world.observe(seen("m", {1: "~a"}))
    world.run()
    assert world.table["m"].reason is not None
    assert world.table["m"].reason[0] == 14
    world.observe(seen("m", {1: "a"}), seen("n", {1: "a"}))
    world.run()
    assert (world.served("m"), world.served("n")) == ({1: "a"}, {})
    world.observe(seen("m", {2: "b"}))
    world.observe()
    world.run()
    assert world.served("m") == {1: "a"}


@pytest.mark.parametrize("mode", ["none", "watch"])
def test_loads_are_refused_unless_they_were_chosen(mode: str) -> None:
    world = World(mode)
    world.observe(seen("m", {1: "a"}))
    for call in (world.manager.ask_load, world.manager.ask_unload):
        with pytest.raises(FailedPrecondition, match="--model-control-mode explicit"):
            call("m", world.answer, "ann")


def test_explicit_loads_at_the_start_what_it_was_told_to() -> None:
    models = seen("m", {1: "a"}), seen("n", {1: "a"})
    assert explicit(*models).manager.gauges()["models_ready"] == 0
    some = explicit(*models, start=("m", "late"))
    assert (some.served("m"), some.served("n"), set(some.manager.unready())) == ({1: "a"}, {}, {"late"})
    some.observe(*models, seen("late", {1: "a"}))
    some.run()
    assert (some.served("late"), some.manager.unready()) == ({1: "a"}, {})
    every = explicit(*models, start=("*",))
    every.observe(*models, seen("late", {1: "a"}))
    every.run()
    assert every.manager.gauges()["models_ready"] == 2


def test_explicit_changes_nothing_until_it_is_asked() -> None:
    world = explicit(seen("m", {1: "a"}))
    assert world.table["m"].reason == (5, "model 'm' is not loaded; load it with RepositoryModelLoad or `infer load`")
    world.manager.ask_load("m", world.answer, "ann")
    world.step()
    assert world.answers == []
    world.run()
    assert (world.answers, world.served()) == ([None], {1: "a"})
    world.observe(seen("m", {1: "b", 2: "b"}))
    world.run()
    assert world.served() == {1: "a"}
    world.manager.ask_load("m", world.answer, "ann")
    world.run()
    assert (world.answers, world.served()) == ([None, None], {2: "b"})
    assert {event.who for event in world.events} == {"ann"}


def test_a_load_that_fails_is_taken_back_whole() -> None:
    world = explicit(seen("m", {1: "a"}), start=("m",))
    first = world.table["m"].default
    world.observe(seen("m", {1: "b", 2: "b"}, policy=ALL, instances=2))
    world.good = lambda spec: spec.version == 1
    world.manager.ask_load("m", world.answer, "ann")
    world.run()
    (error,) = world.answers
    assert error is not None
    assert (error.code, error.message) == (9, "model 'm' version 2 is broken")
    assert world.table["m"].default is first
    assert world.served() == {1: "a"}
    report = world.manager.report("m")
    assert report is not None
    assert report.failure == "model 'm' version 2 is broken"
    assert world.manager.idle
    assert len([entry for entry in world.loader.entries if not entry.drained]) == 1


def test_the_reason_of_a_failed_load_is_shown_until_another_is_asked_for() -> None:
    world = explicit(seen("m", {1: "a"}))
    world.good = lambda spec: False
    world.manager.ask_load("m", world.answer, "ann")
    world.run()
    world.observe(seen("m", {1: "a"}))
    assert world.table["m"].reason == (9, "model 'm' version 1 is broken")
    assert (world.loader.loads, world.manager.unready()) == ([], {})
    world.good = lambda spec: True
    world.manager.ask_load("m", world.answer, "ann")
    world.step()
    assert world.table["m"].reason == (14, "model 'm' version 1 is loading; try again")
    world.run()
    assert world.served() == {1: "a"}


@pytest.mark.parametrize(("model", "name", "code", "words"), [
    (seen("m", {1: "a"}), "x", 5, "unknown model 'x'"),
    (seen("m"), "m", 5, "no version directory"),
    (seen("m", {1: "a"}, refusal="config.pbtxt:1: bad"), "m", 9, "config.pbtxt:1: bad")])
def test_a_load_that_cannot_be_tried_is_refused(model: ModelSeen, name: str, code: int, words: str) -> None:
    world = explicit(model)
    with pytest.raises(InferError, match=words) as raised:
        world.manager.ask_load(name, world.answer, "ann")
    assert raised.value.code == code
    world.run()
    assert (world.answers, world.manager.gauges()["load_calls_waiting"]) == ([], 0)


@pytest.mark.parametrize(("versions", "policy", "code"), [
    ({1: "~a"}, VersionPolicy(), 14), ({1: "a"}, VersionPolicy("specific", versions=(7,)), 9)])
def test_a_load_that_finds_no_version_fails(versions: dict[int, str], policy: VersionPolicy, code: int) -> None:
    world = explicit(seen("m", versions, policy=policy))
    world.manager.ask_load("m", world.answer, "ann")
    world.run()
    assert [error and error.code for error in world.answers] == [code]


def overlay(model: ModelSeen, override: str) -> ModelSeen:
    if override == "bad":
        raise InvalidArgument("config: bad")
    return ModelSeen(replace(model.settings, instances=int(override)), model.versions)


def test_loads_and_unloads_of_one_model_are_one_after_the_other() -> None:
    world = explicit(seen("m", {1: "a"}), overlay=overlay)
    ask = world.manager
    ask.ask_load("m", world.answer, "ann", "3")
    ask.ask_load("m", world.answer, "bob", "3")
    with pytest.raises(InferError, match="another load of model 'm' is under way") as raised:
        ask.ask_load("m", world.answer, "bob")
    assert raised.value.code == 10
    with pytest.raises(InferError, match="a load of model 'm' is under way") as raised:
        ask.ask_label("m", "stable", 1, world.answer, "bob")
    assert raised.value.code == 10
    ask.ask_unload("m", world.answer, "bob")
    world.step()
    assert [error and error.code for error in world.answers] == [10, 10, None]
    world.run()
    assert world.served() == {}
    assert world.manager.idle


def test_calls_that_wait_for_loads_are_bounded() -> None:
    world = explicit(seen("m", {1: "a"}), seen("n", {1: "a"}), bounds=Bounds(asks=2))
    world.manager.ask_load("m", world.answer, "ann")
    world.manager.ask_load("m", world.answer, "ann")
    assert world.manager.gauges()["load_calls_waiting"] == 2
    with pytest.raises(ResourceExhausted, match="2 calls wait for loads"):
        world.manager.ask_load("n", world.answer, "ann")
    world.run()
    world.manager.ask_load("n", world.answer, "ann")
    world.run()
    assert world.answers == [None] * 3


def test_an_override_holds_over_a_restart() -> None:
    world = explicit(seen("m", {1: "a"}), overlay=overlay)
    with pytest.raises(InvalidArgument, match="config: bad"):
        world.manager.ask_load("m", world.answer, "ann", "bad")
    world.manager.ask_load("m", world.answer, "ann", "3")
    world.run()
    assert world.records[-1] == {"labels": {}, "held": {}, "loaded": {"m": "3"}, "unloaded": []}
    again = explicit(seen("m", {1: "a"}), overlay=overlay, record=world.records[-1])
    assert again.table["m"].default.settings.instances == 3
    broken_since = explicit(seen("m", {1: "a"}), overlay=overlay, record={"loaded": {"m": "bad"}})
    assert broken_since.table["m"].reason == (9, "config: bad")


def test_an_unload_holds_over_a_restart() -> None:
    world = explicit(seen("m", {1: "a"}), start=("m",))
    world.manager.ask_unload("m", world.answer, "ann")
    world.run()
    again = explicit(seen("m", {1: "a"}), start=("m",), record=world.records[-1])
    assert again.served() == {}


def test_stable_holds_over_a_restart_and_calls_do_not_fall_to_a_canary() -> None:
    model = seen("m", {1: "a", 2: "a"})
    world = serving(model)
    world.manager.ask_label("m", "stable", 1, world.answer, "ann")
    world.run()
    again = watching(record=world.records[-1], bounds=Bounds(loading=1))
    again.observe(model)
    assert [spec.version for spec, _ in again.loader.loads] == [1]
    again.good = lambda spec: spec.version == 2
    again.run()
    assert again.served() == {2: "a"}
    assert again.table["m"].default is None
    assert again.table["m"].reason is not None
    assert "label 'stable'" in again.table["m"].reason[1]


# Deleting, stopping, waking.

def test_old_versions_are_given_up_for_deletion_and_not_loaded_meanwhile() -> None:
    model = seen("m", {1: "a", 2: "a", 3: "a", 4: "~a"}, keep_versions=1)
    world = serving(model)
    ages = dict.fromkeys((1, 2, 3, 4), 0.0)
    world.manager.ask_label("m", "old", 2, world.answer, "ann")
    world.run()
    assert world.manager.take_removable("m", ages) == (1,)
    world.manager.ask_label("m", "old", 1, world.answer, "ann")
    world.run()
    assert world.served() == {2: "a", 3: "a"}
    world.manager.removal_failed("m", 1)
    world.run()
    assert world.served() == {1: "a", 3: "a"}
    assert world.manager.take_removable("m", ages) == (2,)
    shared = replace(model, versions={version: replace(each, alone=False) for version, each in model.versions.items()})
    world.observe(shared)
    assert world.manager.take_removable("m", ages) == ()
    world.observe(seen("m", {1: "a", 3: "a"}, keep_versions=1))
    world.observe(model)
    world.manager.ask_label("m", "old", 2, world.answer, "ann")
    world.run()
    assert world.served() == {2: "a", 3: "a"}


def test_stopping_answers_who_waits_and_unloads_everything() -> None:
    world = explicit(seen("m", {1: "a"}), seen("n", {1: "a"}), start=("m",))
    world.manager.ask_load("n", world.answer, "ann")
    world.step()
    world.manager.stop()
    world.step()
    assert [error and error.code for error in world.answers] == [10]
    assert not world.manager.idle
    world.run()
    assert world.manager.idle
    assert all(entry.drained for entry in world.loader.entries)
    assert world.served("m") == {}
    with pytest.raises(Unavailable, match="stopping"):
        world.manager.ask_load("n", world.answer, "ann")


def test_it_asks_to_be_stepped_when_there_is_something_to_do() -> None:
    woken: list[int] = []
    world = World("explicit", {"wake": lambda: woken.append(1)})
    calls: list[Callable[[], object]] = [
        lambda: world.manager.observe(world_snapshot()), lambda: world.manager.ask_load("m", world.answer, "ann"),
        world.loader.end_load, lambda: world.manager.ask_label("m", "stable", 1, world.answer, "ann"),
        lambda: world.manager.ask_unload("m", world.answer, "ann"), world.loader.end_close]
    for count, call in enumerate(calls, 1):
        call()
        assert len(woken) == count
        world.step()
        assert len(woken) == count
    assert world.manager.idle


def world_snapshot() -> Any:
    from tests.support.puppet_loader import snapshot

    return snapshot(seen("m", {1: "a"}))


def test_a_loader_that_answers_at_once_is_served_too() -> None:
    world = watching()

    def load(spec: LoadSpec, done: Callable[[LoadSpec, Any], None]) -> None:
        world.loader.loads.append((spec, done))
        world.loader.end_load(error=None if spec.version == 2 else broken(spec))

    world.loader.load = load
    world.observe(seen("m", {1: "a", 2: "a", 3: "a"}, policy=ALL))
    assert world.served() == {2: "a"}
    assert world.manager.idle


def test_what_was_never_tried_is_pending() -> None:
    world = watching()
    world.observe(seen("m", {1: "a", 2: "a"}, policy=ALL))
    assert world.manager.observed
    assert world.manager.pending == 2
    world.loader.end_load(error=InferError("broken"))
    world.step()
    assert world.manager.pending == 1
    world.loader.end_load()
    world.step()
    assert world.manager.pending == 0
    world.observe(seen("m", {1: "a", 2: "b"}, policy=ALL))
    assert world.manager.pending == 1
