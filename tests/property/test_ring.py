"""The ring against a bounded deque, from any starting index."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from infer._core._testing_ring import RingBox

values = st.integers(0, (1 << 64) - 1)
steps = st.lists(st.one_of(st.none(), values), max_size=200)


@given(st.integers(0, 20), st.one_of(values, st.integers((1 << 64) - 50, (1 << 64) - 1)), steps)
def test_behaves_as_a_bounded_queue(capacity: int, start: int, steps: list[int | None]):
    ring = RingBox(capacity)
    ring.start_at(start)
    model: deque[int] = deque()
    for value in steps:
        if value is None:
            assert ring.take() == (model.popleft() if model else None)
        else:
            room = len(model) < ring.capacity
            assert ring.push(value) == room
            if room:
                model.append(value)
        assert len(ring) == len(model)
    while model:
        assert ring.take() == model.popleft()
    assert ring.take() is None
