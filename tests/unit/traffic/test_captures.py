"""Captures of a server: their files, and what ends them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infer.capture_file import CaptureReader, CaptureWriter
from infer.capture_plan import CapturePlan
from infer.errors import FailedPrecondition, InvalidArgument, NotFound
from infer.traffic import captures
from infer.traffic.captures import Captures, Running
from tests.support.models import identity
from tests.support.puppets import Bench, fp32_request, make_entry

ROW = fp32_request([[1.0, 2.0, 3.0, 4.0]])


class Server:
    """A model `m` whose calls can be captured."""

    def __init__(self, directory: Path | None) -> None:
        self.bench = Bench(make_entry(identity()))
        self.captures = Captures(directory, lambda call, *arguments: call(*arguments))
        route = SimpleNamespace(versions=tuple(self.bench.entries), labels={})
        self.captures.routed(SimpleNamespace(route_of=lambda name: route if name == "m" else None))

    def start(self, model: str, plan: CapturePlan) -> Running:
        return asyncio.run(self.captures.start(model, plan))

    def call(self, count: int = 1) -> None:
        for _ in range(count):
            self.bench.call(ROW)
            self.bench.run_all()

    def close(self) -> None:
        self.captures.close()
        self.bench.outcomes.clear()
        self.bench.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "captured")
    yield made
    made.close()


def test_a_stop_leaves_a_whole_file(server: Server, tmp_path: Path) -> None:
    server.start("m", CapturePlan("a", per_second=0))
    server.call(5)
    running = server.captures.stop("m")
    server.call()
    running.closed.result(120)
    reader = CaptureReader(tmp_path / "captured" / "a.capture")
    assert [each.request for each in reader] == [ROW] * 5
    assert (reader.about["model"], reader.about["redacted"], reader.torn) == ("m", [], False)
    with pytest.raises(NotFound, match="calls of model 'm' are not captured"):
        server.captures.stop("m")


def test_the_end_of_the_server_writes_what_waits(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start("m", CapturePlan("a", per_second=0))
    server.call(5)
    server.close()
    assert len(list(CaptureReader(tmp_path / "a.capture"))) == 5


def test_a_disk_that_is_full_ends_the_capture_and_says_so(
        server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    running = server.start("m", CapturePlan("a", per_second=0))
    writer = running.writer
    assert writer is not None

    def full(content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_write", full)
    with caplog.at_level(logging.WARNING):
        server.call()
        running.closed.result(120)
    assert "cannot be written: [Errno 28] No space left on device" in running.problem
    assert running.problem in caplog.text
    server.call()
    assert (running.capture.seen, running.records) == (1, 0)
    # And another may begin.
    server.start("m", CapturePlan("b"))


@pytest.mark.parametrize(("prepare", "said"), [
    (lambda path: (path / "a.capture").write_bytes(b""), "is there already; choose another --name"),
    (lambda path: (path / "a.capture").symlink_to(path / "elsewhere"), "is there already"),
])
def test_a_file_that_cannot_be_made(server: Server, tmp_path: Path, prepare: Callable[[Path], Any], said: str) -> None:
    (tmp_path / "captured").mkdir()
    prepare(tmp_path / "captured")
    with pytest.raises(FailedPrecondition, match=said):
        server.start("m", CapturePlan("a"))
    assert not (tmp_path / "captured" / "elsewhere").exists()
    assert server.captures.running == {}


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    server = Server(tmp_path / "file" / "captured")
    with pytest.raises(FailedPrecondition, match="cannot be made: Not a directory"):
        server.start("m", CapturePlan("a"))
    server.close()


def test_a_disk_without_room_leaves_no_file(
        server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(writer: CaptureWriter, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(CaptureWriter, "_write", full)
        with pytest.raises(FailedPrecondition, match=r"a\.capture cannot be made: No space left on device"):
            server.start("m", CapturePlan("a"))
    assert list((tmp_path / "captured").iterdir()) == []
    server.start("m", CapturePlan("a"))


def test_who_gives_up_waiting_for_a_stop_ends_no_capture_but_that(server: Server, tmp_path: Path) -> None:
    async def impatient(running: Running) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(running.closed), 0)

    first = server.start("m", CapturePlan("a", per_second=0))
    asyncio.run(impatient(first))
    server.captures.stop("m")
    first.closed.result(120)
    second = server.start("m", CapturePlan("b", per_second=0))
    server.call(3)
    server.captures.stop("m")
    second.closed.result(120)
    assert len(list(CaptureReader(tmp_path / "captured" / "b.capture"))) == 3


def test_a_call_that_cannot_be_written_ends_its_capture_alone(
        server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    running = server.start("m", CapturePlan("a", per_second=0))

    def odd(writer: CaptureWriter, call: object) -> None:
        raise ValueError("an odd call")

    with monkeypatch.context() as patched:
        patched.setattr(CaptureWriter, "add", odd)
        server.call()
        running.closed.result(120)
    assert running.problem.endswith("a.capture cannot be written: an odd call")
    again = server.start("m", CapturePlan("b", per_second=0))
    server.call()
    server.captures.stop("m").closed.result(120)
    assert (again.records, again.problem) == (1, "")


def test_a_disk_that_hangs_keeps_no_server_from_ending(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(tmp_path)
    running = server.start("m", CapturePlan("a", per_second=0))
    writes_again = threading.Event()

    def hang(writer: CaptureWriter, call: object) -> None:
        writes_again.wait()

    monkeypatch.setattr(CaptureWriter, "add", hang)
    monkeypatch.setattr(captures, "CLOSE_SECONDS", 0.01)
    server.call()
    server.close()
    assert "captured calls were not written within 0.01 s" in caplog.text
    writes_again.set()
    running.closed.result(120)


def test_what_is_to_be_left_out_has_to_be_there(server: Server) -> None:
    with pytest.raises(InvalidArgument, match="redact: model 'm' has no input or output 'X'; expected id, x, y"):
        server.start("m", CapturePlan("a", redact=("x", "X")))
    server.start("m", CapturePlan("a", redact=("x", "y", "id")))


@pytest.mark.parametrize(("fields", "said"), [
    ({"name": "../a"}, "name: expected 1 to 100"), ({"name": ".a"}, "name: expected 1 to 100"),
    ({"name": "a", "fraction": 1.5}, "fraction: expected a part of all calls"),
    ({"name": "a", "per_second": -1}, "per_second: expected 0 to 1000000, got -1"),
    ({"name": "a", "max_bytes": 1}, "max_bytes: expected 1024 to"),
    ({"name": "a", "max_message_bytes": 0}, "max_message_bytes: expected 1 to"),
])
def test_what_is_no_plan(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        CapturePlan(**fields)
    assert said in caught.value.message


def test_gauges(server: Server) -> None:
    running: Running = server.start("m", CapturePlan("a", per_second=2))
    server.call(5)
    gauges = server.captures.gauges()
    assert gauges["captured"] == {"m": running.capture.taken}
    assert gauges["capture_dropped"]["m", "rate"] == 5 - running.capture.taken
