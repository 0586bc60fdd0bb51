"""The pipeline with real ONNX models, without sockets and, unless a test starts them, without threads.

`Bench` puts the real Pipeline between a PuppetTransport and PuppetExecutors, on an event loop whose timers fire when
the test says so. A call is a number; what it was answered stands in `bench.outcomes`.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from infer._core import arena, clock
from infer._core._testing_pipeline import Outcome, PuppetExecutor, PuppetTransport
from infer._core.cache import Cache
from infer._core.executor import ExecutorPool
from infer._core.model_version import TensorInfo, VersionEntry
from infer._core.ort_runtime import Runtime
from infer._core.ort_session import OrtSession
from infer._core.ort_session import attach as attach_session
from infer._core.pipeline import Pipeline
from infer._core.router import ModelRoute, RouteTable, route_to_highest
from infer._core.tenants import Tenants
from infer.quotas import NONE, Quotas
from tests.support.protos import message_class
from tests.support.requests import add_raw, infer_request, pack

MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000

PREFIX_BYTES = 5


@functools.cache
def runtime() -> Runtime:
    return Runtime(None, 1)


@functools.cache
def model_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="puppets-")


def make_entry(model: bytes, name: str = "m", version: str = "1", *, batched: bool = True, max_rows: int = 1024,
               gather_rows: int = 64, delay_ns: int = 0, queue_limit_rows: int = 4096,
               max_running: int = 1, inputs: list[TensorInfo] | None = None,
               outputs: list[TensorInfo] | None = None, **policy: Any) -> VersionEntry:
    """A version that runs `model` in a session of its own; its tensors are the model's, where none are given. `policy`:
    levels, default_level, policies."""
    path = Path(model_folder().name) / f"{hash(model):x}.onnx"
    if not path.exists():
        path.write_bytes(model)
    session = OrtSession(runtime(), path, providers=[("CPUExecutionProvider", {})])
    entry = VersionEntry(name, version, session, inputs or session.inputs, outputs or session.outputs,
                         batched=batched, max_rows=max_rows if batched else 1, gather_rows=gather_rows,
                         delay_ns=delay_ns, queue_limit_rows=queue_limit_rows, max_running=max_running, properties={},
                         **policy)
    attach_session(entry, session)
    return entry


class PuppetTimer:
    def __init__(self, at_ns: int, callback: Callable[[], object]) -> None:
        self.at_ns = at_ns
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class PuppetLoop:
    """An event loop's timers, by the core's clock."""

    def __init__(self) -> None:
        self.timers: list[PuppetTimer] = []

    def call_soon(self, callback: Callable[[], object]) -> PuppetTimer:
        return self.call_later(0.0, callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> PuppetTimer:
        timer = PuppetTimer(clock.now() + round(delay * 1e9), callback)
        self.timers.append(timer)
        return timer

    @property
    def next_ns(self) -> int | None:
        return min((timer.at_ns for timer in self.timers if not timer.cancelled), default=None)

    def fire_due(self) -> int:
        """Calls what is due, and what that makes due; how many timers fired."""
        fired = 0
        while True:
            self.timers = [timer for timer in self.timers if not timer.cancelled]
            due = [timer for timer in self.timers if timer.at_ns <= clock.now()]
            if not due:
                return fired
            first = min(due, key=lambda timer: timer.at_ns)
            self.timers.remove(first)
            first.callback()
            fired += 1


class Bench:
    """Needs the stepped clock (fixture `stepped_clock`) unless no call has a deadline and no model a delay."""

    def __init__(self, *entries: VersionEntry, executors: int = 1,
                 unready: Sequence[tuple[str, tuple[int, str]]] = (), cache: Cache | None = None,
                 quotas: Quotas = NONE, max_tenants: int = 4096, **admission: Any) -> None:
        self.loop = PuppetLoop()
        self.pool = ExecutorPool(executors)
        self.unready = list(unready)
        self.entries: list[VersionEntry] = []
        self.pipeline = Pipeline(cast(Any, self.loop), self.pool, RouteTable([]), Tenants(max_tenants, quotas), cache,
                                 **admission)
        self.transport = PuppetTransport(self.pipeline)
        self.executors = [PuppetExecutor(self.pool, index) for index in range(executors)]
        self.drained: list[VersionEntry] = []
        self.calls = 0
        for entry in entries:
            self.publish(entry)

    # Versions.

    def publish(self, entry: VersionEntry, **cached: int) -> None:
        """`cached`: ttl_ns, model_bytes of its part of the cache, where the bench has one."""
        self.pipeline.attach(entry, cached)
        self.entries.append(entry)
        self.route()

    def route(self) -> None:
        names = dict.fromkeys(entry.name.decode() for entry in self.entries)
        models = [
            (name, route_to_highest([entry for entry in self.entries if entry.name.decode() == name]))
            for name in names]
        self.pipeline.set_routes(RouteTable(models + [(name, ModelRoute(reason=reason))
                                                      for name, reason in self.unready]))

    def unload(self, entry: VersionEntry) -> None:
        """Routes lead to it no more; it goes when its last request has gone."""
        self.entries.remove(entry)
        self.route()
        entry.close(functools.partial(self._drained, entry))

    def _drained(self, entry: VersionEntry) -> None:
        assert entry.handles == 0
        assert self.pipeline.queued_rows_of(entry) == 0
        self.drained.append(entry)
        self.pipeline.detach(entry)

    # Calls.

    def open(self, *, deadline_ns: int = 0, routing_key: bytes = b"") -> int:
        """A call of its own number; 0 ns: no deadline, else the time at which it passes."""
        self.calls += 1
        self.transport.open(self.calls, deadline_ns, routing_key)
        return self.calls

    def call(self, message: bytes, *, deadline_ns: int = 0, lead: int = 0, tenant: bytes | None = None,
             routing_key: bytes = b"") -> int:
        call = self.open(deadline_ns=deadline_ns, routing_key=routing_key)
        if tenant is None or self.transport.identify(call, tenant):
            self.transport.submit(call, message, lead)
        return call

    def advance(self, delta_ns: int) -> None:
        clock.advance(delta_ns)
        self.loop.fire_due()

    def run_all(self) -> int:
        """Runs what can run and hands it out; how many batches."""
        batches = 0
        while sum(executor.step() for executor in self.executors):
            batches += 1
        self.pipeline.on_wake()
        return batches

    # What came of it.

    @property
    def outcomes(self) -> list[Outcome]:
        return self.transport.outcomes

    def outcome(self, call: int) -> Outcome:
        """The call's only outcome."""
        [found] = [outcome for outcome in self.outcomes if outcome.call == call]
        return found

    def answered(self, call: int) -> bool:
        return any(outcome.call == call for outcome in self.outcomes)

    def reply(self, call: int) -> Any:
        """The ModelInferResponse of a call that succeeded."""
        outcome = self.outcome(call)
        assert outcome.code == 0, outcome.message
        return parse_reply(outcome.data)

    def close(self) -> None:
        """Everything has been answered and nothing is left."""
        self.pipeline.on_wake()
        assert self.transport.open_calls == []
        assert self.pipeline.in_flight == 0
        assert (self.pipeline.queued_rows, self.pipeline.queued_requests) == (0, 0)
        for entry in self.entries:
            assert entry.handles == 0
            self.pipeline.detach(entry)
        self.entries = []
        self.pipeline.close()


def parse_reply(data: bytes) -> Any:
    """The message behind its prefix."""
    assert data[0] == 0
    assert int.from_bytes(data[1:PREFIX_BYTES], "big") == len(data) - PREFIX_BYTES
    return message_class("ModelInferResponse").FromString(data[PREFIX_BYTES:])


def fp32_request(values: Sequence[Sequence[float]], model: str = "m", version: str = "", **fields: Any) -> bytes:
    """`x` FP32, a row per inner sequence."""
    request = infer_request(model, model_version=version, **fields)
    add_raw(request, "x", "FP32", [len(values), len(values[0])], pack("FP32", [x for row in values for x in row]))
    return cast(bytes, request.SerializeToString())


def int64_request(values: Sequence[int], model: str = "m", **fields: Any) -> bytes:
    """`x` INT64, one column."""
    request = infer_request(model, **fields)
    add_raw(request, "x", "INT64", [len(values), 1], pack("INT64", values))
    return cast(bytes, request.SerializeToString())


def codes_of(entry: VersionEntry) -> dict[int, int]:
    """Finished requests of a version by gRPC code, those that there were."""
    return {code: count for code, count in enumerate(entry.stats_snapshot((), ())["calls"]) if count}


def rows_of(entry: VersionEntry) -> int:
    return int(entry.stats_snapshot((), ())["rows"])


def arena_bytes() -> int:
    return int(arena.stats()["live_bytes"])
