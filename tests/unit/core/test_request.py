"""Requests: the transition table, the compare-and-swap along it, and their memory."""

from itertools import product

import pytest

from infer._core import _testing_memory as memory
from infer._core._testing_request import (
    INLINE_VIEWS,
    REQUEST_BYTES,
    SIZE_BYTES,
    STATES,
    RequestBox,
    transition_allowed,
)
from tests.support.puppets import arena_bytes

FOLLOWERS = {
    "RECEIVING": {"QUEUED", "DONE"},
    "QUEUED": {"RUNNING", "DONE"},
    "RUNNING": {"ANSWERED", "DONE"},
    "ANSWERED": {"DONE"},
    "DONE": set(),
}
PATHS = {"RECEIVING": [], "QUEUED": ["QUEUED"], "RUNNING": ["QUEUED", "RUNNING"],
         "ANSWERED": ["QUEUED", "RUNNING", "ANSWERED"], "DONE": ["DONE"]}


@pytest.mark.parametrize(("before", "after"), list(product(STATES, STATES)))
def test_transition_table(before: str, after: str) -> None:
    assert transition_allowed(STATES[before], STATES[after]) == (after in FOLLOWERS[before])


@pytest.mark.parametrize("state", [-1, 5, 31, 32, 64, 1 << 20])
def test_states_that_do_not_exist_have_no_transition(state: int) -> None:
    for known in STATES.values():
        assert not transition_allowed(state, known)
        assert not transition_allowed(known, state)


@pytest.mark.parametrize(("state", "before", "after"), list(product(STATES, STATES, STATES)))
def test_try_transition_swaps_only_from_the_state_it_names(state: str, before: str, after: str) -> None:
    box = RequestBox()
    at = "RECEIVING"
    for step in PATHS[state]:
        assert box.try_transition(STATES[at], STATES[step])
        at = step
    moves = before == state and after in FOLLOWERS[before]
    assert box.try_transition(STATES[before], STATES[after]) == moves
    assert box.state == STATES[after if moves else state]


def test_a_new_request_is_receiving_and_would_be_internal() -> None:
    box = RequestBox()
    assert (box.state, box.code) == (STATES["RECEIVING"], 13)


@pytest.mark.parametrize("count", [0, 1, INLINE_VIEWS, INLINE_VIEWS + 1, 64, 4096])
def test_views_are_inline_while_they_fit_and_go_with_the_request(count: int) -> None:
    before = arena_bytes()
    box = RequestBox()
    assert box.reserve_views(count)
    assert box.views_inline == (count <= INLINE_VIEWS)
    box.free()
    assert arena_bytes() == before


def test_at_the_arenas_limit_there_is_neither_a_request_nor_room_for_views() -> None:
    box = RequestBox()
    limit = memory.set_limit(arena_bytes())
    try:
        with pytest.raises(MemoryError):
            RequestBox()
        assert not box.reserve_views(INLINE_VIEWS + 1)
        assert box.views_inline
        assert box.reserve_views(INLINE_VIEWS)
    finally:
        memory.set_limit(limit)


def test_it_takes_no_more_than_one_size_class() -> None:
    assert SIZE_BYTES <= REQUEST_BYTES
