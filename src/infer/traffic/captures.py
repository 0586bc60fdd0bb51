"""Captures of a server: some of its calls into files, by one thread that writes them.

Loop thread, but for the writer's part and `gauges`. Calls that wait for the writer are bounded in number and bytes;
what finds no room is dropped and counted. A capture ends when it is told to, when its file is full or cannot be
written, and with the server; it does not outlive a restart.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from infer import __version__
from infer._core.capture import Capture
from infer._core.idle_zlib import compress
from infer._core.model_version import VersionEntry
from infer.capture_file import CapturedCall, CaptureWriter
from infer.capture_plan import CapturePlan
from infer.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from infer.traffic.redaction import ID, redacted

if TYPE_CHECKING:
    from infer._core.capture import Taken

log = logging.getLogger("infer.traffic")

FORMAT = 1
FLUSH_SECONDS = 1.0
POLL_SECONDS = 0.02
# A disk that hangs keeps no server from ending.
CLOSE_SECONDS = 10.0
WAITING_CALLS, WAITING_BYTES = 1024, 16 << 20


class Routes(Protocol):
    """Where requests lead."""

    def route_of(self, name: str) -> Any:
        """Of a model that is known; else None."""


class Running:
    """One capture and its file."""

    def __init__(self, model: str, plan: CapturePlan, path: Path, put: Callable[[tuple[Running, Taken]], None],
                 ended: Callable[[Running], None]) -> None:
        """`put` has the writer write a call. Raises OSError where there is no such file to be made."""
        self.model, self.plan, self.path = model, plan, path
        self.problem = ""           # what it ended for, other than being told to
        self.bytes = self.records = 0
        self.closed: Future[None] = Future()        # done once its file is whole
        # Who waits for it may give up; the writer sets it all the same.
        self.closed.set_running_or_notify_cancel()
        self._ended = ended
        self.writer: CaptureWriter | None = CaptureWriter(path, {
            "format": FORMAT, "model": model, "server": __version__, "started_s": time.time(),
            "fraction": plan.fraction, "redacted": list(plan.redact)}, compress, plan.max_bytes)
        self.capture = Capture(lambda taken: put((self, taken)), fraction=plan.fraction,
                               per_second=plan.per_second, max_waiting=WAITING_CALLS, max_waiting_bytes=WAITING_BYTES,
                               max_message_bytes=min(plan.max_message_bytes, WAITING_BYTES))

    # The writer's thread.

    def write(self, taken: Taken) -> None:
        try:
            if self.writer is None:
                return
            self._add(self.writer, taken)
            if self.writer.full:
                self.end(f"{self.path} is full: it has {self.writer.bytes} bytes")
        # Whatever a call makes of this capture, those of other models go on.
        except Exception as error:
            self.end(f"{self.path} cannot be written: {error}")
        finally:
            self.capture.did(taken[5])

    def _add(self, writer: CaptureWriter, taken: Taken) -> None:
        time_ns, model, version, request, reply, _ = taken
        writer.add(redacted(CapturedCall(time_ns, model.decode(), version, request, reply), self.plan.redact))
        self.bytes, self.records = writer.bytes, writer.records

    def flush(self) -> None:
        if self.writer is not None:
            try:
                self.writer.flush()
                self.bytes, self.records = self.writer.bytes, self.writer.records
            except OSError as error:
                self.end(f"{self.path} cannot be written: {error}")
            if self.writer is not None and self.writer.full:
                self.end(f"{self.path} is full: it has {self.bytes} bytes")

    def end(self, problem: str = "") -> None:
        """Closes the file; once."""
        writer, self.writer = self.writer, None
        if writer is None:
            return
        try:
            writer.close()
        except OSError as error:
            problem = problem or f"{self.path} cannot be written: {error}"
        self.bytes, self.records = writer.bytes, writer.records
        self.problem = problem
        self._ended(self)
        self.closed.set_result(None)


class Captures:
    """One per server. `directory`: where the files are; None: there are no captures."""

    def __init__(self, directory: Path | None, call_soon: Callable[..., object]) -> None:
        """`call_soon` has the loop call a function, from any thread."""
        self.directory = directory
        self.running: dict[str, Running] = {}       # by model
        self._call_soon = call_soon
        self._waiting: deque[tuple[Running, Taken | None] | None] = deque()     # None: the end, of one or of all
        self._hurry = threading.Event()             # the writer is to look at once
        self._thread: threading.Thread | None = None
        self._routes: Routes | None = None
        self._starting: set[str] = set()
        self._closed = False

    async def start(self, model: str, plan: CapturePlan) -> Running:
        """Captures the model's calls from now on."""
        if self.directory is None:
            raise FailedPrecondition("this server captures nothing: start it with --capture-dir, the directory that "
                                     "the files of captured calls are written to")
        self._ensure_tensors(model, plan, self._versions(model))
        if model in self._starting or (model in self.running and self.running[model].writer is not None):
            into = f", into {self.running[model].path}" if model in self.running else ""
            raise FailedPrecondition(f"calls of model {model!r} are captured already{into}; end that with "
                                     f"`infer capture stop {model}`")
        self._starting.add(model)
        try:
            # A disk may keep whoever opens a file waiting.
            running = await asyncio.get_running_loop().run_in_executor(None, self._made, self.directory, model, plan)
        except FileExistsError:
            raise FailedPrecondition(f"{self.directory / plan.file} is there already; choose another --name") from None
        except OSError as error:
            raise FailedPrecondition(f"{self.directory / plan.file} cannot be made: {error.strerror}") from None
        finally:
            self._starting.discard(model)
        if self._closed:
            running.end()
            raise Unavailable("the server is being stopped")
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="infer-capture", daemon=True)
            self._thread.start()
        self.running[model] = running
        if self._routes is not None:
            self.routed(self._routes)
        self._hurry.set()
        log.info("model %r: captures %s", model, plan, extra={"model": model})
        return running

    def _made(self, directory: Path, model: str, plan: CapturePlan) -> Running:
        """Any thread."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Running(model, plan, directory / plan.file, self._waiting.append, self._ended)

    def _versions(self, model: str) -> tuple[VersionEntry, ...]:
        route = None if self._routes is None else self._routes.route_of(model)
        if route is None:
            raise NotFound(f"model {model!r} is not known: `infer models` lists those that are")
        return tuple(route.versions)

    def _ensure_tensors(self, model: str, plan: CapturePlan, versions: Sequence[VersionEntry]) -> None:
        """What is misspelt would be written."""
        known = {each.name for entry in versions for each in (*entry.inputs, *entry.outputs)} | {ID}
        for name in plan.redact:
            if name not in known:
                raise InvalidArgument(f"redact: model {model!r} has no input or output {name!r}; expected "
                                      f"{', '.join(sorted(known))}")

    def stop(self, model: str) -> Running:
        """What waits is still written: `closed` says when."""
        running = self.running.get(model)
        if running is None:
            raise NotFound(f"calls of model {model!r} are not captured")
        running.capture.capture_from(())
        self._waiting.append((running, None))
        del self.running[model]
        self._hurry.set()
        return running

    def routed(self, routes: Routes) -> None:
        """Other versions may be served from now on."""
        self._routes = routes
        for model, running in self.running.items():
            route = routes.route_of(model)
            versions = () if route is None or running.writer is None else tuple(route.versions)
            if versions != running.capture.versions:
                running.capture.capture_from(versions)

    def close(self) -> None:
        """Ends all of them and waits for the writer."""
        self._closed = True
        for model in list(self.running):
            self.stop(model)
        self._routes = None
        if self._thread is not None:
            self._waiting.append(None)
            self._hurry.set()
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                log.error("captured calls were not written within %g s of the server's end, and are lost",
                          CLOSE_SECONDS)

    def gauges(self) -> Mapping[str, Any]:
        """By key of SERVER_METRICS. Any thread."""
        running = list(self.running.items())
        return {"captured": {model: each.capture.taken for model, each in running},
                "capture_dropped": {(model, why): count for model, each in running
                                    for why, count in each.capture.drops().items()},
                "capture_bytes": {model: each.bytes for model, each in running}}

    # The writer's thread.

    def _write(self) -> None:
        unflushed: set[Running] = set()
        flushed = time.monotonic()
        while True:
            # Calls wake nobody: it is cheaper for them, and for the loop, to be written together.
            self._hurry.wait(POLL_SECONDS if self.running else None)
            self._hurry.clear()
            while self._waiting:
                item = self._waiting.popleft()
                if item is None:
                    return
                running, taken = item
                if taken is None:
                    running.end()
                else:
                    running.write(taken)
                unflushed.add(running)
            if time.monotonic() - flushed >= FLUSH_SECONDS:
                for each in unflushed:
                    each.flush()
                unflushed.clear()
                flushed = time.monotonic()

    def _ended(self, running: Running) -> None:
        if running.problem:
            log.warning("model %r: its capture has ended: %s", running.model, running.problem,
                        extra={"model": running.model})
        self._call_soon(running.capture.capture_from, ())
