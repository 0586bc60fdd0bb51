"""What the RPCs of the repository and what loads models agree on, and the order in which they are asked.

One model is changed by one call at a time, in the order in which they came; calls for different models do not wait for
each other. A change that has begun goes on when its caller is gone. Loop thread only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from infer.errors import FailedPrecondition, InferError, ResourceExhausted
from infer.services.call import Call
from infer.services.overrides import OverrideFiles
from infer.services.views import RoutesView

EXPLICIT = "explicit"
READY, LOADING, UNAVAILABLE, UNKNOWN = "READY", "LOADING", "UNAVAILABLE", "UNKNOWN"
UNAVAILABLE_CODE = 14


@dataclass(frozen=True)
class IndexRow:
    """A version as RepositoryIndex shows it; `version` is empty for a model without any."""

    model: str
    version: str
    state: str          # UNKNOWN, READY, UNAVAILABLE, LOADING or UNLOADING
    reason: str = ""
    labels: tuple[str, ...] = ()


class Overrides(NamedTuple):
    """What a load brings with it. Both hold until the model's next successful load or unload."""

    config: str                 # as the text of a config.pbtxt, which is used instead of the repository's
    directory: Path | None      # <version>/<file> below it, used instead of the repository's; None: the repository's


class ModelControl(Protocol):
    """What changes the models while the server runs. At most one change of a model is asked for at a time."""

    @property
    def mode(self) -> str:
        """none, explicit or watch."""

    async def load(self, name: str, overrides: Overrides | None, who: str) -> None:
        """Loads a model, or loads it again; returns when the load has ended and it is served.

        Raises NotFound for a model that is in no repository, FailedPrecondition with the reason where the load failed:
        what was served before is served still, with the overrides that it had.
        """

    async def unload(self, name: str, dependents: bool, who: str) -> None:
        """Unloads every version; returns when they are gone. Raises NotFound."""

    async def label(self, name: str, label: str, version: int, who: str) -> None:
        """Moves a label, at once or when the version is ready; 0 forgets the move. Raises NotFound."""

    def index(self) -> Sequence[IndexRow]:
        """Every version that is known, served or not, in any order."""


class FixedModels:
    """Control of models that are those of the start."""

    mode = "none"

    def __init__(self, routes: Callable[[], RoutesView]) -> None:
        self._routes = routes

    async def load(self, name: str, overrides: Overrides | None, who: str) -> None:
        raise FailedPrecondition(f"model {name!r} cannot be loaded: the models are those of the start")

    async def unload(self, name: str, dependents: bool, who: str) -> None:
        raise FailedPrecondition(f"model {name!r} cannot be unloaded: the models are those of the start")

    async def label(self, name: str, label: str, version: int, who: str) -> None:
        raise FailedPrecondition(f"model {name!r} has no labels: the models are those of the start")

    def index(self) -> Sequence[IndexRow]:
        routes = self._routes()
        rows = []
        for name, versions in routes.models():
            rows += [IndexRow(name, entry.version, READY) for entry in versions]
            if not versions:
                rows.append(_unready(routes, name))
        return rows


def _unready(routes: RoutesView, name: str) -> IndexRow:
    """A model that has no servable version."""
    try:
        routes.lookup(name, "")
    except InferError as error:
        return IndexRow(name, "", LOADING if error.code == UNAVAILABLE_CODE else UNAVAILABLE, error.message)
    return IndexRow(name, "", UNKNOWN)


class _Turn:
    """Whose turn it is to change a model."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()      # goes to those that wait in the order in which they came
        self.calls = 0                  # that hold it or wait for it


class Repository:
    """What the RPCs see: the control, in order and within bounds, and the files that loads brought."""

    def __init__(self, control: ModelControl, *, max_calls: int, files: OverrideFiles) -> None:
        self.control = control
        self.files = files
        self.under_way = 0          # calls that run or wait for one before them
        self.refused = 0            # for there being too many
        self._max_calls = max_calls
        self._turns: dict[str, _Turn] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self, name: str, config: str | None, files: dict[tuple[str, str], bytes], who: str) -> None:
        """As ModelControl.load; `config` with `files` by version and name, or neither."""
        async def change() -> None:
            if config is None:
                await self.control.load(name, None, who)
                await self.files.keep(name, None)
                return
            held = await self.files.write(name, files) if files else None
            try:
                await self.control.load(name, Overrides(config, held.directory if held else None), who)
            except BaseException:
                await self.files.discard(held)
                raise
            await self.files.keep(name, held)

        await self._in_turn(name, change)

    async def unload(self, name: str, dependents: bool, who: str) -> None:
        """As ModelControl.unload."""
        async def change() -> None:
            await self.control.unload(name, dependents, who)
            await self.files.keep(name, None)

        await self._in_turn(name, change)

    async def label(self, name: str, label: str, version: int, who: str) -> None:
        """As ModelControl.label."""
        await self._in_turn(name, lambda: self.control.label(name, label, version, who))

    async def close(self) -> None:
        """Ends the changes that are under way, and removes files that are not kept over a restart."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.files.close()

    async def _in_turn(self, name: str, change: Callable[[], Awaitable[None]]) -> None:
        if self.under_way >= self._max_calls:
            self.refused += 1
            raise ResourceExhausted(
                f"model {name!r}: {self._max_calls} loads, unloads and label moves run or wait already, which is the "
                "bound (--max-control-calls); try again when some have ended")
        self.under_way += 1
        turn = self._turns.setdefault(name, _Turn())
        turn.calls += 1
        try:
            await turn.lock.acquire()
        except BaseException:
            self._leave(name, turn)
            raise
        task = asyncio.get_running_loop().create_task(self._hold(name, turn, change))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        # The caller may go; the change goes on, and the next one waits for it.
        await asyncio.shield(task)

    async def _hold(self, name: str, turn: _Turn, change: Callable[[], Awaitable[None]]) -> None:
        try:
            await change()
        finally:
            turn.lock.release()
            self._leave(name, turn)

    def _leave(self, name: str, turn: _Turn) -> None:
        self.under_way -= 1
        turn.calls -= 1
        if not turn.calls:
            del self._turns[name]

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Whoever waits for it gets it; where nobody does, what came of the change is in the audit log.
            task.exception()


def caller(call: Call) -> str:
    """Who asks, as the audit log has it: the address, and where clients show a certificate whom it names."""
    return f"{call.peer} {call.identity}".rstrip()
