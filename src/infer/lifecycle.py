"""The models of a server: looks at the repositories go in, routes come out, the manager decides in between.

Loop thread, but for `served`, `failures` and `gauges`, which are replaced whole and may be read from any thread. Order
of a start: the first look, then every load that it asks for, then the first routes. From then on each step of the
manager may publish new ones.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from infer._core import clock
from infer._core.model_version import VersionEntry
from infer._core.router import ModelRoute, RouteTable
from infer.config import Settings
from infer.errors import ConfigError, ModelLoadError
from infer.model_control import KeptRecord, ManagerControl, audit_event, overlay
from infer.models.intents import Mode
from infer.models.loader import Loader
from infer.models.loading import Backoff, Bounds, Event, Loaded, LoadSpec
from infer.models.manager import THE_END, Manager
from infer.models.problems import described
from infer.models.settings import ModelSettings
from infer.models.snapshot import Snapshot
from infer.models.source import Source
from infer.security.audit import AuditLog
from infer.split_plan import SplitPlan
from infer.state.store import Store
from infer.traffic.routes import Traffic
from infer.watcher import Watcher

log = logging.getLogger("infer.models")

RETENTION = "retention"
# By kind and outcome of an event; what is not here is INFO.
LEVELS = {("load", "failed"): logging.ERROR, ("model", "refused"): logging.ERROR, ("label", "deferred"):
          logging.WARNING, ("remove", "failed"): logging.ERROR}
# Loads that the start names one by one with their time; more are named together.
STEPS_SHOWN = 20


def mode_of(settings: Settings) -> Mode:
    """What was asked for; else directories are watched, and plain files are not."""
    if settings.model_control_mode is not None:
        return settings.model_control_mode
    watched = settings.model_config_file is not None or any(root.is_dir() for root in settings.roots)
    return "watch" if watched else "none"


class MeasuredLoader:
    """The loader, and how long each model's loads took, for as long as that is asked for."""

    def __init__(self, inner: Loader) -> None:
        self.seconds: dict[str, float] | None = {}
        self.close, self.apply = inner.close, inner.apply
        self._inner = inner

    def load(self, spec: LoadSpec, done: Loaded) -> None:
        begin = time.perf_counter()

        def ended(ended_spec: LoadSpec, result: Any) -> None:
            if self.seconds is not None:
                took = time.perf_counter() - begin
                self.seconds[spec.name] = self.seconds.get(spec.name, 0.0) + took
            done(ended_spec, result)

        self._inner.load(spec, ended)


class Models:
    """One per server. `set_routes` takes each new table, `changed` hears of every change that calls can see."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop, loader: Loader, store: Store,
                 audit: AuditLog, *, written: Mapping[str, ModelSettings], set_routes: Callable[[RouteTable], None],
                 changed: Callable[[], None]) -> None:
        self.settings = settings
        self.mode = mode_of(settings)
        self.routes = RouteTable([])
        self.served: list[VersionEntry] = []
        self.failures: dict[str, str] = {}
        self.events: dict[tuple[str, str], int] = {}
        self.gauges: Mapping[str, Any] = {}
        self.on_step: Callable[[], None] = lambda: None
        self.on_unloaded: Callable[[str, str], None] = lambda model, version: None
        self.traffic = Traffic()
        self._loader, self._measured = loader, MeasuredLoader(loader)
        self._loop, self._audit = loop, audit
        self._set_routes, self._changed = set_routes, changed
        self._unpublished: dict[str, ModelRoute | None] = {}
        self._publishing = False
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stepped = asyncio.Event()
        self._removal_failures: dict[tuple[str, int], str] = {}
        self.kept = kept = KeptRecord(store)
        self.manager = Manager(
            self._measured, self._publish, mode=self.mode, start=settings.load_model, record=kept.record,
            overlay=overlay, keep=kept.keep, tell=self._tell, wake=self._woken, backoff=Backoff(jitter=random.random),
            bounds=Bounds(loading=settings.load_threads, asks=settings.max_control_calls))
        settle_s = settings.repository_settle_time if self.mode != "none" else 0.0
        self.watcher = Watcher(
            Source(settings.roots, settings.name, written=written, settle_ns=round(settle_s * 1e9)), self._observe,
            interval_s=settings.repository_poll_interval, settle_s=settle_s,
            removable=self.manager.take_removable, removed=self._removed)
        self.control = ManagerControl(self.manager, self.mode, kept, self.watcher.fresh)

    # Start.

    async def load(self) -> None:
        """Loads what the first look asks for, and publishes it. Raises InferError where nothing is left to be served
        and nothing will come."""
        self._step()
        await self._until(lambda: not self.manager.pending)
        if self.mode == "none" and not any(
                route is not None and route.versions for route in self._unpublished.values()):
            snapshot = self.watcher.last
            assert snapshot is not None
            if not snapshot.models:
                raise ConfigError(described(snapshot.problems, "the models to serve"))
            texts = list(self.manager.unready().values())
            texts += [text for problem in snapshot.problems if problem.is_error
                      and not any((text := str(problem)) in each for each in texts)]
            raise ModelLoadError("\n  ".join(["no model could be loaded:", *texts]))
        self._publishing = True
        self._route()
        self._see()
        if self.mode != "none":
            self.watcher.begin()

    def take_load_times(self) -> dict[str, float]:
        """Seconds by what was loaded so far; none are measured any more."""
        seconds, self._measured.seconds = self._measured.seconds or {}, None
        if len(seconds) > STEPS_SHOWN:
            return {f"{len(seconds)} models": sum(seconds.values())}
        return dict(sorted(seconds.items()))

    def set_option(self, name: str, value: Any) -> None:
        """One of effective.LIVE_SETTINGS was read again."""
        self._loader.set_option(name, value, self.served)

    # Steps.

    def _observe(self, snapshot: Snapshot) -> None:
        self.manager.observe(snapshot)

    def _woken(self) -> None:
        if self._soon is None:
            self._soon = self._loop.call_soon(self._step)

    def _step(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_ns = clock.now()
        due_ns = self.manager.step(now_ns)
        if due_ns is not None:
            self._timer = self._loop.call_later(max(0, due_ns - now_ns) / 1e9, self._step)
        if self._publishing:
            self._see()
            self.count()
        self.on_step()
        self._stepped.set()

    def _see(self) -> None:
        failures = self.manager.unready()
        if not failures and self.mode == "watch" and self.watcher.last is not None and not self.watcher.last.models:
            failures = {"": "there is no model yet; it is served once it is copied into a repository"}
        if failures != self.failures:
            self.failures = failures
            self._changed()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._stepped.clear()
            await self._stepped.wait()

    def _publish(self, changes: Mapping[str, ModelRoute | None]) -> None:
        self._unpublished.update(changes)
        # Until the first pass has ended nobody calls.
        if self._publishing:
            self._route()

    def _route(self) -> None:
        changes, self._unpublished = self._unpublished, {}
        self.routes = self.routes.with_changes(self.traffic.merged(changes))
        self.served = self.routes.entries()
        self._set_routes(self.routes)
        self._changed()

    def set_split(self, model: str, plan: SplitPlan | None) -> None:
        """How the model's requests are divided from now on."""
        self.traffic.set_split(model, plan)
        if self._publishing:
            self._route()

    # What came of it.

    def count(self) -> None:
        """Brings `gauges` up to date."""
        self.gauges = {**self.manager.gauges(), "model_events": dict(self.events),
                       "repository_problems": self.watcher.problems}

    def _tell(self, event: Event) -> None:
        if event.who != THE_END:
            audit_event(self._audit, event)
        self.events[event.kind, event.outcome] = self.events.get((event.kind, event.outcome), 0) + 1
        if (event.kind, event.outcome) == ("unload", "ok"):
            self.on_unloaded(event.model, str(event.version))
        # Others have said it, with more: the loader, or what looks at the repositories.
        if (event.kind, event.outcome) != ("load", "ok") and not self.watcher.has_told(event.detail):
            log_event(event)

    def _removed(self, model: str, version: int, failure: str) -> None:
        key = model, version
        if failure:
            self.manager.removal_failed(model, version)
            if self._removal_failures.get(key) == failure:
                return      # said before; it is tried again after every look
            self._removal_failures[key] = failure
        else:
            self._removal_failures.pop(key, None)
        self._tell(Event("remove", model, version, "failed" if failure else "ok", RETENTION, failure))

    # The end.

    def end(self) -> None:
        """Looks no more, loads no more, and unloads everything once its calls have ended."""
        self.traffic.close()
        self.manager.stop()
        self._step()

    async def ended(self) -> None:
        """Once nothing is loaded any more."""
        await self.watcher.close()
        await self._loader.stop()
        await self._until(lambda: self.manager.idle)
        for handle in (self._soon, self._timer):
            if handle is not None:
                handle.cancel()


def log_event(event: Event) -> None:
    level = logging.DEBUG if event.who == THE_END else LEVELS.get((event.kind, event.outcome), logging.INFO)
    text = event.detail
    if level < logging.ERROR:
        named = f"model {event.model!r}" + ("" if event.version is None else f" version {event.version}")
        text = f"{named}: {event.kind} {event.outcome}" + (f": {event.detail}" if event.detail else "")
    log.log(level, "%s", text, extra={"model": event.model, "version": event.version, "who": event.who})
