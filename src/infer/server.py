"""Composition root: builds every part in order, starts, drains, stops.

Order of a start: sockets bound (a conflict ends the program at once), HTTP answers, models load on threads of their
own, the route table is handed over, gRPC listens, ready. Order of a drain: unready, `drain_delay`, GOAWAY, calls under
way finish within `drain_timeout`, executors stop, models unload.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from infer._core import arena, clock
from infer._core.cache import Cache
from infer._core.executor import ExecutorPool
from infer._core.fallback import answers
from infer._core.model_version import VersionEntry
from infer._core.no_inference import NoInference
from infer._core.ort_runtime import Runtime
from infer._core.pipeline import Pipeline
from infer._core.request import RequestSink
from infer._core.router import RouteTable
from infer._core.second_level import SecondLevel
from infer._core.shadow import ShadowPool
from infer._core.tenants import Tenants
from infer.adaptive_limit import AdaptiveLimit
from infer.admin_port import AdminPort
from infer.cache_file import CacheFile
from infer.cache_redis import RedisLevel, connect, read_secret
from infer.cache_sweep import CacheSweep
from infer.config import Settings
from infer.config_admission import CACHE_BYTES
from infer.cores import Threads, available_cores, memory_limit_bytes, plan_threads, raise_open_files
from infer.errors import InferError
from infer.experiment_control import ExperimentClock
from infer.gauges import server_gauges
from infer.lifecycle import Models
from infer.models.breaker_settings import server_breaker
from infer.models.effective import LoadOptions
from infer.models.loader import Loader
from infer.models.settings import ModelSettings, written_experiments, written_shadows, written_splits
from infer.observe import http as http_pages
from infer.observe.failures import BreakerLog, RunFailures, log_stopped_run
from infer.observe.metrics import renderer
from infer.observe.startup import MTLS, PLAINTEXT, TLS, Security, Start, Step, address_text
from infer.proto import DESCRIPTORS
from infer.quotas import NONE, Quotas
from infer.rollout_control import RolloutModels, Rollouts
from infer.security.audit import AuditLog
from infer.security.tls import Certificates, TlsFiles
from infer.services.admin import admin_service
from infer.services.admin_capture import capture_rpcs
from infer.services.admin_experiment import experiment_rpcs
from infer.services.admin_rollout import rollout_service
from infer.services.admin_shadow import shadow_rpcs
from infer.services.admin_split import split_rpcs
from infer.services.bound import ColdBound
from infer.services.call import Changes, Handler, Service
from infer.services.control import Repository
from infer.services.health import health_service, health_streams
from infer.services.inference import inference_service
from infer.services.overrides import OverrideFiles
from infer.services.reflection import reflection_service
from infer.slo import STEP_SECONDS, SloController
from infer.sockets import address_of, bind_all, named
from infer.state.store import Store
from infer.traffic.captures import Captures
from infer.traffic.outcomes import Outcomes
from infer.traffic.shadows import Shadows
from infer.traffic.splits import Splits
from infer.transport import GRPCIO, Transport, chosen_transport
from infer.versions import NOT_BUILT, TO_BUILD, native_is_built, nghttp2_version, onnxruntime_version

log = logging.getLogger("infer.server")

# It carries models, up to --max-message-bytes.
CARRIES_FILES = frozenset({"/inference.GRPCInferenceService/RepositoryModelLoad"})
HEARTBEAT_SECONDS = 0.5
LIVE_SECONDS = 10.0
ARENA_SHARE = 2
# Address space only; freed chunks keep their size class, so there has to be far more of it than memory.
ARENA_ADDRESS_BYTES = 1 << 40
BUFFERED_SHARE = 4
# Half of the arena: requests need the rest.
CACHE_SHARE = 4
# Requests under way on the port of administration.
ADMIN_BUFFERED_BYTES = 4 << 20
# Keys by which replicas find the owner of a request: they have to be the same on all, and need not be secret.
FLEET = b"infer replicas"
QUEUE_SHARE, QUEUES_SHARE, QUEUED_ROW_BYTES = 8, 4, 16 << 10
SHADOW_SHARE = 16
# How long a connection lives and what its peer may do: for the transport as they are.
CONDUCT_SETTINGS = (
    "preface_timeout", "settings_timeout", "write_stall_timeout", "keepalive_time", "keepalive_timeout",
    "max_connection_idle", "max_connection_age", "max_connection_age_grace", "max_early_resets", "max_stream_errors",
    "max_settings_frames", "max_ping_strikes", "max_empty_frames", "max_oversize_headers", "max_window_updates",
    "max_idle_frames", "max_queued_frames", "max_turn_events")
# In the state directory: files that models were loaded with.
LOADS = "loads"
# A server without calls for so long gives the pages of large requests back.
IDLE_SECONDS = 10.0
IDLE_CACHED_BYTES = 16 << 20


class SharedLevel(Protocol):
    """Of the cache, where servers share one."""

    def gauges(self) -> Mapping[str, Any]: ...

    async def close(self) -> None: ...


class Server:
    """One server in this process: the parts and their life. Its methods run on the loop thread unless they say else."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop, dropped_lines: Callable[[], int] = int,
                 written: Mapping[str, ModelSettings] | None = None, quotas: Quotas = NONE) -> None:
        """`written`: what the operator wrote for models outside of their directories; `quotas`: for tenants."""
        self.dropped_lines = dropped_lines
        self.settings = settings
        self.loop = loop
        self.threads: Threads = plan_threads(available_cores(), settings.executors, settings.intra_op)
        self.steps: list[Step] = []
        self._begin = time.perf_counter()
        self._ready_ms = 0.0
        self._beat = time.monotonic()
        self._busy = self._beat
        self._heart: asyncio.TimerHandle | None = None
        self._chooser: asyncio.TimerHandle | None = None
        self._loaded = False
        self._draining = False
        self.stopping = False
        self.changes = Changes()
        if not DESCRIPTORS.is_file():
            raise InferError(f"this installation is not whole: {DESCRIPTORS.name} is missing; install it again")
        memory = memory_limit_bytes()
        if settings.cache > memory // CACHE_SHARE:
            raise InferError(f"--cache: {settings.cache} bytes are more than the {memory // CACHE_SHARE} that answers "
                             "may take here, a quarter of the memory limit; give less, or the server more memory")
        self.certificates = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            self.certificates = Certificates(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))
        self.store = Store(settings.state_dir, max_writes=settings.max_state_writes)
        self.audit = AuditLog(self.store)
        self.settings_problem: Callable[[], str] = str
        if not arena.stats()["reserved_bytes"]:
            arena.open(ARENA_ADDRESS_BYTES, memory // ARENA_SHARE)
        self.transport_name = chosen_transport(settings.transport)
        try:
            self.sockets = bind_all(settings.host, settings.port, settings.uds)
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
        try:
            admin_port = settings.administration_port
            self.admin = None if admin_port is None else AdminPort(admin_port)
        except OSError:
            self.http.close()
            self._unbind()
            self.store.close()
            raise
        self.pool = ExecutorPool(self.threads.executors, self.threads.max_running)
        self.cache = Cache(settings.cache or CACHE_BYTES, shared=settings.cache_shared)
        self.cache_sweep = CacheSweep(loop, self.cache)
        self.cache_file = None if settings.cache_file is None else CacheFile(settings.cache_file, self.cache)
        self.tenants = Tenants(settings.max_tenants, quotas)
        self.pipeline = Pipeline(loop, self.pool, RouteTable([]), self.tenants, self.cache,
                                 judge_deadlines=settings.judge_deadlines,
                                 codel_target_ns=round(settings.codel_target * 1e9),
                                 codel_interval_ns=round(settings.codel_interval * 1e9),
                                 triton_codes=settings.triton_status_codes)
        self.second = self._second_level()
        self.shadows = Shadows(
            ShadowPool(loop, max_copies=settings.max_shadow_copies,
                       max_bytes=settings.max_shadow_bytes or memory // SHADOW_SHARE),
            self.store, written_shadows(written or {}))
        self.captures = Captures(settings.capture_dir, loop.call_soon_threadsafe)
        self.pipeline.set_bounds(
            queued_rows=settings.max_queue_rows_total or max(1, memory // QUEUED_ROW_BYTES),
            queued_bytes=settings.max_queue_bytes_total or memory // QUEUES_SHARE)
        self.models = Models(settings, loop, self._loader(memory), self.store, self.audit, written=written or {},
                             set_routes=self._set_routes, changed=self.changes.notify)
        self.splits = Splits(self.store, written_splits(written or {}), self.models.traffic, self.models.set_split)
        self.outcomes = Outcomes(self.models.traffic, now_ns=clock.now, remembered=settings.max_outcomes)
        place = None if settings.state_dir is None else settings.state_dir.resolve() / LOADS
        self.rollouts = Rollouts(
            RolloutModels(self.models, self.splits, self.shadows, self.outcomes, settings.capture_dir),
            self.store, self.audit, loop=loop, changed=self.changes.notify)
        self.splits.taken = self.rollouts.controller.taken
        self.experiments = ExperimentClock(self.models, self.splits, self.outcomes, self.store, self.audit, loop=loop,
                                           changed=self.changes.notify)
        self.experiments.experiments.set_written(written_experiments(written or {}))
        self.repository = Repository(
            self.models.control, max_calls=settings.max_control_calls,
            files=OverrideFiles(settings.max_override_bytes, place, self.models.kept.directories()))
        self.cold = ColdBound(settings.max_cold_message_bytes)
        handlers = self.cold.over({**inference_service(self), **health_service(self), **health_streams(self),
                                   **reflection_service(self)}, exempt=CARRIES_FILES)
        self.transport = self._transport(
            self.pipeline, handlers, settings.max_buffered_bytes_total or memory // BUFFERED_SHARE)
        self.pipeline.after_turn = self.transport.flush
        self.adaptive = AdaptiveLimit(self.pipeline, lambda: self.models.served, settings.adaptive_limit)
        self.slo = SloController(self.pipeline, lambda: self.models.served, settings.slo_p99_ms)
        run_failures = RunFailures()
        self.pipeline.on_run_failure = run_failures
        self.pipeline.on_stopped_run = log_stopped_run
        self.models.on_unloaded = run_failures.forget

    def set_written(self, written: Mapping[str, ModelSettings]) -> None:
        """What is written for models was read again."""
        self.models.watcher.set_written(written)
        self.shadows.set_written(written_shadows(written))
        self.splits.set_written(written_splits(written))
        self.experiments.experiments.set_written(written_experiments(written))

    def _set_routes(self, routes: RouteTable) -> None:
        self.pipeline.set_routes(routes)
        self.shadows.routed(routes)
        self.captures.routed(routes)

    def _second_level(self) -> SharedLevel | None:
        settings = self.settings
        if (settings.replicas or settings.replicas_dns is not None) and settings.replicas_forward == "cache":
            if not native_is_built():
                raise InferError(f"--replicas: forwarding needs libnghttp2, and {NOT_BUILT}; {TO_BUILD}")
            from infer.replicas import start_replicas

            replicas = start_replicas(self.loop, settings, self.addresses, self.pipeline.on_second)
            self.pipeline.second = SecondLevel(replicas, FLEET, shared=settings.cache_shared, forwards=True)
            return replicas
        if settings.cache_redis is None or settings.cache_redis_secret is None:
            return None
        secret = read_secret(settings.cache_redis_secret)
        level = RedisLevel(self.loop, connect(settings.cache_redis), secret, timeout_s=settings.cache_redis_timeout,
                           answered=self.pipeline.on_second)
        self.pipeline.second = SecondLevel(level, secret, shared=settings.cache_shared)
        return level

    def _loader(self, memory_bytes: int) -> Loader:
        settings = self.settings
        library = settings.onnxruntime_library

        def runtime() -> Runtime:
            with self._timed("runtime"):
                return Runtime(str(library) if library else None, self.threads.intra_op)

        options = LoadOptions(
            providers=settings.provider, max_rows=settings.max_batch_size, gather_rows=settings.gather_rows,
            delay_ns=settings.max_queue_delay_us * 1000, queue_limit_rows=settings.max_queue_rows,
            queue_limit_bytes=settings.max_queue_bytes or memory_bytes // QUEUE_SHARE,
            max_running=self.threads.max_running, cache=settings.cache > 0, cache_ttl_s=settings.cache_ttl,
            cache_bytes=settings.cache_model_bytes, cache_rows=settings.cache_rows,
            require_checksums=settings.require_checksums,
            memory_bytes=memory_bytes, memory_factor=settings.model_memory_factor,
            breaker=server_breaker(settings), run_timeout_s=settings.run_timeout)
        return Loader(self.loop, self.pipeline, runtime, options, threads=settings.load_threads,
                      on_breaker=BreakerLog(self.loop, self.changes.notify), **(
                          {} if self.cache_file is None else {"attached": self.cache_file.attached}))

    def _transport(self, sink: RequestSink, handlers: Service, process_buffered_bytes: int) -> Transport:
        settings = self.settings
        if self.transport_name == GRPCIO:
            from infer.transport.grpc_aio import GrpcioTransport

            return GrpcioTransport(self.loop, sink, handlers, settings, process_buffered_bytes)
        from infer.transport.native import NativeTransport

        return NativeTransport(
            self.loop, sink, handlers,
            header_bytes=settings.header_bytes, max_streams=settings.max_streams,
            max_message_bytes=settings.max_message_bytes, connection_buffered_bytes=settings.max_buffered_bytes,
            process_buffered_bytes=process_buffered_bytes,
            outbound_bytes=settings.outbound_bytes, stream_messages=settings.max_stream_messages,
            stream_outbound_bytes=settings.stream_outbound_bytes,
            reply_compression=settings.reply_compression, coding_jobs=settings.max_coding_jobs,
            max_connections=settings.max_connections or raise_open_files(),
            tenant_key=(settings.tenant_metadata_key or "").encode(),
            tenant_of_certificate=settings.tls_client_ca is not None,
            routing_key=settings.routing_metadata_key.encode(),
            **{name: getattr(settings, name) for name in CONDUCT_SETTINGS})

    # What services, health and metrics see of the server; `live`, `ready`, `versions` and `gauges` from any thread.

    @property
    def live(self) -> bool:
        """Whether the loop has turned lately."""
        return time.monotonic() - self._beat < LIVE_SECONDS

    @property
    def ready(self) -> bool:
        """Whether every model that was asked for is served and the server is not draining."""
        return self._loaded and not self._draining and not self.models.failures

    @property
    def routes(self) -> RouteTable:
        return self.models.routes

    def answers(self, name: str, version: str) -> bool:
        return answers(self.routes, self.routes.lookup(name, version), named=bool(version))

    def versions(self) -> list[VersionEntry]:
        return self.models.served

    def gauges(self) -> Mapping[str, Any]:
        return server_gauges(self)

    # Start.

    def _unbind(self) -> None:
        for each in self.sockets:
            each.close()
        if self.settings.uds is not None:
            self.settings.uds.unlink(missing_ok=True)

    async def start(self) -> None:
        """Loads every model and serves. Raises InferError where none can be served."""
        self.loop.add_reader(self.pool.eventfd, self.pipeline.on_wake)
        self.pool.start()
        self.loop.add_reader(self.shadows.pool.eventfd, self.shadows.pool.on_wake)
        self.shadows.pool.start()
        self.http.serve()
        self._turn()
        self._choose_batching()
        with self._timed("scan"):
            await self.models.watcher.look()
        await self.models.load()
        await self.rollouts.begin()
        await self.experiments.begin()
        self.steps += [Step(f"load {what}", seconds * 1e3) for what, seconds in self.models.take_load_times().items()]
        with self._timed("listen"):
            await self.transport.listen(self.sockets, self.certificates)
            if self.admin is not None:
                await self.admin.listen(lambda handlers: self._transport(
                    NoInference(), handlers, ADMIN_BUFFERED_BYTES), self.cold.over(
                        {**admin_service(self.cache, self.audit, *self._admin_parts()),
                         **rollout_service(self.rollouts.controller, self.changes, lambda: self.stopping)}))
        self._ready_ms = (time.perf_counter() - self._begin) * 1e3
        self._loaded = True
        self.models.count()
        self.changes.notify()

    def _admin_parts(self) -> Iterable[Mapping[str, Handler]]:
        """RPCs of the port of administration, by name, beside those of the cache."""
        return (shadow_rpcs(self.shadows, self.audit), capture_rpcs(self.captures, self.audit),
                split_rpcs(self.splits, self.audit), experiment_rpcs(self.experiments.experiments))

    def _choose_batching(self) -> None:
        self.slo.step(time.monotonic())
        # By what batches gather now.
        self.adaptive.step()
        self._chooser = self.loop.call_later(STEP_SECONDS, self._choose_batching)

    def _turn(self) -> None:
        self._beat = time.monotonic()
        self.models.count()
        self.cache_sweep.step()
        memory = arena.stats()
        if self.pipeline.in_flight:
            self._busy = self._beat
        if memory["cached_bytes"] > memory["cached_bound_bytes"]:
            self.loop.run_in_executor(None, arena.trim_surplus)
        elif self._beat - self._busy > IDLE_SECONDS and memory["cached_bytes"] > IDLE_CACHED_BYTES:
            self._busy = self._beat
            self.loop.run_in_executor(None, arena.trim)
        self._heart = self.loop.call_later(HEARTBEAT_SECONDS, self._turn)

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
        return Start(models=self.models.served, executors=self.threads.executors, intra_op=self.threads.intra_op,
                     grpc=self.addresses, http=address_text(host, port), steps=self.steps,
                     failures=self.models.failures, security=self._security(), transport=self.transport_name,
                     admin=self.admin.address if self.admin is not None else "",
                     ready_ms=self._ready_ms)

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
        if self.admin is not None:
            await self.admin.close()
        if self.second is not None:
            await self.second.close()
        await self.repository.close()
        if self.cache_file is not None:
            self.cache_file.save()
        await self.rollouts.close()
        await self.experiments.close()
        self.loop.remove_reader(self.shadows.pool.eventfd)
        self.shadows.close()
        self.captures.close()
        self.models.end()
        self.pool.interrupt()
        self.pool.stop()
        self.loop.remove_reader(self.pool.eventfd)
        self.pipeline.on_wake()
        await self.models.ended()
        self.cache_sweep.close()
        self.pipeline.close()
        for timer in (self._heart, self._chooser):
            if timer is not None:
                timer.cancel()
        self.http.close()
        self._unbind()
        await self.loop.run_in_executor(None, self.store.close)
