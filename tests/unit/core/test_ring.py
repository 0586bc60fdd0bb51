import select
import threading

import pytest

from infer._core._testing_ring import RingBox, WakerBox, produce

LOST = 60      # seconds after which a wake-up counts as lost; never waited for when none is


def drain(ring: RingBox) -> list[int]:
    taken = []
    while (value := ring.take()) is not None:
        taken.append(value)
    return taken


@pytest.mark.parametrize(("asked", "got"), [(0, 1), (1, 1), (2, 2), (3, 4), (1000, 1024), (1024, 1024)])
def test_capacity_is_the_next_power_of_two(asked: int, got: int):
    assert RingBox(asked).capacity == got


@pytest.mark.parametrize("capacity", [(1 << 32) + 1, 1 << 63, (1 << 64) - 1])
def test_an_absurd_capacity_is_refused(capacity: int):
    with pytest.raises(MemoryError):
        RingBox(capacity)


def test_a_full_ring_refuses_and_keeps_what_it_has():
    ring = RingBox(4)
    assert [ring.push(value) for value in range(5)] == [True] * 4 + [False]
    assert len(ring) == 4
    assert ring.take() == 0
    assert ring.push(9)
    assert drain(ring) == [1, 2, 3, 9]
    assert ring.take() is None


def test_indices_may_wrap():
    ring = RingBox(4)
    ring.start_at((1 << 64) - 2)
    for turn in range(10):
        assert ring.push(turn)
        assert ring.push(turn + 100)
        assert len(ring) == 2
        assert drain(ring) == [turn, turn + 100]
    assert [ring.push(value) for value in range(5)] == [True] * 4 + [False]


def readable(waker: WakerBox) -> bool:
    return bool(select.select([waker], [], [], 0)[0])


def test_only_the_first_notify_after_arming_wakes():
    waker = WakerBox()
    waker.notify()
    assert not readable(waker)
    waker.arm()
    waker.notify()
    assert readable(waker)
    assert not waker.armed
    waker.acknowledge()
    assert not readable(waker)
    waker.notify()
    assert not readable(waker)
    waker.acknowledge()


def test_closing_twice_is_let_pass():
    waker = WakerBox()
    waker.close()
    waker.close()
    assert waker.fileno() == -1


@pytest.mark.parametrize("burst", [1, 3, 1000])
@pytest.mark.parametrize("producers", [1, 2])
def test_no_wake_up_is_lost_between_threads(burst: int, producers: int):
    """The consumer sleeps on the eventfd alone: one lost wake-up, and it never comes back."""
    count = 20_000
    waker = WakerBox()
    rings = [RingBox(64) for _ in range(producers)]
    waker.arm()
    threads = [threading.Thread(target=produce, args=(ring, waker, index * count, count, burst))
               for index, ring in enumerate(rings)]
    for thread in threads:
        thread.start()
    taken: list[list[int]] = [[] for _ in rings]
    while sum(map(len, taken)) < count * producers:
        assert select.select([waker], [], [], LOST)[0], "a wake-up was lost"
        waker.acknowledge()
        found = True
        while found:
            for ring, values in zip(rings, taken, strict=True):
                values += drain(ring)
            waker.arm()
            found = any(len(ring) for ring in rings)
    for thread in threads:
        thread.join()
    assert taken == [list(range(index * count, (index + 1) * count)) for index in range(producers)]
