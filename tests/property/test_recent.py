"""Recent against plain Python: of all that was put, what is among the last so many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core.recent import MAX_CAPACITY, Recent

# Few places: chains of the table grow, wrap around its end and close again.
HASHES = [1, 2, 3, 15, 16, 17, 15 + 16, 15 + 32, 2**64 - 1, 2**63 + 15, 2**32 + 2, 14, 7, 8]


@given(capacity=st.integers(1, 9), steps=st.lists(st.tuples(st.sampled_from(HASHES), st.integers(0, 2**64 - 1),
                                                            st.integers(0, 15), st.integers(0, 2**62)), max_size=80))
def test_it_knows_the_last_so_many(capacity: int, steps: list[tuple[int, int, int, int]]) -> None:
    recent = Recent(capacity)
    forgotten = 0
    for done, step in enumerate(steps):
        before = {each[0] for each in steps[max(0, done - capacity):done]}
        recent.put(*step)
        last = steps[max(0, done + 1 - capacity):done + 1]
        known = {each[0]: each[1:] for each in last}
        forgotten += len(before - set(known))
        assert {hash_: recent.find(hash_) for hash_ in HASHES} == {hash_: known.get(hash_) for hash_ in HASHES}
        assert (len(recent), recent.forgotten) == (len(known), forgotten)


@pytest.mark.parametrize("capacity", [0, -1, MAX_CAPACITY + 1])
def test_what_is_no_capacity(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"capacity {capacity}: expected 1 to"):
        Recent(capacity)
