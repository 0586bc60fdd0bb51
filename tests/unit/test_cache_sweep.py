"""What the cache has forgotten is removed turn by turn of the loop, and once at a time."""

from collections.abc import Callable
from typing import Any

from infer.cache_sweep import CacheSweep


class FakeHandle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Of an event loop what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[[], None], FakeHandle]] = []

    def call_soon(self, work: Callable[[], None]) -> FakeHandle:
        self.calls.append((work, FakeHandle()))
        return self.calls[-1][1]

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for work, handle in calls:
            if not handle.cancelled:
                work()


class FakeCache:
    left = 0

    def sweep(self) -> bool:
        self.left = max(0, self.left - 1)
        return self.left > 0


def made() -> tuple[Any, Any, Any]:
    loop, cache = FakeLoop(), FakeCache()
    return loop, cache, CacheSweep(loop, cache)  # type: ignore[arg-type]


def test_one_at_each_turn_however_often_it_is_asked_to_begin() -> None:
    loop, cache, sweep = made()
    sweep.step()
    assert loop.calls == []
    cache.left = 4
    left = []
    while cache.left:
        for _ in range(3):
            sweep.step()
        left.append(cache.left)
        assert len(loop.calls) == (cache.left > 0)
        loop.turn()
    assert left == [3, 2, 1]
    assert loop.calls == []


def test_nothing_is_removed_after_its_end() -> None:
    loop, cache, sweep = made()
    cache.left = 3
    sweep.step()
    sweep.close()
    loop.turn()
    assert cache.left == 2
