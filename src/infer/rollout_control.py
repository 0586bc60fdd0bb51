"""Rollouts of a server's models: traffic.controller over the manager, the routes and the arms. Loop thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from infer._core.arm import OUTPUTS
from infer._core.model_version import Hold, VersionEntry
from infer._core.output_sketch import BINS
from infer._core.router import ModelRoute
from infer.capture_plan import SUFFIX
from infer.errors import FailedPrecondition
from infer.gates import Gates
from infer.golden import FILE
from infer.lifecycle import Models
from infer.models.inside import resolve_inside
from infer.outcome_metrics import Metric
from infer.rollouts import RolloutSettings
from infer.security.audit import AuditLog
from infer.shadow_plan import ShadowPlan
from infer.split_plan import SplitPlan
from infer.state.store import Store
from infer.traffic.controller import Controller
from infer.traffic.looks import Sources, clump_of
from infer.traffic.outcomes import Outcomes
from infer.traffic.shadows import Shadows
from infer.traffic.splits import Splits

# What a version harms between two looks is not taken back.
LOOK_SECONDS = 0.5


class RolloutModels:
    """The ModelsView of the controller."""

    def __init__(self, models: Models, splits: Splits, shadows: Shadows, outcomes: Outcomes, captures: Path | None
                 ) -> None:
        """`captures`: the directory of captured calls."""
        self._models, self._splits, self._shadows, self._captures = models, splits, shadows, captures
        self._outcomes = outcomes
        self._counting: set[str] = set()        # models whose outcomes are counted for a rollout

    def route(self, model: str) -> ModelRoute | None:
        return self._models.traffic.served(model)

    def has_version(self, model: str, version: int) -> bool:
        snapshot = self._models.watcher.last
        seen = None if snapshot is None else snapshot.models.get(model)
        return seen is not None and version in seen.versions

    def names(self) -> Sequence[str]:
        return sorted({entry.name.decode() for entry in self._models.served
                       if entry.settings is not None and entry.settings.rollout is not None})

    def split(self, model: str) -> SplitPlan | None:
        return self._models.traffic.splits.get(model)

    def others(self, model: str) -> str:
        return self._splits.taken(model)

    def set_split(self, model: str, plan: SplitPlan | None) -> None:
        self._models.set_split(model, plan or self._splits.plans.get(model))
        for arm in self._models.traffic.arms.get(model, {}).values():
            arm.sketches = plan is not None

    def sources(self, model: str, baseline: int, to: int) -> Sources:
        entries = {str(version): self._entry(model, version) for version in (baseline, to)}
        candidate = entries[str(to)]
        return Sources(
            self._models.traffic.arms.get(model, {}), 1.0 if candidate is None else clump_of(candidate),
            self._shadows.running.get(model) if self._shadows.held(model) else None,
            self._outcomes.sums(model) if model in self._counting else {},
            {version: counted_outputs(entry) for version, entry in entries.items() if entry is not None})

    def _entry(self, model: str, version: int) -> VersionEntry | None:
        route = self.route(model)
        return None if route is None else next(
            (each for each in route.versions if each.version == str(version)), None)

    def count_outcomes(self, model: str, metrics: Sequence[Metric]) -> None:
        if metrics and model not in self._counting:
            # There may be no memory for it.
            self._outcomes.watch(model, metrics)
            self._counting.add(model)
        elif not metrics and model in self._counting:
            self._counting.remove(model)
            self._outcomes.unwatch(model)

    def shadow_taken(self, model: str) -> str:
        plan = None if self._shadows.held(model) else self._shadows.plans.get(model)
        return "" if plan is None else f"it has one already: {plan}"

    def set_shadow(self, model: str, baseline: int, plan: ShadowPlan | None) -> None:
        if plan is None:
            self._shadows.let_go(model)
        else:
            self._shadows.hold(model, plan, str(baseline))

    def ensure_gates(self, settings: RolloutSettings) -> None:
        self._captured(settings)

    def _captured(self, settings: RolloutSettings) -> Path | None:
        """The file that is replayed. Raises FailedPrecondition."""
        name = settings.gates.replay
        if not name:
            return None
        if self._captures is None:
            raise FailedPrecondition(f"gate replay={name}: this server has no --capture-dir, below which the file has "
                                     "to be")
        for path in (name, name + SUFFIX):
            try:
                found = resolve_inside(self._captures, self._captures / path)
            except OSError:
                continue
            if found.is_file():
                return found
        raise FailedPrecondition(f"gate replay={name}: {self._captures} has no such file; `infer capture status` lists "
                                 "those that are being made")

    async def check(self, model: str, version: int, settings: RolloutSettings) -> tuple[str, str]:
        snapshot, entry = self._models.watcher.last, self._entry(model, version)
        seen = None if snapshot is None else snapshot.models.get(model)
        if entry is None:
            return f"version {version} is not served any more", ""
        golden = None if seen is None or version not in seen.versions else seen.versions[version].directory / FILE
        try:
            gates = Gates(settings, golden if golden is not None and golden.is_file() else None,
                          self._captured(settings))
        except FailedPrecondition as error:
            return error.message, ""
        stopped = threading.Event()
        # It is not unloaded while it runs.
        hold = Hold(entry)
        work = asyncio.get_running_loop().run_in_executor(None, gates.checked, entry, stopped)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stopped.set()
            await asyncio.wait((work,))
            raise
        finally:
            hold.drop()

    async def move_label(self, model: str, label: str, version: int | None, who: str) -> None:
        await self._models.control.label(model, label, version or 0, who)


def counted_outputs(entry: VersionEntry) -> list[str]:
    """Names of the outputs that an Arm counts values of, in its order; "" for those without numbers."""
    return [info.name if info.served and info.datatype != "BYTES" else "" for info in entry.outputs[:OUTPUTS]]


class Rollouts:
    """One per server: the controller, and its clock."""

    def __init__(self, models: RolloutModels, store: Store, audit: AuditLog, *, loop: asyncio.AbstractEventLoop,
                 changed: Callable[[], None]) -> None:
        self.controller = Controller(models, store, audit, now=time.time, changed=changed, bins=BINS)
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    async def begin(self) -> None:
        """Once the models are there, and before calls come."""
        await self.controller.restore()
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)
        self.controller.step()

    async def close(self) -> None:
        """Nothing is looked at any more: what goes away from now on is no failure."""
        if self._timer is not None:
            self._timer.cancel()
        await self.controller.close()
