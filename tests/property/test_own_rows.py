"""Each caller gets exactly its own rows, under any interleaving of submit, cancel, deadline, failure, connection loss
and unload: FAULTS 1.8, and F2 to F5, F14, F17 and F18 on the way.

Every request carries values that no other has. Its reply must be what its version makes of exactly those, bit by bit;
a call that failed must have failed for a reason of its own; one that was cancelled hears nothing; and nothing stays
alive. Together the simulations make 100,000 requests in a release build.
"""

from __future__ import annotations

import gc
import random
import select
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from infer._core import clock, debug
from infer._core._testing_pipeline import Outcome
from infer._core.model_version import VersionEntry
from tests.support.models import EMBEDDING_TABLE, gather, identity, scale, string_join, two_in_three_out
from tests.support.puppets import MILLISECOND_NS, Bench, arena_bytes, codes_of, make_entry, parse_reply, rows_of
from tests.support.requests import add_raw, infer_request, pack

OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 3, 4, 5
RESOURCE_EXHAUSTED, INTERNAL = 8, 13
SHARE = 20 if debug.ENABLED else 1
CONNECTIONS = 8
BAD_ID = 99
WATCHDOG_MS = 60_000
LONGEST_DEADLINE_NS = 100 * MILLISECOND_NS


@dataclass
class Sent:
    """A call, and what its reply must be."""

    connection: int
    deadline_ns: int
    model: str = ""
    request_id: str = ""
    rows: int = 0
    expected: tuple[bytes, ...] = ()     # raw outputs; of `scale`, before it scales
    fails: bool = False                  # its values fail the model
    unknown: bool = False                # its model does not exist
    full: bool = False                   # its queue had no room
    entry: VersionEntry | None = None    # that it was routed to


# What is sent. Each fills in `rows` and `expected` and returns the message.


def floats(number: int, rows: int, columns: int) -> np.ndarray:
    """Values that tell call, row and column; integers, so that scaling them by powers of two is exact."""
    return np.arange(rows * columns, dtype=np.float32).reshape(rows, columns) + np.float32(number % 100_000 * 64)


def send_identity(rng: random.Random, number: int, sent: Sent) -> bytes:
    sent.rows, columns = rng.choice([1, 1, 1, 2, 3, 7]), rng.choice([1, 4, 4, 4, 5, 1_500])
    sent.expected = (floats(number, sent.rows, columns).tobytes(),)
    request = infer_request("identity", id=sent.request_id)
    add_raw(request, "x", "FP32", [sent.rows, columns], sent.expected[0])
    return bytes(request.SerializeToString())


def send_scale(rng: random.Random, number: int, sent: Sent) -> bytes:
    sent.rows = rng.choice([1, 1, 2, 5])
    sent.expected = (floats(number, sent.rows, 4).tobytes(),)
    request = infer_request("scale", id=sent.request_id)
    add_raw(request, "x", "FP32", [sent.rows, 4], sent.expected[0])
    return bytes(request.SerializeToString())


def send_gather(rng: random.Random, number: int, sent: Sent) -> bytes:
    ids = [(number + i) % 10 for i in range(rng.choice([1, 1, 2, 4]))]
    sent.rows, sent.expected = len(ids), (EMBEDDING_TABLE[ids].tobytes(),)
    if rng.random() < 0.1:
        sent.fails = True
        ids[rng.randrange(len(ids))] = BAD_ID
    request = infer_request("gather", id=sent.request_id)
    add_raw(request, "x", "INT64", [len(ids), 1], pack("INT64", ids))
    return bytes(request.SerializeToString())


def send_strings(rng: random.Random, number: int, sent: Sent) -> bytes:
    pairs = [[b"%d" % number * rng.choice([0, 1, 40]), b"\0%d" % row] for row in range(rng.choice([1, 1, 3]))]
    sent.rows, sent.expected = len(pairs), (pack("BYTES", [each for pair in pairs for each in pair * 2]),)
    request = infer_request("strings", id=sent.request_id)
    add_raw(request, "x", "BYTES", [len(pairs), 2], pack("BYTES", [each for pair in pairs for each in pair]))
    return bytes(request.SerializeToString())


def send_several(rng: random.Random, number: int, sent: Sent) -> bytes:
    """Two inputs and some of the outputs."""
    sent.rows = rng.choice([1, 2, 3])
    x, z = floats(number, sent.rows, 4), floats(number, sent.rows, 2) - np.float32(3_200_000)
    outputs = {"y": np.hstack([x, z]).tobytes(), "v": (z > 0).tobytes()}
    names = rng.choice([["y"], ["v"], ["y", "v"]])
    sent.expected = tuple(outputs[name] for name in names)
    request = infer_request("several", id=sent.request_id)
    add_raw(request, "x", "FP32", [sent.rows, 4], x.tobytes())
    add_raw(request, "z", "FP32", [sent.rows, 2], z.tobytes())
    for name in names:
        request.outputs.add(name=name)
    return bytes(request.SerializeToString())


SENDERS: dict[str, Callable[[random.Random, int, Sent], bytes]] = {
    "identity": send_identity, "scale": send_scale, "gather": send_gather, "strings": send_strings,
    "several": send_several}


def factor(version: str) -> np.float32:
    return np.float32(2.0 ** (int(version) % 8))


class Simulation:
    """Random steps of callers, connections, clock, executors and operator, all from one seed."""

    def __init__(self, seed: int, *, executors: int, threads: bool) -> None:
        self.rng = random.Random(seed)
        self.threads = threads
        # Threads would measure their runs by a clock that is moved meanwhile.
        self.bench = Bench(executors=executors, judge_deadlines=not threads)
        self.bench.transport.on_finish = self.finished
        self.routed: dict[str, VersionEntry] = {}
        self.entries: list[VersionEntry] = []        # all that there ever were
        self.limits: dict[VersionEntry, int] = {}    # rows that their queues hold
        for model in SENDERS:
            self.publish(model)
        self.calls: dict[int, Sent] = {}             # not ended yet
        self.receiving: list[int] = []               # opened; some have ended since
        self.submitted = 0
        self.opened = 0
        self.ends: Counter[int] = Counter()
        self.ran = [False] * executors
        self.problems: list[str] = []
        self.poll = select.poll()
        self.poll.register(self.bench.pool.eventfd, select.POLLIN)
        if threads:
            self.bench.pool.start()

    def publish(self, model: str) -> None:
        version = str(int(self.routed[model].version) + 1) if model in self.routed else "1"
        content = {"identity": lambda: identity("FP32", ("batch", "length")), "scale": lambda: scale(factor(version)),
                   "gather": gather, "strings": string_join, "several": two_in_three_out}[model]()
        limit = self.rng.choice([16, 64, 4096])
        # A sleeping thread's time is the system's, not the stepped clock's.
        delay_ns = 0 if self.threads else self.rng.choice([0, 0, 0, 3 * MILLISECOND_NS])
        entry = make_entry(content, model, version, gather_rows=self.rng.choice([1, 4, 8, 64]), delay_ns=delay_ns,
                           max_running=self.rng.choice([1, 1, 2, 3]), queue_limit_rows=limit)
        self.limits[entry] = limit
        self.entries.append(entry)
        self.bench.publish(entry)
        self.routed[model] = entry

    # What came back.

    def finished(self, outcome: Outcome) -> None:
        self.bench.outcomes.clear()
        sent = self.calls.pop(outcome.call, None)
        self.ends[outcome.code] += 1
        problem = "it has ended already" if sent is None else self.problem(outcome, sent)
        if problem:
            self.problems.append(f"{problem}: {outcome!r} of {sent!r}")

    def problem(self, outcome: Outcome, sent: Sent) -> str:
        code = outcome.code
        if code == OK:
            return self.problem_of_reply(outcome, sent)
        if code == DEADLINE_EXCEEDED:
            return "" if 0 < sent.deadline_ns <= clock.now() else "its deadline has not passed"
        if code == NOT_FOUND:
            return "" if sent.unknown else "its model is known"
        if code == RESOURCE_EXHAUSTED:
            return "" if sent.full and outcome.pushback_ms >= 1 else "its queue had room"
        if code in (INVALID_ARGUMENT, INTERNAL) and sent.fails:
            return ""
        # The clock moves while threads bisect a batch, so they may run out of time for it.
        if self.threads and code == INTERNAL and sent.model == "gather" and "is not known" in outcome.message:
            return ""
        return "it should have succeeded"

    def problem_of_reply(self, outcome: Outcome, sent: Sent) -> str:
        if sent.fails or sent.unknown or sent.entry is None or (sent.full and not self.threads):
            return "it should have failed"
        reply = parse_reply(outcome.data)
        if (reply.model_name, reply.model_version, reply.id) != (sent.model, sent.entry.version, sent.request_id):
            return f"answered as {reply.model_name} {reply.model_version} id {reply.id!r}"
        expected = sent.expected
        if sent.model == "scale":
            expected = ((np.frombuffer(expected[0], np.float32) * factor(sent.entry.version)).tobytes(),)
        if tuple(reply.raw_output_contents) != expected:
            return "other rows than its own"
        return "" if all(each.shape[0] == sent.rows for each in reply.outputs) else "another number of rows"

    # Steps.

    def open(self) -> None:
        ahead = self.rng.choice([None] * 8 + [0, 1, 5, 20, 2 * LONGEST_DEADLINE_NS // MILLISECOND_NS])
        deadline_ns = 0 if ahead is None else clock.now() + ahead * MILLISECOND_NS // 2
        self.opened += 1
        self.calls[self.opened] = Sent(self.rng.randrange(CONNECTIONS), deadline_ns)
        self.bench.open(deadline_ns=deadline_ns)
        self.receiving.append(self.opened)

    def submit(self) -> None:
        if not self.receiving:
            return
        at = self.rng.randrange(len(self.receiving))
        self.receiving[at], self.receiving[-1] = self.receiving[-1], self.receiving[at]
        number = self.receiving.pop()
        sent = self.calls.get(number)
        if sent is None:
            return
        sent.model = self.rng.choice(list(SENDERS))
        sent.request_id = f"call {number}" if self.rng.random() < 0.5 else ""
        message = SENDERS[sent.model](self.rng, number, sent)
        if self.rng.random() < 0.01:
            sent.unknown, message = True, bytes(infer_request("nobody").SerializeToString())
        else:
            sent.entry = self.routed[sent.model]
            queued, limit = self.bench.pipeline.queued_rows_of(sent.entry), self.limits[sent.entry]
            # Threads may have taken some of it since.
            sent.full = queued > 0 and queued + sent.rows > limit
        self.submitted += 1
        self.bench.transport.submit(number, message, self.rng.randrange(8))

    def cancel(self, number: int) -> None:
        """By its caller; the transport has forgotten those that ended."""
        if self.calls.pop(number, None) is not None:
            self.ends[CANCELLED] += 1
            self.bench.transport.cancel(number)

    def cancel_one(self) -> None:
        if self.calls:
            # The younger half: most of the older calls are of a kind that waits for the clock.
            numbers = list(self.calls)
            self.cancel(self.rng.choice(numbers[len(numbers) // 2:]))

    def lose_connection(self) -> None:
        lost = self.rng.randrange(CONNECTIONS)
        for number in [number for number, sent in self.calls.items() if sent.connection == lost]:
            self.cancel(number)

    def advance(self) -> None:
        self.bench.advance(self.rng.choice([100_000, MILLISECOND_NS, 4 * MILLISECOND_NS]))

    def execute(self) -> None:
        """One step of one puppet executor: it takes a batch, runs it, or publishes it."""
        if self.threads:
            self.bench.transport.kick()
            return
        index = self.rng.randrange(len(self.bench.executors))
        executor = self.bench.executors[index]
        if not executor.taken:
            executor.take()
        elif not self.ran[index]:
            executor.run()
            self.ran[index] = True
        else:
            executor.publish()
            self.ran[index] = False

    def wake(self) -> None:
        if self.poll.poll(0):
            self.bench.pipeline.on_wake()
        self.bench.loop.fire_due()

    def roll_out(self) -> None:
        """The next version of a model takes the place of this one, which is unloaded when its calls have ended."""
        model = self.rng.choice(list(SENDERS))
        before = self.routed[model]
        self.publish(model)
        self.bench.unload(before)

    def run(self, requests: int) -> None:
        steps: list[Callable[[], None]] = [self.open, self.submit, self.cancel_one, self.lose_connection, self.advance,
                                           self.execute, self.wake, self.roll_out]
        weights = [300, 300, 15, 1, 30, 250, 60, 1]
        while self.submitted < requests and not self.problems:
            self.rng.choices(steps, weights)[0]()
        self.finish()

    def finish(self) -> None:
        """No more calls: those under way end by themselves, with the clock's help where a batch waits for more, or a
        request that is late waits for its deadline."""
        while self.receiving:
            self.submit()
        if self.threads:
            self.bench.advance(2 * LONGEST_DEADLINE_NS)
        while self.bench.pipeline.in_flight and not self.problems:
            if self.threads:
                self.bench.transport.kick()
                assert self.poll.poll(WATCHDOG_MS), f"never run: {self.calls}"
                self.wake()
                continue
            self.bench.advance(MILLISECOND_NS)
            for _ in range(3 * len(self.bench.executors)):
                self.execute()
            self.wake()

    def close(self) -> None:
        if self.threads:
            self.bench.pool.stop()
        assert self.problems == []
        assert self.calls == {}
        assert set(self.bench.drained) | set(self.bench.entries) == set(self.entries)
        assert len(self.bench.drained) + len(self.bench.entries) == len(self.entries)
        counted = Counter({code: count for code, count in enumerate(self.bench.pipeline.unrouted_calls()) if count})
        for entry in self.entries:
            counted.update(codes_of(entry))
        assert counted == self.ends
        assert sum(rows_of(entry) for entry in self.entries) >= self.ends[OK]
        self.bench.close()


def simulate(seed: int, requests: int, *, executors: int, threads: bool) -> Counter[int]:
    gc.collect()
    before = arena_bytes()
    simulation = Simulation(seed, executors=executors, threads=threads)
    simulation.run(requests // SHARE)
    simulation.close()
    ends = simulation.ends
    del simulation
    gc.collect()
    assert arena_bytes() == before
    return ends


@pytest.mark.parametrize("seed", range(8))
def test_stepped_executors(stepped_clock: None, seed: int) -> None:
    ends = simulate(seed, 8_000, executors=1 + seed % 4, threads=False)
    if SHARE == 1:
        assert min(ends[code] for code in (OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND)) > 0
        assert ends[OK] > ends.total() // 3


@pytest.mark.parametrize("seed", range(100, 104))
def test_executor_threads(stepped_clock: None, seed: int) -> None:
    ends = simulate(seed, 10_000, executors=1 + seed % 4, threads=True)
    if SHARE == 1:
        # How many beside it are refused or too late is up to the threads.
        assert min(ends[code] for code in (OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED)) > 0
