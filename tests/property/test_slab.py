"""slab against a plain model: live pieces keep their bytes, do not overlap; what is freed is kept within its bound."""

from itertools import pairwise

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infer._core import debug
from infer._core._testing_slab import Piece, calloc_overflows, kept_bytes, trim

SIZES = st.one_of(st.integers(0, 200), st.integers(0, 3000), st.sampled_from([63, 64, 65, 1023, 1024, 1025, 70000]))
KEPT_PER_CLASS = 4096


class SlabMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.live: list[tuple[Piece, bytes]] = []
        self.next_byte = 1

    def fill(self, piece: Piece) -> tuple[Piece, bytes]:
        self.next_byte = self.next_byte % 255 + 1
        piece.fill(self.next_byte)
        return piece, bytes([self.next_byte]) * piece.size_bytes

    @rule(size=SIZES)
    def malloc(self, size: int) -> None:
        self.live.append(self.fill(Piece(size)))

    @rule(size=SIZES)
    def calloc(self, size: int) -> None:
        piece = Piece(size, zeroed=True)
        assert piece.content() == bytes(size)
        self.live.append(self.fill(piece))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), size=SIZES)
    def realloc(self, data: st.DataObject, size: int) -> None:
        index = data.draw(st.integers(0, len(self.live) - 1))
        piece, content = self.live[index]
        piece.resize(size)
        kept = min(size, len(content))
        assert piece.content()[:kept] == content[:kept]
        self.live[index] = self.fill(piece)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        piece, content = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        assert piece.content() == content
        piece.free()

    @rule()
    def trim(self) -> None:
        trim()
        assert kept_bytes() == 0

    @invariant()
    def live_pieces_are_whole_and_apart(self) -> None:
        ranges = sorted((piece.address, piece.address + piece.size_bytes) for piece, _ in self.live)
        assert all(end <= start for (_, end), (start, _) in pairwise(ranges))
        assert all(piece.content() == content for piece, content in self.live)
        assert all(piece.address % 16 == 0 for piece, _ in self.live)

    def teardown(self) -> None:
        for piece, _ in self.live:
            piece.free()
        trim()


TestSlab = SlabMachine.TestCase


def test_what_is_kept_is_bounded_and_comes_back() -> None:
    trim()
    pieces = [Piece(40) for _ in range(KEPT_PER_CLASS + 100)]
    for piece in pieces:
        piece.free()
    if debug.ENABLED:
        assert kept_bytes() == 0
        return
    assert kept_bytes() == KEPT_PER_CLASS * (64 + 16)
    again = Piece(64)
    assert kept_bytes() == (KEPT_PER_CLASS - 1) * 80
    again.free()
    trim()
    assert kept_bytes() == 0


@pytest.mark.parametrize(("count", "size"), [(1 << 33, 1 << 33), ((1 << 64) - 1, 2), (1, (1 << 64) - 8)])
def test_calloc_refuses_what_overflows(count: int, size: int) -> None:
    assert calloc_overflows(count, size)
