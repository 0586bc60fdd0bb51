"""The next step of one model: its order, and what no sequence of steps may do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.models.harness import HOLDING, Key, State
from infer.models.transition import Step, VersionStatus, next_step

A, B = "a", "b"


def row(version: int, state: str, aspired: bool = True, fingerprint: str = A, retry_at_ns: int = 0) -> VersionStatus:
    return VersionStatus(Key(version, fingerprint), State(state), aspired, retry_at_ns)


def step(*table: VersionStatus, availability: bool = True, may_load: bool = True, now_ns: int = 0,
         first: int | None = None) -> tuple[str, int, str] | None:
    chosen = next_step(table, availability=availability, may_load=may_load, now_ns=now_ns, first=first)
    return None if chosen is None else (chosen.action, chosen.key.version, chosen.key.fingerprint)


def test_nothing_to_do() -> None:
    assert step() is None
    assert step(row(1, "ready"), row(2, "ready")) is None
    assert step(row(1, "loading")) is None
    assert step(row(1, "draining", False)) is None


def test_the_highest_new_version_is_loaded_first() -> None:
    assert step(row(1, "new"), row(3, "new"), row(2, "new")) == ("load", 3, A)
    assert step(row(1, "new"), row(3, "new"), first=1) == ("load", 1, A)
    assert step(row(1, "new"), may_load=False) is None


def test_a_failed_version_is_loaded_when_it_is_due_and_after_new_ones() -> None:
    assert step(row(2, "failed", retry_at_ns=10), now_ns=9) is None
    assert step(row(2, "failed", retry_at_ns=10), now_ns=10) == ("load", 2, A)
    assert step(row(2, "failed"), row(1, "new")) == ("load", 1, A)


def test_what_is_loaded_is_published_before_anything_drains() -> None:
    assert step(row(1, "ready", False), row(2, "loaded")) == ("publish", 2, A)
    assert step(row(1, "ready", False), row(2, "ready")) == ("drain", 1, A)
    waiting = next_step([row(1, "ready", False), row(2, "loaded")], availability=True, may_load=True, may_publish=False,
                        now_ns=0)
    assert waiting is None


def test_what_is_no_longer_wanted_ends_unpublished() -> None:
    assert step(row(1, "new", False)) == ("forget", 1, A)
    assert step(row(1, "failed", False)) == ("forget", 1, A)
    assert step(row(1, "loaded", False)) == ("drain", 1, A)
    assert step(row(1, "loading", False)) is None


@pytest.mark.parametrize("state", ["new", "loading", "failed"])
def test_the_old_version_stays_until_the_new_one_is_ready(state: str) -> None:
    table = row(1, "ready", False), row(2, state, retry_at_ns=9)
    assert step(*table, may_load=False) is None
    back = row(2, "ready", False), row(1, state, retry_at_ns=9)
    assert step(*back, may_load=False) is None


@pytest.mark.parametrize("state", ["new", "loading", "failed"])
def test_an_old_incarnation_stays_until_its_successor_is_ready(state: str) -> None:
    table = row(2, "ready", False, A), row(2, state, True, B, 9), row(3, "ready")
    assert step(*table, may_load=False) is None
    assert step(row(2, "ready", False, A), row(2, "ready", True, B), row(3, "ready")) == ("drain", 2, A)


def test_the_default_does_not_fall_back_while_its_successor_loads() -> None:
    assert step(row(1, "ready"), row(4, "ready", False), row(5, "loading")) is None
    assert step(row(3, "ready", False), row(4, "ready"), row(5, "loading")) == ("drain", 3, A)
    # Version 5 was taken away while a lower version cannot be loaded: nothing better is on its way.
    assert step(row(3, "failed", retry_at_ns=9), row(4, "ready"), row(5, "ready", False)) == ("drain", 5, A)


def test_a_model_that_shall_not_be_served_drains() -> None:
    assert step(row(1, "ready", False), row(2, "ready", False)) == ("drain", 1, A)


def test_preserving_resources_the_old_version_drains_first_and_ends_before_a_load() -> None:
    assert step(row(1, "ready", False), row(2, "new"), availability=False) == ("drain", 1, A)
    assert step(row(1, "draining", False), row(2, "new"), availability=False) is None
    assert step(row(1, "loading", False), row(2, "new"), availability=False) is None
    assert step(row(3, "ready"), row(2, "new"), availability=False) == ("load", 2, A)
    assert step(row(2, "ready", False, A), row(2, "new", True, B), availability=False) == ("drain", 2, A)


KEYS = [Key(version, fingerprint) for version in (1, 2, 3) for fingerprint in (A, B)]
# What shall be served: for each version one of its fingerprints, or None.
WANTED = st.tuples(*[st.sampled_from([None, A, B])] * 3)
MOVES = st.lists(st.one_of(
    WANTED.map(lambda wanted: ("want", wanted)), st.tuples(st.just("ok"), st.integers(0, 5)),
    st.tuples(st.just("fail"), st.integers(0, 5)), st.tuples(st.just("drained"), st.integers(0, 5)),
    st.just(("later", 0))), max_size=40)


class Rows:
    """A table that carries out every step at once."""

    def __init__(self, availability: bool) -> None:
        self.rows: list[VersionStatus] = []
        self.availability = availability
        self.now_ns = 0

    def want(self, wanted: tuple[str | None, ...]) -> None:
        keys = {Key(version, mark) for version, mark in enumerate(wanted, 1) if mark}
        self.rows = [replace(each, aspired=each.key in keys and each.state is not State.DRAINING) for each in self.rows]
        there = {each.key for each in self.rows if each.state is not State.DRAINING}
        self.rows += [VersionStatus(key, State.NEW, True) for key in sorted(keys - there)]

    def put(self, key: Key, after: VersionStatus | None, *states: State) -> None:
        at = next(i for i, each in enumerate(self.rows) if each.key == key and each.state in states)
        self.rows[at:at + 1] = [] if after is None else [after]

    def end(self, state: State, index: int, after: State | None) -> None:
        found = [each for each in self.rows if each.state is state]
        if found:
            each = found[index % len(found)]
            new = None if after is None else VersionStatus(each.key, after, each.aspired, self.now_ns + 1)
            self.put(each.key, new, state)

    def run(self) -> list[Step]:
        steps = []
        for _ in range(100):
            chosen = next_step(self.rows, availability=self.availability, may_load=True, now_ns=self.now_ns)
            if chosen is None:
                return steps
            steps.append(chosen)
            aspired = next(e.aspired for e in self.rows if e.key == chosen.key and e.state is not State.DRAINING)
            if chosen.action == "load":
                holding = sum(each.state in HOLDING for each in self.rows)
                assert self.availability or holding < sum(each.aspired for each in self.rows)
                self.put(chosen.key, VersionStatus(chosen.key, State.LOADING, aspired), State.NEW, State.FAILED)
            elif chosen.action == "publish":
                self.put(chosen.key, VersionStatus(chosen.key, State.READY, aspired), State.LOADED)
            elif chosen.action == "drain":
                assert not aspired
                self.put(chosen.key, VersionStatus(chosen.key, State.DRAINING, False), State.READY, State.LOADED)
            else:
                assert not aspired
                self.put(chosen.key, None, State.NEW, State.FAILED)
        raise AssertionError(f"the steps do not end: {steps[-6:]}")

    def ready(self) -> set[int]:
        return {each.key.version for each in self.rows if each.state is State.READY}


@given(MOVES, st.booleans())
def test_no_sequence_takes_the_last_version_away_or_holds_more_than_is_aspired(
        moves: list[tuple[str, object]], availability: bool) -> None:
    table = Rows(availability)
    for move, value in moves:
        before = table.ready()
        if move == "want":
            table.want(value)
        elif move == "later":
            table.now_ns += 10
        else:
            state, after = {"ok": (State.LOADING, State.LOADED), "fail": (State.LOADING, State.FAILED),
                            "drained": (State.DRAINING, None)}[move]
            table.end(state, value, after)
        table.run()
        ready, aspired = table.ready(), {each.key.version for each in table.rows if each.aspired}
        if availability and aspired:
            assert ready or not before
            # Nor does a call that names no version reach a lower one for want of one that still loads.
            assert not before or max(ready) >= min(max(before), max(aspired))
            assert aspired & before <= ready
    # Once nothing changes any more, exactly what is aspired is ready.
    for _ in range(20):
        table.now_ns += 10
        for state, after in ((State.LOADING, State.LOADED), (State.DRAINING, None)):
            table.end(state, 0, after)
        table.run()
    assert all(each.aspired and each.state is State.READY for each in table.rows)
