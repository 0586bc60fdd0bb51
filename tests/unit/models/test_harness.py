"""The state table of a model's versions: legal moves only."""

from __future__ import annotations

import itertools

import pytest

from infer.models.harness import Incarnation, Key, State, Table
from infer.models.settings import ModelSettings
from tests.support.puppet_loader import files

LEGAL = {
    ("new", "loading"), ("loading", "loaded"), ("loading", "failed"), ("loaded", "ready"), ("loaded", "draining"),
    ("ready", "draining"), ("failed", "loading"),
}


def row(version: int = 1, fingerprint: str = "a") -> Incarnation:
    return Incarnation(Key(version, fingerprint), files(version, fingerprint), ModelSettings("m"))


@pytest.mark.parametrize(("before", "after"), list(itertools.product(State, State)))
def test_only_legal_moves(before: State, after: State) -> None:
    moving = row()
    moving.state = before
    if (before.value, after.value) in LEGAL:
        moving.move(after)
        assert moving.state is after
    else:
        with pytest.raises(ValueError, match=f"'m' version 1 cannot go from {before.value} to {after.value}"):
            moving.move(after)
        assert moving.state is before


def test_the_reason_of_a_failure_stays_until_a_load_succeeds() -> None:
    failing = row()
    failing.move(State.LOADING)
    failing.failed("no such file", 7)
    assert (failing.reason, failing.attempts, failing.retry_at_ns) == ("no such file", 1, 7)
    failing.move(State.LOADING)
    assert failing.reason == "no such file"
    failing.failed("no memory", 9)
    assert (failing.reason, failing.attempts) == ("no memory", 2)
    failing.move(State.LOADING)
    failing.loaded("entry")
    assert (failing.reason, failing.attempts, failing.entry) == ("", 0, "entry")


def test_what_drains_leaves_its_place_to_the_next_of_its_kind() -> None:
    table = Table()
    first = row()
    table.add(first)
    with pytest.raises(ValueError, match="is there already"):
        table.add(row())
    first.state = State.READY
    assert table.ready() == {1: first}
    assert table.drain(first.key) is first
    table.add(row())
    assert table.ready() == {}
    assert [each.state for each in table] == [State.NEW, State.DRAINING]
    table.forget(first)
    assert [each.state for each in table] == [State.NEW]


@pytest.mark.parametrize("state", [State.LOADING, State.LOADED, State.READY])
def test_what_holds_memory_is_not_forgotten(state: State) -> None:
    table = Table()
    held = row()
    table.add(held)
    held.state = state
    with pytest.raises(ValueError, match="cannot be forgotten"):
        table.forget(held)
    assert table
