"""Composition root: builds every part in order, starts, drains, stops.

Order of a start: sockets bound (a conflict ends the program at once), HTTP answers, models load on a thread of their
own, the route table is handed over, gRPC listens, ready. Order of a drain: unready, `drain_delay`, GOAWAY, calls under
way finish within `drain_timeout`, executors stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from infer._core import arena
from infer._core.executor import ExecutorPool
from infer._core.model_version import VersionEntry
from infer._core.ort_runtime import Runtime, give_back_memory
from infer._core.pipeline import Pipeline
from infer._core.router import ModelRoute, RouteTable, route_to_highest
from infer.config import Settings
from infer.config_file import Origin
from infer.cores import Threads, available_cores, memory_limit_bytes, plan_threads, raise_open_files
from infer.errors import ConfigError, InferError, ModelLoadError
from infer.models.effective import LoadOptions
from infer.models.loading import LoadSpec
from infer.models.repository import scan
from infer.models.version_load import load_version
from infer.observe import http as http_pages
from infer.observe.logs import QueuedHandler, configure
from infer.observe.metrics import renderer
from infer.observe.startup import MTLS, PLAINTEXT, TLS, Security, Start, Step, address_text, announce
from infer.proto import DESCRIPTORS
from infer.reload import SettingsReload
from infer.security.audit import AuditLog
from infer.security.tls import Certificates, TlsFiles
from infer.services.bound import ColdBound, with_refusals
from infer.services.call import Changes, Service
from infer.services.control import FixedModels, Repository
from infer.services.health import health_service, health_streams
from infer.services.inference import inference_service
from infer.services.reflection import reflection_service
from infer.state.store import Store
from infer.transport import GRPCIO, Transport, chosen_transport
from infer.versions import nghttp2_version, onnxruntime_version

log = logging.getLogger("infer.server")

FAILED_PRECONDITION = 9
# It carries models, up to --max-message-bytes.
CARRIES_FILES = frozenset({"/inference.GRPCInferenceService/RepositoryModelLoad"})
HEARTBEAT_SECONDS = 0.5
LIVE_SECONDS = 10.0
# A waiting thread asks for the GIL after this long instead of 5 ms: a scrape must not stall the loop, nor the loop it.
SWITCH_SECONDS = 0.0005
ARENA_SHARE = 2
# Address space only; freed chunks keep their size class, so there has to be far more of it than memory.
ARENA_ADDRESS_BYTES = 1 << 40
BUFFERED_SHARE = 4
RUN_FAILURE_SECONDS = 1.0
# How long a connection lives and what its peer may do: for the transport as they are.
CONDUCT_SETTINGS = (
    "preface_timeout", "settings_timeout", "write_stall_timeout", "keepalive_time", "keepalive_timeout",
    "max_connection_idle", "max_connection_age", "max_connection_age_grace", "max_early_resets", "max_stream_errors",
    "max_settings_frames", "max_ping_strikes", "max_empty_frames", "max_oversize_headers", "max_window_updates",
    "max_idle_frames", "max_queued_frames", "max_turn_events")
# A server without calls for so long gives the pages of large requests back.
IDLE_SECONDS = 10.0
IDLE_CACHED_BYTES = 16 << 20
# From the gauge to its name in a transport's snapshot; a transport leaves out what it cannot know.
TRANSPORT_GAUGES = {name: name for name in ("connections", "streams", "refused", "calls_without_te", "buffered_bytes",
                                            "outbound_bytes", "coding_jobs")} | {
    "connections_accepted": "connections_total", "streams_held": "streams_held_total",
    "turns_ended": "turns_ended_total",
    "inflated_bytes": "inflated_bytes_total"}


class Server:
    """One server in this process: the parts and their life. Its methods run on the loop thread unless they say else."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop,
                 dropped_lines: Callable[[], int] = int) -> None:
        self._dropped_lines = dropped_lines
        self.settings = settings
        self.loop = loop
        self.threads: Threads = plan_threads(available_cores(), settings.executors, settings.intra_op)
        self.routes = RouteTable([])
        self.steps: list[Step] = []
        self.failures: dict[str, str] = {}
        self._entries: list[VersionEntry] = []
        self._beat = time.monotonic()
        self._busy = self._beat
        self._heart: asyncio.TimerHandle | None = None
        self._loaded = False
        self._draining = False
        self.stopping = False
        self.changes = Changes()
        if not DESCRIPTORS.is_file():
            raise InferError(f"this installation is not whole: {DESCRIPTORS.name} is missing; install it again")
        self.certificates = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            self.certificates = Certificates(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))
        if settings.model_control_mode not in (None, FixedModels.mode):
            raise ConfigError(f"--model-control-mode {settings.model_control_mode} is not served yet: expected "
                              f"{FixedModels.mode}; leave it out, and restart the server to change its models")
        if settings.model_config_file is not None:
            raise ConfigError("--model-config-file is not served yet: expected none; name the models' directories as "
                              "PATH or with --model-repository")
        self.store = Store(settings.state_dir, max_writes=settings.max_state_writes)
        self.audit = AuditLog(self.store)
        self.repository = Repository(FixedModels(lambda: self.routes), max_calls=settings.max_control_calls,
                                     max_override_bytes=settings.max_override_bytes)
        self.settings_problem: Callable[[], str] = str
        memory = memory_limit_bytes()
        if not arena.stats()["reserved_bytes"]:
            arena.open(ARENA_ADDRESS_BYTES, memory // ARENA_SHARE)
        self.transport_name = chosen_transport(settings.transport)
        try:
            self.sockets = self._bind()
        except OSError:
            self.store.close()
            raise
        self.addresses = [address_of(each) for each in self.sockets]
        try:
            with named(f"{settings.host}:{settings.http_port} (--host, --http-port) for metrics and health"):
                self.http = http_pages.HttpServer(settings.host, settings.http_port, http_pages.pages(self, renderer(
                    self, {"nghttp2": nghttp2_version(), "onnxruntime": onnxruntime_version(),
                           "transport": self.transport_name})))
        except OSError:
            self._unbind()
            self.store.close()
            raise
        self.pool = ExecutorPool(self.threads.executors)
        self.pipeline = Pipeline(loop, self.pool, self.routes)
        self.cold = ColdBound(settings.max_cold_message_bytes)
        handlers = self.cold.over({**inference_service(self), **health_service(self), **health_streams(self),
                                   **reflection_service(self)}, exempt=CARRIES_FILES)
        self.transport = self._transport(handlers, settings.max_buffered_bytes_total or memory // BUFFERED_SHARE)
        self.pipeline.after_turn = self.transport.flush
        self.pipeline.on_run_failure = RunFailures()

    def _transport(self, handlers: Service, process_buffered_bytes: int) -> Transport:
        settings = self.settings
        if self.transport_name == GRPCIO:
            from infer.transport.grpc_aio import GrpcioTransport

            return GrpcioTransport(self.loop, self.pipeline, handlers, settings, process_buffered_bytes)
        from infer.transport.native import NativeTransport

        return NativeTransport(
            self.loop, self.pipeline, handlers,
            header_bytes=settings.header_bytes, max_streams=settings.max_streams,
            max_message_bytes=settings.max_message_bytes, connection_buffered_bytes=settings.max_buffered_bytes,
            process_buffered_bytes=process_buffered_bytes,
            outbound_bytes=settings.outbound_bytes, stream_messages=settings.max_stream_messages,
            stream_outbound_bytes=settings.stream_outbound_bytes,
            reply_compression=settings.reply_compression, coding_jobs=settings.max_coding_jobs,
            max_connections=settings.max_connections or raise_open_files(),
            **{name: getattr(settings, name) for name in CONDUCT_SETTINGS})

    # What services, health and metrics see of the server; `live`, `ready`, `versions` and `gauges` from any thread.

    @property
    def live(self) -> bool:
        """Whether the loop has turned lately."""
        return time.monotonic() - self._beat < LIVE_SECONDS

    @property
    def ready(self) -> bool:
        """Whether every model that was asked for is served and the server is not draining."""
        return self._loaded and not self._draining and not self.failures

    def versions(self) -> list[VersionEntry]:
        return list(self._entries)

    def gauges(self) -> Mapping[str, Any]:
        snapshot = self.transport.snapshot()
        stats = arena.stats()
        tls = {} if self.certificates is None else {
            **({"tls_handshakes": snapshot["tls_handshakes"]} if "tls_handshakes" in snapshot else {}),
            "tls_certificate_problem": int(self.certificates.problem != ""),
            "tls_certificate_expiry": self.certificates.expiry.timestamp(),
        }
        return tls | {
            "ready": int(self.ready),
            "in_flight": self.pipeline.in_flight,
            "queue_rows": {(entry.name.decode(), entry.version): self.pipeline.queued_rows_of(entry)
                           for entry in self._entries},
            "executors": self.threads.executors,
            "executors_busy": self.pool.busy,
            "control_calls": self.repository.under_way,
            "control_refused": self.repository.refused,
            "override_bytes": self.repository.files.held_bytes,
            "state_waiting": self.store.waiting,
            "state_failures": self.store.failures,
            "audit_lost": self.store.dropped,
            "settings_problem": int(self.settings_problem() != ""),
            "log_lines_dropped": self._dropped_lines(),
            **{gauge: snapshot[name] for gauge, name in TRANSPORT_GAUGES.items() if name in snapshot},
            "refused": with_refusals(snapshot.get("refused", {}), self.cold),
            "arena_bytes": {"live": stats["live_bytes"], "high_water": stats["high_water_bytes"],
                            "limit": stats["limit_bytes"]},
            "unrouted": self.pipeline.unrouted_calls(),
        }

    # Start.

    def _bind(self) -> list[socket.socket]:
        """The gRPC sockets, bound and not yet listening. Raises OSError naming the address that is taken."""
        bound: list[socket.socket] = []
        try:
            with named(f"{self.settings.host}:{self.settings.port} (--host, --port)"):
                bound.append(http_pages.bind(self.settings.host, self.settings.port))
            if self.settings.uds is not None:
                with named(f"{self.settings.uds} (--uds)"):
                    bound.append(bind_unix(self.settings.uds))
        except OSError:
            for each in bound:
                each.close()
            raise
        return bound

    def _unbind(self) -> None:
        for each in self.sockets:
            each.close()
        if self.settings.uds is not None:
            self.settings.uds.unlink(missing_ok=True)

    async def start(self) -> None:
        """Loads every model and serves. Raises InferError where none can be served."""
        self.loop.add_reader(self.pool.eventfd, self.pipeline.on_wake)
        self.pool.start()
        self.http.serve()
        self._turn()
        with ThreadPoolExecutor(1, "infer-load") as loader:
            entries = await self.loop.run_in_executor(loader, self._load)
        for entry in entries:
            self.pipeline.attach(entry)
        self._entries = entries
        self.routes = RouteTable(
            [(entry.name.decode(), route_to_highest([entry])) for entry in entries]
            + [(name, ModelRoute(reason=(FAILED_PRECONDITION, reason))) for name, reason in self.failures.items()])
        self.pipeline.set_routes(self.routes)
        with self._timed("listen"):
            await self.transport.listen(self.sockets, self.certificates)
        self._loaded = True
        self.changes.notify()

    def _turn(self) -> None:
        self._beat = time.monotonic()
        memory = arena.stats()
        if self.pipeline.in_flight:
            self._busy = self._beat
        if memory["cached_bytes"] > memory["cached_bound_bytes"]:
            self.loop.run_in_executor(None, arena.trim_surplus)
        elif self._beat - self._busy > IDLE_SECONDS and memory["cached_bytes"] > IDLE_CACHED_BYTES:
            self._busy = self._beat
            self.loop.run_in_executor(None, arena.trim)
        self._heart = self.loop.call_later(HEARTBEAT_SECONDS, self._turn)

    def _load(self) -> list[VersionEntry]:
        """All models of the settings, on the loader's thread. One that fails leaves its reason in `failures`."""
        settings = self.settings
        with self._timed("scan"):
            sources = scan(settings.roots, settings.name)
        with self._timed("runtime"):
            runtime = Runtime(str(settings.onnxruntime_library) if settings.onnxruntime_library else None,
                              self.threads.intra_op)
        options = LoadOptions(
            providers=settings.provider, max_rows=settings.max_batch_size, gather_rows=settings.gather_rows,
            delay_ns=settings.max_queue_delay_us * 1000, queue_limit_rows=settings.max_queue_rows,
            max_running=self.threads.max_running, require_checksums=settings.require_checksums,
            memory_bytes=memory_limit_bytes(), memory_factor=settings.model_memory_factor)
        entries = []
        for source in sources:
            with self._timed(f"load {source.name}"):
                entry = self._load_one(source, runtime, options)
            if entry is not None:
                entries.append(entry)
        give_back_memory()
        if not entries:
            raise ModelLoadError("\n  ".join(["no model could be loaded:", *self.failures.values()]))
        return entries

    def _load_one(self, source: LoadSpec, runtime: Runtime, options: LoadOptions) -> VersionEntry | None:
        try:
            return load_version(source, runtime, options)
        except InferError as error:
            self.failures[source.name] = error.message
            log.error("%s", error.message, extra={"model": source.name, "version": source.version,
                                               "path": str(source.files.path)})
            return None

    @contextlib.contextmanager
    def _timed(self, name: str) -> Any:
        begin = time.perf_counter()
        yield
        self.steps.append(Step(name, (time.perf_counter() - begin) * 1e3))

    def _security(self) -> Security:
        if self.certificates is None:
            return PLAINTEXT
        return TLS if self.settings.tls_client_ca is None else MTLS

    def description(self) -> Start:
        """What the start prints."""
        host, port = self.http.address
        return Start(models=self._entries, executors=self.threads.executors, intra_op=self.threads.intra_op,
                     grpc=self.addresses, http=address_text(host, port), steps=self.steps, failures=self.failures,
                     security=self._security(), transport=self.transport_name)

    # The end.

    async def drain(self, delay: float, timeout: float) -> bool:
        """Unready, `delay` seconds, GOAWAY, at most `timeout` seconds for calls under way; whether all ended."""
        self._draining = True
        self.changes.notify()
        log.info("draining: unready", extra={"delay_s": delay, "in_flight": self.pipeline.in_flight})
        await asyncio.sleep(delay)
        self.stopping = True
        self.changes.notify()
        log.info("draining: GOAWAY", extra={"connections": self.transport.snapshot().get("connections"),
                                            "in_flight": self.pipeline.in_flight})
        drained = await self.transport.drain(timeout)
        log.info("drained" if drained else "drain timed out", extra={"in_flight": self.pipeline.in_flight})
        return drained

    async def stop(self) -> None:
        """Ends everything, calls under way included, and frees what the process shares."""
        self._draining = True
        await self.transport.close()
        await self.repository.close()
        self.pool.stop()
        self.loop.remove_reader(self.pool.eventfd)
        self.pipeline.on_wake()
        self.pipeline.close()
        if self._heart is not None:
            self._heart.cancel()
        for entry in self._entries:
            self.pipeline.detach(entry)
        self._entries = []
        self.http.close()
        self._unbind()
        await self.loop.run_in_executor(None, self.store.close)


class RunFailures:
    """Logs what the runtime said about failed runs: one line per version and second, with how many were left out."""

    def __init__(self) -> None:
        self._last: dict[VersionEntry, float] = {}
        self._left_out: dict[VersionEntry, int] = {}

    def __call__(self, entry: VersionEntry, text: str) -> None:
        now = time.monotonic()
        if now - self._last.get(entry, -RUN_FAILURE_SECONDS) < RUN_FAILURE_SECONDS:
            self._left_out[entry] = self._left_out.get(entry, 0) + 1
            return
        self._last[entry] = now
        log.warning("a run of model %r failed: %s", entry.name.decode(), text, extra={
            "model": entry.name.decode(), "version": entry.version, "left_out": self._left_out.pop(entry, 0)})


@contextlib.contextmanager
def named(what: str) -> Any:
    """Adds what was to be bound to an OSError."""
    try:
        yield
    except OSError as error:
        advice = "; stop what holds it, or choose another" if error.errno == errno.EADDRINUSE else ""
        raise OSError(error.errno, f"cannot bind {what}: {error.strerror}{advice}") from error


def address_of(bound: socket.socket) -> str:
    """Where gRPC is served: host:port or unix:path."""
    name = bound.getsockname()
    return f"unix:{name}" if bound.family == socket.AF_UNIX else address_text(name[0], name[1])


def bind_unix(path: Path) -> socket.socket:
    """A bound Unix socket; one that a dead server left behind is replaced, one that answers is a conflict, and so is
    whatever is not a socket."""
    if path.exists() and not path.is_socket():
        raise OSError(errno.EEXIST, "it is not a socket; choose another path, or remove what is there")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
        except FileNotFoundError:
            pass
        else:
            raise OSError(errno.EADDRINUSE, "another server answers on it")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(os.fspath(path))
    return bound


class Signals:
    """SIGTERM and SIGINT as events: the first asks for a drain, the second for an end at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.first: asyncio.Future[int] = loop.create_future()
        self.second: asyncio.Future[int] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._came, number)

    def _came(self, number: int) -> None:
        for each in (self.first, self.second):
            if not each.done():
                each.set_result(number)
                return


def either(*waited: asyncio.Future[Any]) -> set[asyncio.Future[Any]]:
    return set(waited)


async def serve(settings: Settings, dropped_lines: Callable[[], int], read: Callable[[], Settings]) -> int:
    """Serves until a signal; the process's exit code: 0 drained, 1 ended before its calls did. SIGHUP has `read` give
    the settings as they are now."""
    loop = asyncio.get_running_loop()
    signals = Signals(loop)
    server = Server(settings, loop, dropped_lines)
    reload = SettingsReload(settings, read, server.audit, {
        "log_level": lambda level: logging.getLogger().setLevel(level.upper())})
    server.settings_problem = lambda: reload.problem
    reloads: set[asyncio.Task[None]] = set()

    def on_hangup() -> None:
        task = loop.create_task(reload.run("SIGHUP"))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    try:
        start = loop.create_task(server.start())
        await asyncio.wait(either(start, signals.first), return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            log.info("stopped by a signal while loading")
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            return 0
        await start
        if settings.state_dir is None:
            log.info("no --state-dir: labels, loads and unloads of run time, and the audit log, end with this process")
        announce(server.description(), sys.stdout)
        gc.collect()
        gc.freeze()
        number = await signals.first
        delay = 0.0 if number == signal.SIGINT else reload.settings.drain_delay
        drain = loop.create_task(server.drain(delay, reload.settings.drain_timeout))
        await asyncio.wait(either(drain, signals.second), return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            log.warning("second signal: stopping at once", extra={"in_flight": server.pipeline.in_flight})
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)
            server.transport.end_calls(b"the server was stopped; send the request to another replica")
            return 1
        return 0 if drain.result() else 1
    finally:
        await asyncio.gather(*reloads)
        await server.stop()


def run(settings: Settings, origins: Mapping[str, Origin], read: Callable[[], Settings]) -> int:
    """The whole life of a server process: `infer serve`. `read` gives the settings as they are written later on."""
    import uvloop

    sys.setswitchinterval(SWITCH_SECONDS)
    handler: QueuedHandler = configure(settings.log_level, settings.log_format)
    for name, origin in origins.items():
        if not origin.is_default:
            log.debug("setting %s", name, extra={"value": str(origin.value), "origin": origin.place})
    try:
        loop = uvloop.new_event_loop()
        try:
            return loop.run_until_complete(serve(settings, lambda: handler.dropped, read))
        finally:
            loop.close()
    finally:
        handler.close()
