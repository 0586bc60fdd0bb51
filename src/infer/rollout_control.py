"""Rollouts of a server's models: traffic.controller over the manager, the routes and the arms. Loop thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from infer._core.arm import Arm
from infer._core.output_sketch import BINS
from infer._core.router import ModelRoute
from infer._core.shadow import Shadow
from infer.golden import FILE, failure_of
from infer.lifecycle import Models
from infer.security.audit import AuditLog
from infer.shadow_plan import ShadowPlan
from infer.split_plan import SplitPlan
from infer.state.store import Store
from infer.traffic.controller import Controller
from infer.traffic.shadows import Shadows
from infer.traffic.splits import Splits

LOOK_SECONDS = 1.0


class RolloutModels:
    """The ModelsView of the controller."""

    def __init__(self, models: Models, splits: Splits, shadows: Shadows) -> None:
        self._models, self._splits, self._shadows = models, splits, shadows

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

    def set_split(self, model: str, plan: SplitPlan | None) -> None:
        self._models.set_split(model, plan or self._splits.plans.get(model))

    def arms(self, model: str) -> Mapping[str, Arm]:
        return self._models.traffic.arms.get(model, {})

    def shadow(self, model: str) -> Shadow | None:
        return self._shadows.running.get(model) if self._shadows.held(model) else None

    def shadow_taken(self, model: str) -> str:
        plan = None if self._shadows.held(model) else self._shadows.plans.get(model)
        return "" if plan is None else f"it has one already: {plan}"

    def set_shadow(self, model: str, baseline: int, plan: ShadowPlan | None) -> None:
        if plan is None:
            self._shadows.let_go(model)
        else:
            self._shadows.hold(model, plan, str(baseline))

    async def check(self, model: str, version: int) -> str:
        """By the version's golden inputs and outputs, where it has any."""
        snapshot, route = self._models.watcher.last, self.route(model)
        seen = None if snapshot is None else snapshot.models.get(model)
        entry = None if route is None else next((each for each in route.versions if each.version == str(version)), None)
        if seen is None or entry is None or version not in seen.versions:
            return ""
        path = seen.versions[version].directory / FILE
        if not path.is_file():
            return ""
        return await asyncio.get_running_loop().run_in_executor(None, failure_of, entry.session, path)

    async def move_label(self, model: str, label: str, version: int | None, who: str) -> None:
        await self._models.control.label(model, label, version or 0, who)


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
        await self.controller.settled()
