"""Live counts, and what a debug build refuses to live with. Each broken invariant is tried in a process of its own."""

import subprocess
import sys

import pytest

from infer._core import _testing_memory as memory
from infer._core import debug

in_debug_builds = pytest.mark.skipif(not debug.ENABLED, reason="release builds neither count nor assert")

OPEN = """
from infer._core import arena
from infer._core import _testing_memory as memory
arena.open(1 << 30, 1 << 30)
"""


def death_of(code: str) -> str:
    """What a process says that runs `code` and must not survive it."""
    process = subprocess.run([sys.executable, "-c", OPEN + code + "\nprint('survived')"], capture_output=True,
                             text=True, check=False)
    assert process.returncode != 0
    assert "survived" not in process.stdout
    return process.stderr


def test_every_kind_is_counted_by_name():
    assert set(debug.live()) == {"block", "request", "stream", "session", "batch"}
    assert all(isinstance(count, int) for count in debug.live().values())


def test_blocks_are_counted_in_debug_builds_only():
    before = debug.live()["block"]
    block = memory.BlockHandle(10)
    assert debug.live()["block"] - before == int(debug.ENABLED)
    del block
    assert debug.live()["block"] == before


@in_debug_builds
@pytest.mark.parametrize("size", [100, 4096, 65536, 1 << 20])
def test_double_free_ends_the_process(size: int):
    said = death_of(f"at = memory.allocate({size}); memory.release(at, {size}); memory.release(at, {size})")
    assert "arena: released twice" in said


@in_debug_builds
@pytest.mark.parametrize(("size", "wrong"), [(100, 200), (4096, 100), (1 << 20, 1 << 16), (1 << 16, 1 << 20)])
def test_release_with_another_class_ends_the_process(size: int, wrong: int):
    said = death_of(f"memory.release(memory.allocate({size}), {wrong})")
    assert "another size" in said


@in_debug_builds
@pytest.mark.parametrize("offset", [64, 1 << 29])
def test_release_of_what_was_never_allocated_ends_the_process(offset: int):
    assert "never allocated" in death_of(f"memory.allocate(100); memory.release({offset}, 100)")


@in_debug_builds
def test_release_from_the_middle_ends_the_process():
    assert "middle" in death_of("memory.release(memory.allocate(256) + 128, 256)")


@in_debug_builds
def test_write_after_free_ends_the_process():
    said = death_of("at = memory.allocate(200); memory.release(at, 200); memory.fill(at + 32, 1, 7)\n"
                    "memory.allocate(200)")
    assert "written to" in said or "AddressSanitizer" in said


@in_debug_builds
@pytest.mark.parametrize(("code", "words"), [
    ("block = memory.BlockHandle(10); block.ref(); block.grow(1000)", "grown while shared"),
    ("memory.BlockHandle(10).view(0, 1000)", "view past the end"),
])
def test_misuse_of_a_block_ends_the_process(code: str, words: str):
    assert words in death_of(code)


def allocated(sizes: list[int]) -> list[bool]:
    """Which of the allocations were granted."""
    offsets = [memory.allocate(size) for size in sizes]
    for offset, size in zip(offsets, sizes, strict=True):
        memory.release(offset, size)
    return [offset != 0 for offset in offsets]


@in_debug_builds
@pytest.mark.parametrize(("nth", "and_on", "granted"), [
    (1, False, [False, True, True, True]), (3, False, [True, True, False, True]), (3, True, [True, True, False, False]),
    (9, True, [True] * 4), (0, True, [True] * 4)])
def test_the_nth_allocation_fails(nth: int, and_on: bool, granted: list[bool]):
    debug.fail_allocation(nth, and_on)
    try:
        assert allocated([100] * 4) == granted
    finally:
        assert debug.fail_allocation(0) == granted.count(False)
    assert allocated([100]) == [True]


@pytest.mark.skipif(debug.ENABLED, reason="debug builds fail allocations on demand")
def test_a_release_build_fails_no_allocation():
    with pytest.raises(RuntimeError, match="debug builds only"):
        debug.fail_allocation(1)
