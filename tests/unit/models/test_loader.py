"""Loads and closes beside a loop: on which thread, how many at once, and each answered once."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from infer._core.model_version import VersionEntry
from infer.errors import ConfigError, InferError, InvalidArgument, ModelLoadError, Unavailable
from infer.models import loader as loader_module
from infer.models.effective import LoadOptions
from infer.models.loader import Loader
from infer.models.loading import LoadSpec
from infer.models.settings import ModelSettings
from infer.models.snapshot import VersionFiles
from tests.support import models
from tests.support.puppets import Bench, fp32_request, runtime
from tests.support.turns import turn

ROW = fp32_request([[1.0, 2.0, 3.0, 4.0]])


class Ends:
    """What `done` was called with, by serial; every end is on the loop thread and the only one of its load."""

    def __init__(self) -> None:
        self.results: dict[int, Any] = {}
        self.thread = threading.get_ident()
        self.came = asyncio.Event()

    def __call__(self, spec: LoadSpec, result: Any) -> None:
        assert threading.get_ident() == self.thread
        assert spec.serial not in self.results
        self.results[spec.serial] = result
        self.came.set()

    async def wait(self, count: int) -> None:
        while len(self.results) < count:
            self.came.clear()
            await self.came.wait()


class Gate:
    """Stands for `load_version`: loads end when the test says so."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.begun = threading.Semaphore(0)
        self.open = threading.Semaphore(0)

    def __call__(self, spec: LoadSpec, *rest: object) -> VersionEntry:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.begun.release()
        self.open.acquire()
        with self.lock:
            self.inside -= 1
        raise ModelLoadError(f"{spec.serial} has ended")


def spec_of(directory: Path, serial: int = 1, model: bytes | None = None, **settings: Any) -> LoadSpec:
    path = models.write_model(directory / "model.onnx", models.identity() if model is None else model)
    return LoadSpec("m", 1, VersionFiles(1, path, path.parent, "a"), ModelSettings("m", **settings), serial)


def made(bench: Bench, threads: int = 1, **options: Any) -> Loader:
    return Loader(asyncio.get_running_loop(), bench.pipeline, runtime, LoadOptions(**options), threads=threads)


def on_a_loop(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        bench = Bench()
        await test(bench)
        bench.close()

    asyncio.run(run())


async def loaded(loader: Loader, spec: LoadSpec) -> Any:
    ends = Ends()
    loader.load(spec, ends)
    assert loader.loading == 1
    await ends.wait(1)
    assert loader.loading == 0
    return ends.results[spec.serial]


def test_a_version_is_loaded_served_and_closed_after_its_last_call(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        loader = made(bench)
        entry = await loaded(loader, spec_of(tmp_path))
        assert isinstance(entry, VersionEntry)
        bench.entries.append(entry)
        bench.route()
        call = bench.call(ROW)
        session = entry.session
        closed = asyncio.Event()
        bench.entries.remove(entry)
        bench.route()
        loader.close(entry, closed.set)
        assert loader.closing == 1
        for _ in range(3):
            await turn()
        assert not closed.is_set()
        assert entry.session is session
        bench.run_all()
        assert bench.reply(call).model_version == "1"
        await closed.wait()
        assert loader.closing == 0
        assert entry.session is None
        with pytest.raises(InvalidArgument, match="the session is closed"):
            session.run([])
        await loader.stop()

    on_a_loop(test)


def test_a_load_that_fails_says_why(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        loader = made(bench)
        result = await loaded(loader, spec_of(tmp_path, model=models.unknown_operator()))
        assert isinstance(result, ModelLoadError)
        assert result.message.startswith("model 'm' version 1 is not served: ")
        assert (result.__traceback__, result.__cause__) == (None, None)     # which would hold the session
        await loader.stop()

    on_a_loop(test)


def test_a_fault_of_the_loader_itself_ends_the_load_and_is_logged(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*rest: object) -> VersionEntry:
        raise KeyError("a bug")

    async def test(bench: Bench) -> None:
        loader = made(bench)
        result = await loaded(loader, spec_of(tmp_path))
        assert isinstance(result, ModelLoadError)
        assert "KeyError('a bug')" in result.message
        await loader.stop()

    monkeypatch.setattr(loader_module, "load_version", broken)
    with caplog.at_level(logging.ERROR, "infer.models"):
        on_a_loop(test)
    assert caplog.records[0].exc_info is not None


def test_no_more_loads_at_once_than_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    async def test(bench: Bench) -> None:
        loader, ends = made(bench, threads=2), Ends()
        for serial in range(5):
            loader.load(spec_of(tmp_path, serial), ends)
        assert loader.loading == 5
        for _ in range(5):
            await asyncio.to_thread(gate.begun.acquire)
            gate.open.release()
        await ends.wait(5)
        assert gate.most <= 2
        assert [str(ends.results[serial]) for serial in range(5)] == [f"{serial} has ended" for serial in range(5)]
        await loader.stop()

    monkeypatch.setattr(loader_module, "load_version", gate)
    on_a_loop(test)


def test_a_stop_answers_every_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    async def test(bench: Bench) -> None:
        loader, ends = made(bench), Ends()
        for serial in range(3):
            loader.load(spec_of(tmp_path, serial), ends)
        await asyncio.to_thread(gate.begun.acquire)
        stopping = asyncio.ensure_future(loader.stop())
        await ends.wait(2)
        assert set(ends.results) == {1, 2}
        gate.open.release()
        await stopping
        loader.load(spec_of(tmp_path, 3), ends)
        assert set(ends.results) == {0, 1, 2, 3}
        assert {type(ends.results[serial]) for serial in (1, 2, 3)} == {Unavailable}
        assert loader.loading == 0

    monkeypatch.setattr(loader_module, "load_version", gate)
    on_a_loop(test)


def test_a_version_that_is_loaded_while_the_loader_stops_is_refused(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, begun, go = loader_module.load_version, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> VersionEntry:
        begun.set()
        go.wait()
        return real(*arguments)

    async def test(bench: Bench) -> None:
        loader, ends = made(bench), Ends()
        loader.load(spec_of(tmp_path), ends)
        await asyncio.to_thread(begun.wait)
        stopping = asyncio.ensure_future(loader.stop())
        await turn()
        go.set()
        await stopping
        assert isinstance(ends.results[1], Unavailable)

    monkeypatch.setattr(loader_module, "load_version", slow)
    on_a_loop(test)


def test_a_close_goes_on_after_a_stop(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        loader = made(bench)
        entry = await loaded(loader, spec_of(tmp_path))
        await loader.stop()
        closed = asyncio.Event()
        loader.close(entry, closed.set)
        await closed.wait()
        assert loader.closing == 0

    on_a_loop(test)


def test_the_runtime_is_opened_once_and_tried_again_where_it_fails(tmp_path: Path) -> None:
    tries: list[int] = []

    def opened() -> Any:
        tries.append(threading.get_ident())
        if len(tries) == 1:
            raise ConfigError("no library")
        return runtime()

    async def test(bench: Bench) -> None:
        loader = Loader(asyncio.get_running_loop(), bench.pipeline, opened, LoadOptions(), threads=1)
        assert tries == []
        assert isinstance(await loaded(loader, spec_of(tmp_path)), InferError)
        for serial in (2, 3):
            entry = await loaded(loader, spec_of(tmp_path, serial))
            assert isinstance(entry, VersionEntry)
            bench.pipeline.detach(entry)
        assert len(tries) == 2
        assert threading.get_ident() not in tries
        await loader.stop()

    on_a_loop(test)


def test_an_edit_is_applied_to_a_version_that_serves(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        loader = made(bench, delay_ns=7, queue_limit_rows=100)
        entry = await loaded(loader, spec_of(tmp_path, preferred_batch_sizes=(8,)))
        bench.entries.append(entry)
        assert (entry.delay_ns, entry.queue_limit_rows, entry.gather_rows) == (7, 100, 8)
        rows = entry.settings.max_batch_size
        loader.apply(entry, ModelSettings("m", max_queue_delay_us=3, preferred_batch_sizes=(9,), weight=4))
        assert (entry.delay_ns, entry.gather_rows, entry.weight) == (3000, 8, 4)
        assert (entry.settings.max_queue_delay_us, entry.settings.max_batch_size) == (3, rows)
        assert entry.settings.preferred_batch_sizes == (8,)
        loader.apply(entry, ModelSettings("m"))
        assert (entry.delay_ns, entry.weight) == (7, 1)
        await loader.stop()

    on_a_loop(test)


def test_a_model_for_which_there_is_no_memory_is_refused(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        loader = made(bench, memory_bytes=1)
        result = await loaded(loader, spec_of(tmp_path))
        assert isinstance(result, ModelLoadError)
        assert "of memory while it loads" in result.message
        await loader.stop()

    on_a_loop(test)
