"""The real server on a thread of this process. Its end is asserted to be clean: nothing in flight, no connection."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from prometheus_client.parser import text_string_to_metric_families

from infer import server as composition
from infer.config import Settings
from infer.models.written import written_models
from tests.support.h2_peer import Peer, connect
from tests.support.models import write_version

T = TypeVar("T")
SECONDS = 90.0


def write_repository(path: Path, models: Mapping[str, bytes]) -> Path:
    for name, content in models.items():
        write_version(path, name, 1, content)
    return path


def fetch(address: str, page: str) -> tuple[int, bytes]:
    """Status and content of a page of the HTTP port."""
    try:
        with urllib.request.urlopen(f"http://{address}{page}", timeout=SECONDS) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def scrape(address: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """/metrics as {(sample name, labels): value}."""
    status, content = fetch(address, "/metrics")
    assert status == 200
    return {(sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(content.decode()) for sample in family.samples}


class InProcess:
    """A server on a thread of this process. Made by `in_process`."""

    def __init__(self, server: composition.Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop

    @property
    def address(self) -> str:
        return self.server.addresses[0]

    @property
    def transport(self) -> str:
        return self.server.transport_name

    @property
    def http_address(self) -> str:
        host, port = self.server.http.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def connect(self, **options: Any) -> Peer:
        return connect(self.address, **options)

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What a coroutine returns on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work(), self.loop).result(SECONDS)

    def look(self, read: Callable[[], T]) -> T:
        """What a function returns on the server's loop."""

        async def work() -> T:
            return read()

        return self.run(work)

    def until(self, condition: Callable[[], bool]) -> None:
        """Turns the server's loop until a condition, read there, holds."""
        deadline = time.monotonic() + SECONDS
        while not self.look(condition):
            assert time.monotonic() < deadline, self.snapshot()

    def until_here(self, condition: Callable[[], bool]) -> None:
        """Turns the server's loop until a condition, read on this thread, holds."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.snapshot()
            self.look(lambda: None)

    def snapshot(self) -> dict[str, Any]:
        pipeline = self.server.pipeline
        return self.look(lambda: {**self.server.transport.snapshot(), "in_flight": pipeline.in_flight,
                                  "queued": pipeline.queued_requests})

    def calls(self, model: str) -> list[int]:
        """A model's calls by gRPC code."""
        entry = next(each for each in self.server.versions() if each.name == model.encode())
        return list(self.look(lambda: entry.stats_snapshot((), ())["calls"]))

    def stats(self, model: str) -> dict[str, Any]:
        entry = next(each for each in self.server.versions() if each.name == model.encode())
        return self.look(lambda: entry.stats_snapshot((), ()))

    def unrouted(self) -> list[int]:
        return self.look(self.server.pipeline.unrouted_calls)

    def settle(self) -> None:
        """Once every client is gone: until the server has seen it and holds nothing for them."""
        self.until(self._idle)

    def _idle(self) -> bool:
        # grpcio does not say how many connections it has.
        snapshot = self.server.transport.snapshot()
        return snapshot.get("connections", 0) == 0 and self.server.pipeline.in_flight == 0

    def assert_clean(self) -> None:
        self.settle()
        snapshot = self.snapshot()
        kept = {name: snapshot.get(name, 0) for name in ("connections", "streams", "buffered_bytes", "outbound_bytes",
                                                  "in_flight", "queued")}
        assert not any(kept.values()), kept


@contextlib.contextmanager
def in_process(repository: Path, *, toml: Path | None = None, **settings: Any) -> Iterator[InProcess]:
    """A server of the models in `repository`, once it listens; what is written for models and tenants is in `toml`. Its
    end is asserted to be clean once its clients are gone."""
    chosen = Settings.model_validate(
        {"paths": (repository,), "host": "127.0.0.1", "port": 0, "http_port": 0, "admin_port": None} | settings)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="infer-loop", daemon=True)
    thread.start()

    async def make() -> composition.Server:
        written = written_models(chosen.model_config_file, toml)
        server = composition.Server(chosen, loop, written=written.models, quotas=written.quotas)
        await server.start()
        return server

    try:
        served = InProcess(asyncio.run_coroutine_threadsafe(make(), loop).result(SECONDS), loop)
        try:
            yield served
            served.assert_clean()
        finally:
            served.run(served.server.stop)
    finally:
        # No thread of the server's gives back pages of the arena while tests that come after count them.
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(SECONDS)
        assert not thread.is_alive()
        loop.close()
