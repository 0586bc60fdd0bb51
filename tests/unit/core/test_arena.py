import gc
import random
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from infer._core import _testing_memory as memory
from infer._core import arena

KIB = 1 << 10
MIB = 1 << 20
CACHE_BOUND = 64 * MIB


@pytest.fixture(autouse=True)
def everything_released() -> Iterator[None]:
    gc.collect()        # what an earlier test left to the collector holds memory that must not go while this one counts
    before = arena.stats()["live_bytes"]
    yield
    assert arena.stats()["live_bytes"] == before
    arena.trim()


def answer_of(code: str) -> str:
    """Output of a process that starts with no arena."""
    head = "from infer._core import arena\nfrom infer._core import _testing_memory as memory\n"
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=True).stdout


def test_size_classes_are_powers_of_two():
    classes = {0: 128, 1: 128, 128: 128, 129: 256, 256: 256, 257: 512, 4097: 8192}
    assert {size: memory.class_bytes(size) for size in classes} == classes
    largest = memory.SMALLEST_BYTES << memory.CLASSES - 1
    assert memory.class_bytes(largest) == largest
    assert memory.class_bytes(largest + 1) == 0


@pytest.mark.parametrize("size", [1 << 46, (1 << 46) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_absurd_sizes_are_refused_and_counted(size: int):
    failures = arena.stats()["failures"]
    assert memory.allocate(size) == 0
    assert arena.stats()["failures"] == failures + 1


@pytest.mark.parametrize("size", [0, 1, 128, 4 * KIB, 64 * KIB, MIB])
def test_live_bytes_are_whole_classes(size: int):
    before = arena.stats()["live_bytes"]
    offset = memory.allocate(size)
    assert arena.stats()["live_bytes"] - before == memory.class_bytes(size)
    assert offset % (4096 if size >= 4096 else 64) == 0
    memory.release(offset, size)
    assert arena.stats()["live_bytes"] == before


def test_releasing_nothing_is_let_pass():
    memory.release(0, 100)


@pytest.mark.parametrize("size", [128, 32 * KIB, 64 * KIB, 2 * MIB])
def test_the_chunk_freed_last_is_used_first(size: int):
    offsets = [memory.allocate(size) for _ in range(3)]
    for offset in offsets:
        memory.release(offset, size)
    again = [memory.allocate(size) for _ in range(3)]
    assert again == offsets[::-1]
    for offset in again:
        memory.release(offset, size)


def test_the_limit_is_exact():
    before = memory.set_limit(arena.stats()["live_bytes"] + 4 * KIB)
    try:
        failures = arena.stats()["failures"]
        first, second = memory.allocate(2 * KIB), memory.allocate(2 * KIB)
        assert first
        assert second
        assert memory.allocate(1) == 0
        assert arena.stats()["failures"] == failures + 1
        memory.release(second, 2 * KIB)
        second = memory.allocate(2 * KIB)
        assert second
        memory.release(first, 2 * KIB)
        memory.release(second, 2 * KIB)
    finally:
        memory.set_limit(before)


def test_a_limit_below_what_lives_refuses_and_nothing_wraps():
    offset = memory.allocate(MIB)
    before = memory.set_limit(1000)
    assert memory.allocate(128) == 0
    memory.set_limit(before)
    memory.release(offset, MIB)


def test_free_pages_are_bounded_and_the_rest_given_back():
    offsets = [memory.allocate(MIB) for _ in range(100)]
    for offset in offsets:
        memory.fill(offset, MIB, 1)
    for offset in offsets:
        memory.release(offset, MIB)
    assert arena.stats()["cached_bytes"] >= 100 * MIB
    arena.trim_surplus()
    assert CACHE_BOUND - MIB < arena.stats()["cached_bytes"] <= CACHE_BOUND
    again = {memory.allocate(MIB) for _ in range(100)}
    assert again == set(offsets)
    emptied = sum(memory.read(offset + 8 * KIB, 1) == b"\0" for offset in again)
    assert emptied == 100 - CACHE_BOUND // MIB
    for offset in again:
        memory.release(offset, MIB)


def test_live_and_cached_pages_together_are_bounded_at_once():
    offsets = [memory.allocate(MIB) for _ in range(100)]
    for offset in offsets:
        memory.release(offset, MIB)
    before = memory.set_limit(memory_in_use() + 8 * MIB)
    larger = memory.allocate(4 * MIB)
    assert larger
    assert arena.stats()["cached_bytes"] <= 8 * MIB - 4 * MIB + CACHE_BOUND
    memory.release(larger, 4 * MIB)
    assert arena.stats()["cached_bytes"] <= 8 * MIB + CACHE_BOUND
    memory.set_limit(before)


def memory_in_use() -> int:
    return int(arena.stats()["live_bytes"])


def test_trim_gives_back_every_free_large_page():
    offset = memory.allocate(MIB)
    memory.fill(offset, MIB, 1)
    memory.release(offset, MIB)
    assert arena.stats()["cached_bytes"] >= MIB
    arena.trim()
    assert arena.stats()["cached_bytes"] == 0
    assert memory.allocate(MIB) == offset
    assert memory.read(offset, MIB) == bytes(MIB)
    memory.release(offset, MIB)


def test_pages_of_the_class_in_use_are_kept_when_another_class_fills_the_cache():
    burst = [memory.allocate(MIB) for _ in range(CACHE_BOUND // MIB)]
    for offset in burst:
        memory.release(offset, MIB)
    for _ in range(3):
        offset = memory.allocate(8 * MIB)
        memory.fill(offset, 8 * MIB, 1)
        memory.release(offset, 8 * MIB)
    offset = memory.allocate(8 * MIB)
    assert memory.read(offset + MIB, 1) == b"\1"
    memory.release(offset, 8 * MIB)


def test_a_steady_load_takes_no_more_address_space():
    sizes = [random.Random(3).choice([100, 700, 5000, 70_000, MIB]) for _ in range(500)]

    def one_round() -> None:
        offsets = [(memory.allocate(size), size) for size in sizes]
        random.Random(4).shuffle(offsets)
        for offset, size in offsets:
            memory.release(offset, size)

    one_round()
    carved = arena.stats()["carved_bytes"]
    for _ in range(20):
        one_round()
    assert arena.stats()["carved_bytes"] == carved


def test_threads_never_share_a_chunk():
    before = arena.stats()["live_bytes"]
    kept: list[bool] = []
    threads = [threading.Thread(target=lambda tag=tag: kept.append(memory.churn(200_000, tag))) for tag in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept == [True] * 4
    assert arena.stats()["live_bytes"] == before


def test_threads_that_give_back_pages_never_share_a_chunk():
    kept: list[bool] = []
    threads = [threading.Thread(target=lambda tag=tag: kept.append(memory.churn(3_000, tag, slots=40, largest_log2=23)))
               for tag in range(1, 4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        arena.trim()
    for thread in threads:
        thread.join()
    assert kept == [True] * 3
    arena.trim_surplus()
    assert arena.stats()["cached_bytes"] <= CACHE_BOUND


def test_opening_again_with_the_same_sizes_does_nothing():
    before = arena.stats()
    arena.open(before["reserved_bytes"], before["limit_bytes"])
    assert arena.stats() == before


def test_opening_again_with_other_sizes_is_an_error_that_says_both():
    stats = arena.stats()
    with pytest.raises(RuntimeError, match=rf"{stats['reserved_bytes']}.*{stats['limit_bytes']}.*cannot be opened"):
        arena.open(stats["reserved_bytes"], stats["limit_bytes"] - 1)


@pytest.mark.parametrize(("reserved", "limit"), [(0, 0), (65536, 65536), (1 << 47, 1), (1 << 63, 1), (MIB, 2 * MIB)])
def test_sizes_that_make_no_sense_are_refused(reserved: int, limit: int):
    code = f"try: arena.open({reserved}, {limit})\nexcept ValueError as error: print(error)\n"
    assert answer_of(code).startswith("arena: reserved_bytes must be")


def test_nothing_is_handed_out_before_the_arena_is_open():
    assert answer_of("print(memory.allocate(1)); arena.trim(); print(set(arena.stats().values()))") == "0\n{0}\n"


@pytest.mark.parametrize("size", [100, 40_000, 65_536, 300_000])
def test_the_end_of_the_address_space_is_a_refusal(size: int):
    code = f"""
arena.open(4 << 20, 4 << 20)
offsets = []
while offset := memory.allocate({size}):
    memory.fill(offset, {size}, 1)
    offsets.append(offset)
assert len(set(offsets)) == len(offsets)
assert max(offsets) + {size} <= 4 << 20
assert arena.stats()["failures"] == 1
for offset in offsets:
    memory.release(offset, {size})
assert arena.stats()["live_bytes"] == 0
assert arena.stats()["high_water_bytes"] == len(offsets) * memory.class_bytes({size})
assert sum(1 for _ in offsets if memory.allocate({size})) == len(offsets)
print("good")
"""
    assert answer_of(code) == "good\n"


def test_a_forked_child_cannot_reach_the_chunks():
    code = """
import os, signal
arena.open(1 << 20, 1 << 20)
offset = memory.allocate(100)
child = os.fork()
if child == 0:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    memory.fill(offset, 1, 1)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0)
"""
    assert answer_of(code) == "True\n"
