import gc

import pytest

from infer._core import _testing_memory as memory
from infer._core import arena
from infer._core.block import BlockView


def test_a_block_may_use_its_whole_class():
    block = memory.BlockHandle(1)
    assert block.capacity_bytes == memory.class_bytes(1) - memory.HEADER_BYTES
    assert memory.BlockHandle(4096 - 64).capacity_bytes == 4096 - 64
    assert memory.BlockHandle(4096 - 63).capacity_bytes == 8192 - 64


def test_a_new_block_is_empty_and_aligned():
    block = memory.BlockHandle(1000)
    assert block.data == b""
    assert block.count == 1
    assert block.offset % 64 == 0


@pytest.mark.parametrize("capacity", [1 << 46, (1 << 63) - 1, (1 << 64) - 1])
def test_absurd_capacities_are_refused(capacity: int):
    with pytest.raises(MemoryError):
        memory.BlockHandle(capacity)
    block = memory.BlockHandle(10)
    block.append(b"kept")
    assert not block.grow(capacity)
    assert block.data == b"kept"


def test_the_last_reference_frees():
    before = arena.stats()["live_bytes"]
    block = memory.BlockHandle(1000)
    block.ref()
    block.unref()
    assert arena.stats()["live_bytes"] > before
    block.unref()
    assert arena.stats()["live_bytes"] == before
    memory.unref_null()


def test_growing_keeps_the_data_and_frees_the_old_block():
    before = arena.stats()["live_bytes"]
    block = memory.BlockHandle(100)
    block.append(b"x" * 100)
    old = block.offset
    assert block.grow(block.capacity_bytes)
    assert block.offset == old
    assert block.grow(100_000)
    assert block.offset != old
    assert block.data == b"x" * 100
    assert arena.stats()["live_bytes"] - before == block.capacity_bytes + memory.HEADER_BYTES


def test_growing_at_the_limit_keeps_the_old_block():
    block = memory.BlockHandle(100)
    block.append(b"kept")
    before = memory.set_limit(arena.stats()["live_bytes"])
    try:
        assert not block.grow(1000)
    finally:
        memory.set_limit(before)
    assert block.data == b"kept"


def test_a_view_is_a_read_only_buffer_over_part_of_the_block():
    block = memory.BlockHandle(100)
    block.append(b"0123456789")
    view = block.view(2, 5)
    assert bytes(view) == b"23456"
    assert len(view) == 5
    assert memoryview(view).readonly
    with pytest.raises(TypeError):
        memoryview(view)[0] = 1
    assert bytes(block.view(0, 0)) == b""


def test_a_view_keeps_the_block_until_its_last_buffer_is_gone():
    before = arena.stats()["live_bytes"]
    block = memory.BlockHandle(100)
    block.append(b"0123456789")
    view = block.view(0, 10)
    assert block.count == 2
    first, second = memoryview(view), memoryview(view)[3:5]
    del view
    block.unref()
    assert bytes(first) == b"0123456789"
    first.release()
    assert bytes(second) == b"34"
    assert arena.stats()["live_bytes"] > before
    second.release()
    del first, second
    gc.collect()
    assert arena.stats()["live_bytes"] == before


def test_views_are_not_made_in_python():
    with pytest.raises(TypeError, match="core alone"):
        BlockView()
    with pytest.raises(BufferError):
        memoryview(BlockView.__new__(BlockView))
