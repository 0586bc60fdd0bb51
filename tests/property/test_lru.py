"""Lru against plain Python: an OrderedDict by recency, sums of bytes, and the bounds of each model and of all."""

from collections import OrderedDict
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core._testing_lru import EVICTED, OVERWRITTEN, REMOVED, LruBox, table_bytes

LIMIT = 1000
GROUP_LIMITS = (600, 900)
GROUP_OF_PART = (0, 0, 1)
# Few places and few keys at each: chains of the table grow, wrap around its end and close again.
LOWS = [0, 1, 2, 13, 14, 15, 15 + 16, 2**64 - 1, 2**63 + 15]
KEYS = st.tuples(st.sampled_from(LOWS), st.integers(0, 2))
PARTS = st.integers(0, len(GROUP_OF_PART) - 1)


@dataclass
class Model:
    """Oldest first: key -> (number, size, part)."""

    known: OrderedDict[tuple[int, int], tuple[int, int, int]] = field(default_factory=OrderedDict)
    gone: list[tuple[int, int]] = field(default_factory=list)
    evicted: list[int] = field(default_factory=lambda: [0] * len(GROUP_OF_PART))
    group_of: list[int] = field(default_factory=lambda: list(GROUP_OF_PART))

    def bytes_of(self, group: int | None = None) -> int:
        return sum(size for _, size, part in self.known.values() if group is None or self.group_of[part] == group)

    def leave(self, key: tuple[int, int], reason: int) -> None:
        number, _, part = self.known.pop(key)
        self.gone.append((number, reason))
        if reason == EVICTED:
            self.evicted[part] += 1

    def victim(self, part: int, size: int, limit_entries: int) -> tuple[int, int] | None:
        group = self.group_of[part]
        if self.bytes_of(group) + size > GROUP_LIMITS[group]:
            return next(key for key, value in self.known.items() if self.group_of[value[2]] == group)
        if self.bytes_of() + size > LIMIT or len(self.known) >= limit_entries:
            return next(iter(self.known))
        return None

    def put(self, number: int, key: tuple[int, int], size: int, part: int, limit_entries: int) -> bool:
        if size > min(LIMIT, GROUP_LIMITS[self.group_of[part]]):
            return False
        if key in self.known:
            self.leave(key, OVERWRITTEN)
        while (victim := self.victim(part, size, limit_entries)) is not None:
            self.leave(victim, EVICTED)
        self.known[key] = number, size, part
        return True


STEPS = st.lists(st.one_of(
    st.tuples(st.just("put"), KEYS, st.integers(0, 1100), PARTS), st.tuples(st.just("put"), KEYS, st.just(90), PARTS),
    st.tuples(st.just("get"), KEYS), st.tuples(st.just("peek"), KEYS), st.tuples(st.just("remove"), KEYS),
    st.tuples(st.just("clear"), PARTS, st.integers(0, 4)), st.tuples(st.just("move"), PARTS, st.integers(0, 1))),
    max_size=120)


@given(STEPS)
def test_against_an_ordered_dict(steps: list[tuple]) -> None:
    box = LruBox(LIMIT, 90, GROUP_LIMITS, GROUP_OF_PART)
    model = Model()
    for number, (step, *said) in enumerate(steps):
        if step == "put":
            key, size, part = said
            if size <= min(LIMIT, GROUP_LIMITS[model.group_of[part]]):
                victim = model.victim(part, size, box.limit_entries)
                assert box.victim(part, size) == (None if victim is None else model.known[victim][0])
            assert box.put(number, *key, size, part) == model.put(number, key, size, part, box.limit_entries)
        elif step == "clear":
            own = [key for key, value in model.known.items() if value[2] == said[0]]
            for key in own[:said[1]]:
                model.leave(key, REMOVED)
            assert box.clear(*said) == (len(own) > said[1])
        elif step == "move":
            model.group_of[said[0]] = said[1]
            box.move(*said)
        else:
            key = said[0]
            found = model.known[key][0] if key in model.known else None
            if step == "remove" and found is not None:
                model.leave(key, REMOVED)
                box.remove(*key)
            elif step == "get":
                assert box.get(*key) == found
                if found is not None:
                    model.known.move_to_end(key)
            else:
                assert box.peek(*key) == found
        assert box.order() == [each for each, _, _ in model.known.values()]
        assert box.gone == model.gone
        assert box.bytes == model.bytes_of() <= LIMIT
        assert [box.group_bytes(group) for group in (0, 1)] == [model.bytes_of(group) for group in (0, 1)]
        for part in range(len(GROUP_OF_PART)):
            own = [size for _, size, of in model.known.values() if of == part]
            assert box.of_part(part) == (sum(own), len(own), model.evicted[part])
        assert all(box.peek(*key) == value[0] for key, value in model.known.items())
    assert box.evictions == sum(model.evicted)


def test_a_part_that_is_dropped_takes_its_own_along() -> None:
    box = LruBox(LIMIT, 10, (LIMIT,), (0, 0))
    for number in range(6):
        box.put(number, number, 0, 10, number % 2)
    box.drop(0)
    assert box.order() == [1, 3, 5]
    assert (box.group_bytes(0), box.entries) == (30, 3)


def test_no_more_entries_than_its_table_has_room_for() -> None:
    box = LruBox(1000, 100)
    for number in range(100):
        assert box.put(number, number * 7, number, 0)
        assert box.entries <= box.limit_entries
    assert box.entries == box.limit_entries == 12
    assert box.order() == list(range(88, 100))


@pytest.mark.parametrize(("limit", "least"), [(1, 1), (1000, 100), (1 << 28, 512), (100, 1000)])
def test_the_table_holds_what_the_bytes_hold(limit: int, least: int) -> None:
    slots = table_bytes(limit, least) // 16
    assert slots * 3 // 4 >= limit // least
    assert slots & (slots - 1) == 0
    assert slots == 16 or slots * 3 // 8 < limit // least
