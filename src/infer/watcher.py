"""Looks at the model repositories on a thread of its own, again and again, and deletes versions that nobody keeps.

Every look, and every deletion, runs on the one thread: none sees another half done. All else is for the loop thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from infer.models.problems import Problem
from infer.models.removal import age_s, finish_removals, remove
from infer.models.settings import ModelSettings
from infer.models.snapshot import ModelSeen, Snapshot
from infer.models.source import Source

log = logging.getLogger("infer.models")

# Model, version, why its directory is still there.
Removed = Callable[[str, int, str], None]
T = TypeVar("T")
# Looks take at most this share of one core's time: a thousand models are looked at less often than ten.
LOOK_SHARE = 0.02


class Watcher:
    """`take` gets every look; `removable` says, by name and ages, which versions are to be deleted now, and `removed`
    hears what came of it."""

    def __init__(self, source: Source, take: Callable[[Snapshot], None], *, interval_s: float, settle_s: float,
                 removable: Callable[[str, Mapping[int, float]], tuple[int, ...]], removed: Removed) -> None:
        self.looks = 0
        self.problems = 0               # errors that the last look found
        self.last: Snapshot | None = None
        self._source = source
        self._take, self._removable, self._removed = take, removable, removed
        self._interval_s, self._settle_s = interval_s, settle_s
        self._look_s = 0.0
        self._thread = ThreadPoolExecutor(1, "infer-source")
        self._told: frozenset[str] = frozenset()
        self._kept: dict[str, ModelSeen] = {}
        self._soon = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def look(self) -> Snapshot:
        """One look, taken in."""
        snapshot = await self._elsewhere(self._observed)
        if snapshot is not self.last:
            self._tell(snapshot.problems)
            self._kept = {name: model for name, model in snapshot.models.items() if is_bounded(model.settings)}
            self.last = snapshot
        self.looks += 1
        self._take(snapshot)
        return snapshot

    def _observed(self) -> Snapshot:
        begin_s = time.thread_time()
        snapshot = self._source.observe(time.monotonic_ns())
        self._look_s = time.thread_time() - begin_s
        return snapshot

    @property
    def pause_s(self) -> float:
        """Between the last look and the next, unless one is asked for."""
        return max(self._interval_s, self._look_s / LOOK_SHARE)

    async def fresh(self, name: str) -> None:
        """A look for a load that is asked for. Where a version of the model was just copied, another one once that can
        be told from a copy that goes on."""
        model = (await self.look()).models.get(name)
        if model is not None and any(not files.whole and not files.fault for files in model.versions.values()):
            due_s = time.monotonic() + self._settle_s
            # The loop's timers are early by as much as it was busy when they were set.
            while (left_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(left_s)
            await self.look()

    def begin(self) -> None:
        """Looks again and again from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def set_written(self, written: Mapping[str, ModelSettings]) -> None:
        """What the operator wrote by now; the next look is at once."""
        self._source.set_written(written)
        self._soon.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._soon.wait(), self.pause_s)
            self._soon.clear()
            try:
                await self.look()
                await self._remove()
            except Exception:
                log.exception("a look at the repositories failed; it is made again")

    async def _elsewhere(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        """Logs each problem once, for as long as it is there."""
        texts = {str(problem): problem for problem in problems}
        for text, problem in texts.items():
            if text not in self._told:
                log.log(logging.ERROR if problem.is_error else logging.WARNING, "%s", text)
        self._told = frozenset(texts)
        self.problems = sum(problem.is_error for problem in problems)

    def has_told(self, text: str) -> bool:
        return text in self._told

    async def _remove(self) -> None:
        for name, model in list(self._kept.items()):
            ages_s = await self._elsewhere(ages, model)
            for version in self._removable(name, ages_s):
                self._removed(name, version, await self._elsewhere(removal, model, version))


def is_bounded(settings: ModelSettings) -> bool:
    return settings.keep_versions is not None or settings.keep_age_s is not None


def ages(model: ModelSeen) -> dict[int, float]:
    """By version, in seconds since its directory or a file in it last changed. What earlier deletions left goes."""
    if model.settings.base is not None:
        finish_removals(model.settings.base)
    now = time.time()
    return {version: age for version, files in model.versions.items()
            if files.whole and (age := age_s(files.directory, now)) is not None}


def removal(model: ModelSeen, version: int) -> str:
    """Deletes a version's directory; why it is still there, or ""."""
    directory, base = model.versions[version].directory, model.settings.base
    if base is None:
        return f"{directory} is not in a model's directory, and is not removed"
    try:
        remove(base, directory)
    except OSError as error:
        return f"{directory} cannot be removed: {error.strerror or error}"
    return ""
