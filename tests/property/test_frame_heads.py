"""Heads of frames are found however the stream of bytes comes in pieces."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from infer._core._testing_abuse import frame_heads

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
frames = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255), st.integers(0, (1 << 31) - 1)), max_size=20)


@given(frames, st.lists(st.integers(1, 30), max_size=60))
def test_pieces(sent: list[tuple[int, int, int]], sizes: list[int]):
    content = PREFACE + b"".join(
        struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, 0, stream) + bytes(size)
        for size, kind, stream in sent)
    pieces = []
    for size in sizes:
        pieces.append(content[:size])
        content = content[size:]
    assert frame_heads([*pieces, content]) == [(kind, stream) for _, kind, stream in sent]
