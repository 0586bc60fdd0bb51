"""A server process: its signals, its settings when they are read again, its start, its drain, its exit code."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from infer.config import Settings
from infer.config_file import Origin
from infer.models.effective import LIVE_SETTINGS
from infer.models.written import Written
from infer.observe.logs import QueuedHandler, configure
from infer.observe.startup import announce
from infer.reload import ModelsReload, QuotasReload, SettingsReload
from infer.server import Server

log = logging.getLogger("infer.server")

# A waiting thread asks for the GIL after this long instead of 5 ms: a scrape must not stall the loop, nor the loop it.
SWITCH_SECONDS = 0.0005


class Read(NamedTuple):
    """Reads what is written by now; ConfigError for what cannot be used. Any thread."""

    settings: Callable[[], Settings]
    models: Callable[[Settings], Written]


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


async def serve(settings: Settings, written: Written, dropped_lines: Callable[[], int], read: Read) -> int:
    """Serves until a signal; the process's exit code: 0 drained, 1 ended before its calls did. SIGHUP has `read` give
    what is written now."""
    loop = asyncio.get_running_loop()
    signals = Signals(loop)
    server = Server(settings, loop, dropped_lines, written.models, written.quotas)
    reload = SettingsReload(settings, read.settings, server.audit, {
        "log_level": lambda level: logging.getLogger().setLevel(level.upper()),
        "adaptive_limit": lambda enabled: setattr(server.adaptive, "enabled", enabled),
        "slo_p99_ms": lambda slo_ms: setattr(server.slo, "default_ms", slo_ms),
        **{name: functools.partial(server.models.set_option, name) for name in LIVE_SETTINGS}},
        models=ModelsReload(written.models, lambda: read.models(settings), server.set_written),
        quotas=QuotasReload(written.quotas, server.tenants.configure))
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


def run(settings: Settings, origins: Mapping[str, Origin], written: Written, read: Read) -> int:
    """The whole life of a server process: `infer serve`. `read` gives what is written later on."""
    import uvloop

    sys.setswitchinterval(SWITCH_SECONDS)
    handler: QueuedHandler = configure(settings.log_level, settings.log_format)
    for name, origin in origins.items():
        if not origin.is_default:
            log.debug("setting %s", name, extra={"value": str(origin.value), "origin": origin.place})
    for problem in written.problems:
        log.warning("%s", problem)
    try:
        loop = uvloop.new_event_loop()
        try:
            return loop.run_until_complete(serve(settings, written, lambda: handler.dropped, read))
        finally:
            loop.close()
    finally:
        handler.close()
