"""The ring of replicas against a plain model of its words, and what it does to keys when replicas come and go."""

from __future__ import annotations

import random
from collections import Counter
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core.hash_ring import HashRing

POINTS = 160
SOURCE = random.Random(0)
KEYS = [SOURCE.getrandbits(64) for _ in range(30_000)]
NAMES = [f"infer-{index}:8001" for index in range(12)]


def owners(ring: HashRing, keys: list[int] = KEYS, down: str = "") -> list[str]:
    up = [name != down for name in ring.names]
    loads = [0] * len(up)
    return [ring.names[ring.owner(key, up, loads)] for key in keys]


def modelled(names: list[str], key: int, up: list[bool], loads: list[int]) -> int:
    points = sorted((int.from_bytes(blake2b(f"{name}\0{k}".encode(), digest_size=8).digest(), "big"), index)
                    for index, name in enumerate(sorted(names)) for k in range(POINTS))
    alive = [load for is_up, load in zip(up, loads, strict=True) if is_up]
    if not alive:
        return -1
    bound = max(32.0, 125 * (sum(alive) + 1) / (100.0 * len(alive)))
    around = [index for place, index in points if place >= key] + [index for place, index in points if place < key]
    reached = [index for index in around if up[index]]
    return next((index for index in reached if loads[index] < bound), reached[0])


@given(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True), key=st.integers(0, 2**64 - 1),
       data=st.data())
def test_it_does_what_its_words_say(names: list[str], key: int, data: st.DataObject) -> None:
    up = data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    loads = data.draw(st.lists(st.integers(0, 100), min_size=len(names), max_size=len(names)))
    ring = HashRing(names)
    assert ring.names == tuple(sorted(names))
    assert ring.owner(key, up, loads) == modelled(names, key, up, loads)


@pytest.mark.parametrize("count", [2, 3, 12])
def test_each_has_its_part_and_names_in_any_order_make_the_same_ring(count: int) -> None:
    found = owners(HashRing(NAMES[:count]))
    assert found == owners(HashRing(NAMES[:count][::-1]))
    shares = Counter(found)
    assert all(0.7 / count <= shares[name] / len(KEYS) <= 1.3 / count for name in NAMES[:count])


@pytest.mark.parametrize("count", [3, 12])
def test_one_that_goes_moves_its_own_keys_alone(count: int) -> None:
    ring = HashRing(NAMES[:count])
    before, without = owners(ring), owners(ring, down=NAMES[1])
    moved = [one for one, other in zip(before, without, strict=True) if one != other]
    assert set(moved) == {NAMES[1]}
    assert len(moved) / len(KEYS) <= 1 / count + 0.05
    # As if it had never been there: one that is down and one that is gone are alike.
    assert without == owners(HashRing([name for name in NAMES[:count] if name != NAMES[1]]))


def test_the_same_everywhere_and_for_ever() -> None:
    """Replicas of different releases stand side by side."""
    found = owners(HashRing(["a:1", "b:1", "c:1"]), list(range(0, 2**64, 2**60)))
    assert "".join(name[0] for name in found) == "bbacacbabbacabac"


def test_what_is_too_much_for_one_goes_to_the_next() -> None:
    ring = HashRing(NAMES[:3])
    up = [True] * 3
    loads = [0, 0, 0]
    for key in KEYS[:3_000]:
        loads[ring.owner(KEYS[0], up, loads)] += 1
        assert key >= 0
        # One key alone: no replica has more than a quarter more than its part, and one.
        assert max(loads) <= max(32, 1.25 * (sum(loads) + 1) / 3 + 1)


def test_none_is_up() -> None:
    assert HashRing(NAMES[:2]).owner(5, [False, False], [0, 0]) == -1


def test_a_name_that_comes_twice() -> None:
    with pytest.raises(ValueError, match="named twice: a:1, a:1"):
        HashRing(["a:1", "a:1"])
