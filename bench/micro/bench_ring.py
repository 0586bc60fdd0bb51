"""A value through a ring, and the consumer's wake-up."""

import threading
from collections.abc import Iterator

from bench.micro.timing import Row, measure
from infer._core import _testing_bench as core


def between_threads(rounds: int) -> int:
    """Nanoseconds until a second thread has taken all that a first one pushed."""
    ring = core.SharedRing()
    producer = threading.Thread(target=ring.push, args=(rounds,))
    producer.start()
    took = ring.take(rounds)
    producer.join()
    return took


def rows() -> Iterator[Row]:
    yield measure("ring", "push + take, one thread", core.ring_pairs)
    yield measure("ring", "push + take, two threads", between_threads, rounds=1_000_000)
    yield measure("ring", "push + notify + take, consumer awake", core.ring_notifies)
    yield measure("ring", "arm + notify + acknowledge, consumer asleep", core.ring_wakes)
