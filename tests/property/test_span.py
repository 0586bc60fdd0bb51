"""The read cursor against slicing."""

from hypothesis import given
from hypothesis import strategies as st

from infer._core._testing_memory import SpanCursor


@given(st.binary(max_size=300), st.lists(st.one_of(st.integers(0, 40), st.integers(0, (1 << 64) - 1))))
def test_takes_what_slicing_takes_and_refuses_what_is_not_there(data: bytes, sizes: list[int]):
    span = SpanCursor(data)
    at = 0
    for size in sizes:
        part = span.take(size)
        if size > len(data) - at:
            assert part is None
        else:
            assert part == data[at:at + size]
            at += size
        assert span.left == len(data) - at
