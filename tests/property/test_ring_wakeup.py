"""The consumer's wake-up under every interleaving: no schedule may leave it asleep with a value in a ring.

First a model in single memory accesses, with a store buffer per thread (what x86 does to a plain store), searched to
the last reachable state; the same search must find the flaw of each protocol that leaves a precaution out. Then the
real ring and waker, run through every order of whole operations.
"""

import select
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from infer._core._testing_ring import RingBox, WakerBox


@dataclass(frozen=True)
class Protocol:
    pushes_first: bool = True          # the producer publishes, then looks at `armed`
    looks_again: bool = True           # the consumer looks once more after arming
    arming_is_visible: bool = True     # ... and does so after its store to `armed` has left the store buffer
    acknowledges_first: bool = True    # the consumer resets the eventfd before it drains


@dataclass(frozen=True)
class Producer:
    at: str
    left: int
    buffered: bool = False             # a push that other threads cannot see yet


@dataclass(frozen=True)
class State:
    waiting: tuple[int, ...]           # values in each ring that the consumer can see
    armed: bool
    buffered_arm: bool                 # a store to `armed` that producers cannot see yet
    event: bool
    producers: tuple[Producer, ...]
    consumer: str = "drain"
    ring: int = 0                      # the ring that the consumer looks at next


def initial(protocol: Protocol, pushes: tuple[int, ...]) -> State:
    first = "push" if protocol.pushes_first else "exchange"
    return State(tuple(0 for _ in pushes), armed=False, buffered_arm=False, event=False,
                 producers=tuple(Producer(first, left) for left in pushes))


def with_producer(state: State, index: int, **changes: object) -> State:
    producers = list(state.producers)
    producers[index] = replace(producers[index], **changes)
    return replace(state, producers=tuple(producers))


def flushed(state: State, index: int) -> State:
    """The buffered push of producer `index` becomes visible."""
    if not state.producers[index].buffered:
        return state
    waiting = list(state.waiting)
    waiting[index] += 1
    return with_producer(replace(state, waiting=tuple(waiting)), index, buffered=False)


def producer_steps(state: State, index: int, protocol: Protocol) -> Iterator[State]:
    producer = state.producers[index]
    if producer.buffered:
        yield flushed(state, index)
    if producer.left == 0:
        return

    def done(state: State) -> State:
        if protocol.pushes_first:
            return with_producer(state, index, at="push", left=producer.left - 1)
        return with_producer(state, index, at="push")

    if producer.at == "push" and not producer.buffered:
        if protocol.pushes_first:
            yield with_producer(state, index, at="exchange", buffered=True)
        else:
            yield with_producer(state, index, at="exchange", buffered=True, left=producer.left - 1)
    elif producer.at == "exchange":
        # An exchange empties its thread's store buffer.
        state = flushed(state, index)
        was_armed = state.armed
        state = replace(state, armed=False)
        yield with_producer(state, index, at="write") if was_armed else done(state)
    elif producer.at == "write":
        yield done(replace(state, event=True))


def consumer_steps(state: State, protocol: Protocol) -> Iterator[State]:
    if state.buffered_arm:
        yield replace(state, buffered_arm=False, armed=True)
    here = state.waiting[state.ring] > 0
    last = state.ring == len(state.waiting) - 1
    if state.consumer == "asleep" and state.event:
        if protocol.acknowledges_first:
            yield replace(state, event=False, consumer="drain", ring=0)
        else:
            yield replace(state, consumer="drain", ring=0)
    elif state.consumer == "drain":
        if here:
            waiting = list(state.waiting)
            waiting[state.ring] -= 1
            yield replace(state, waiting=tuple(waiting))
        elif not last:
            yield replace(state, ring=state.ring + 1)
        else:
            yield replace(state, consumer="arm")
    elif state.consumer == "arm" and not state.buffered_arm:
        visible = protocol.arming_is_visible
        state = replace(state, armed=state.armed or visible, buffered_arm=not visible)
        yield replace(state, consumer="look" if protocol.looks_again else "sleep", ring=0)
    elif state.consumer == "look":
        if here:
            yield replace(state, consumer="drain", ring=0)
        elif not last:
            yield replace(state, ring=state.ring + 1)
        else:
            yield replace(state, consumer="sleep")
    elif state.consumer == "sleep":
        yield replace(state, consumer="asleep", ring=0, event=state.event and protocol.acknowledges_first)


def stuck_states(protocol: Protocol, pushes: tuple[int, ...]) -> tuple[int, list[State]]:
    """How many states can be reached, and those without a next step in which a value waits."""
    start = initial(protocol, pushes)
    seen = {start}
    todo = [start]
    stuck = []
    while todo:
        state = todo.pop()
        steps = [*consumer_steps(state, protocol)]
        for index in range(len(pushes)):
            steps += producer_steps(state, index, protocol)
        if not steps and any(state.waiting):
            stuck.append(state)
        for step in steps:
            if step not in seen:
                seen.add(step)
                todo.append(step)
    return len(seen), stuck


@pytest.mark.parametrize("pushes", [(1,), (2,), (4,), (1, 1), (3, 2), (2, 1, 1)])
def test_no_interleaving_of_memory_accesses_loses_a_wake_up(pushes: tuple[int, ...]):
    reached, stuck = stuck_states(Protocol(), pushes)
    assert reached > 10
    assert stuck == []


@pytest.mark.parametrize("flaw", ["pushes_first", "looks_again", "arming_is_visible", "acknowledges_first"])
def test_the_search_finds_what_each_precaution_prevents(flaw: str):
    _, stuck = stuck_states(Protocol(**{flaw: False}), (2, 1))
    assert stuck


class RealRun:
    """The real ring and waker under one schedule: a number per step says which thread moves."""

    def __init__(self, pushes: tuple[int, ...], looks_again: bool) -> None:
        self.looks_again = looks_again
        self.rings = [RingBox(8) for _ in pushes]
        self.waker = WakerBox()
        self.taken: list[list[int]] = [[] for _ in pushes]
        self.threads = [self.consumer(), *[self.producer(ring, count) for ring, count in
                                           zip(self.rings, pushes, strict=True)]]
        self.asleep = False
        self.finished: set[int] = set()

    def readable(self) -> bool:
        return bool(select.select([self.waker], [], [], 0)[0])

    def producer(self, ring: RingBox, count: int) -> Iterator[None]:
        for value in range(count):
            if value:
                yield
            assert ring.push(value)
            yield
            self.waker.notify()

    def consumer(self) -> Iterator[None]:
        while True:
            found = True
            while found:
                for ring, values in zip(self.rings, self.taken, strict=True):
                    while (value := ring.take()) is not None:
                        values.append(value)
                        yield
                    yield
                self.waker.arm()
                yield
                found = False
                for ring in self.rings if self.looks_again else []:
                    if len(ring):
                        found = True
                        break
                    yield
            self.asleep = True
            while not self.readable():
                yield
            self.asleep = False
            self.waker.acknowledge()
            yield

    def runnable(self) -> list[int]:
        able = [index for index in range(1, len(self.threads)) if index not in self.finished]
        return able if self.asleep and not self.readable() else [0, *able]

    def step(self, index: int) -> None:
        if next(self.threads[index], self) is self:
            self.finished.add(index)

    def close(self) -> None:
        self.waker.close()


def every_schedule(pushes: tuple[int, ...], looks_again: bool = True) -> Iterator[RealRun]:
    """Runs to the end under each schedule in turn, by replay: the last choice that has an alternative moves on."""
    choices: list[tuple[int, int]] = []        # (which was taken, of how many), at each step
    while True:
        run = RealRun(pushes, looks_again)
        position = 0
        while able := run.runnable():
            if position == len(choices):
                choices.append((0, len(able)))
            run.step(able[choices[position][0]])
            position += 1
        yield run
        run.close()
        while choices and choices[-1][0] + 1 == choices[-1][1]:
            choices.pop()
        if not choices:
            return
        choices[-1] = choices[-1][0] + 1, choices[-1][1]


def delivers_all(run: RealRun, pushes: tuple[int, ...]) -> bool:
    return run.asleep and run.taken == [list(range(count)) for count in pushes]


@pytest.mark.parametrize("pushes", [(1,), (2,), (3,), (1, 1)])
def test_the_real_ring_and_waker_deliver_everything_under_every_schedule(pushes: tuple[int, ...]):
    assert all(delivers_all(run, pushes) for run in every_schedule(pushes))


def test_some_schedule_loses_a_value_when_the_consumer_does_not_look_again():
    assert not all(delivers_all(run, (2,)) for run in every_schedule((2,), looks_again=False))
