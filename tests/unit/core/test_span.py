import pytest

from infer._core._testing_memory import SpanCursor


def test_parts_come_in_order_until_nothing_is_left():
    span = SpanCursor(b"abcdef")
    assert span.take(2) == b"ab"
    assert span.take(0) == b""
    assert span.take(4) == b"cdef"
    assert span.left == 0
    assert span.take(0) == b""


@pytest.mark.parametrize("size", [4, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_too_much_is_refused_and_nothing_is_consumed(size: int):
    span = SpanCursor(b"abc")
    assert span.take(size) is None
    assert span.left == 3
