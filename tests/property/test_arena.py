"""The arena against a dict of live chunks: no overlap, alignment, exact accounting, the limit, and contents kept."""

import gc
from bisect import insort
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from infer._core import _testing_memory as memory
from infer._core import arena

CACHE_BOUND = 64 << 20
LARGEST = memory.SMALLEST_BYTES << memory.CLASSES - 1

sizes = st.one_of(
    st.integers(0, 600),
    st.integers(0, 200_000),
    st.integers(0, 4 << 20),
    st.integers(7, 24).flatmap(lambda log2: st.integers((1 << log2) - 1, (1 << log2) + 1)),
    st.integers(0, (1 << 64) - 1),
)


@pytest.fixture(autouse=True)
def nothing_else_lets_go() -> Iterator[None]:
    """What earlier tests left in cycles gives its memory back before, and nothing does during a run."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def expected_class(size: int) -> int:
    """Power of two from 128 that holds `size`; 0: there is none."""
    chunk = memory.SMALLEST_BYTES
    while chunk < size:
        chunk *= 2
    return chunk if chunk <= LARGEST else 0


class ArenaModel(RuleBasedStateMachine):
    chunks = Bundle("chunks")

    def __init__(self) -> None:
        super().__init__()
        self.before = arena.stats()
        self.live: dict[int, tuple[int, int]] = {}
        self.starts: list[int] = []
        self.live_bytes = 0
        self.refused = 0
        self.limit = 16 << 20
        self.limit_before = memory.set_limit(self.before["live_bytes"] + self.limit)

    @rule(target=chunks, size=sizes)
    def allocate(self, size: int) -> int:
        chunk = expected_class(size)
        assert memory.class_bytes(size) == chunk
        offset = memory.allocate(size)
        if not chunk or self.live_bytes + chunk > self.limit:
            assert offset == 0
            self.refused += 1
            return 0
        assert offset > 0
        assert offset % (4096 if chunk >= 4096 else 64) == 0
        insort(self.starts, offset)
        at = self.starts.index(offset)
        if at:
            below = self.starts[at - 1]
            assert below + expected_class(self.live[below][0]) <= offset
        if at + 1 < len(self.starts):
            assert offset + chunk <= self.starts[at + 1]
        assert offset + chunk <= self.before["reserved_bytes"]
        tag = offset // 128 % 251
        self.live[offset] = size, tag
        self.live_bytes += chunk
        memory.fill(offset, size, tag)
        return offset

    @rule(offset=consumes(chunks))
    def release(self, offset: int) -> None:
        if offset not in self.live:      # refused, or gone with all the others
            return
        size, tag = self.live.pop(offset)
        self.starts.remove(offset)
        assert memory.read(offset, size) == bytes([tag]) * size
        memory.release(offset, size)
        self.live_bytes -= expected_class(size)

    @rule()
    def trim(self) -> None:
        arena.trim()
        assert arena.stats()["cached_bytes"] == 0

    @rule(limit=st.integers(0, 32 << 20))
    def change_limit(self, limit: int) -> None:
        self.limit = limit
        memory.set_limit(self.before["live_bytes"] + limit)
        arena.trim_surplus()

    @precondition(lambda self: self.live)
    @rule()
    def release_all(self) -> None:
        for offset, (size, _) in self.live.items():
            memory.release(offset, size)
        self.live.clear()
        self.starts.clear()
        self.live_bytes = 0

    @invariant()
    def accounts_agree(self) -> None:
        stats = arena.stats()
        assert stats["live_bytes"] == self.before["live_bytes"] + self.live_bytes
        assert stats["high_water_bytes"] >= stats["live_bytes"]
        room = stats["limit_bytes"] + CACHE_BOUND - stats["live_bytes"]
        assert 0 <= stats["cached_bytes"] <= max(CACHE_BOUND, room)
        assert stats["failures"] == self.before["failures"] + self.refused
        assert stats["live_bytes"] + stats["cached_bytes"] <= stats["carved_bytes"] <= stats["reserved_bytes"]

    def teardown(self) -> None:
        self.release_all()
        memory.set_limit(self.limit_before)


TestArena = ArenaModel.TestCase
TestArena.settings = settings(max_examples=150, stateful_step_count=60)
