"""Experiments with a server's models: traffic.experiments over the splits, the routes and the arms. Loop thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from infer._core.arm import Arm
from infer.lifecycle import Models
from infer.security.audit import AuditLog
from infer.split_plan import SplitPlan
from infer.state.store import Store
from infer.traffic.experiments import Experiments
from infer.traffic.looks import clump_of
from infer.traffic.outcomes import Outcomes
from infer.traffic.splits import Splits

LOOK_SECONDS = 1.0


class ExperimentModels:
    """The ModelsView of experiments."""

    def __init__(self, models: Models, splits: Splits) -> None:
        self._models, self._splits = models, splits
        self._others = splits.taken

    def taken(self, model: str) -> str:
        plan = self._models.traffic.splits.get(model)
        return self._others(model) or ("" if plan is None else f"split {plan.name!r}")

    def ensure_served(self, model: str, plan: SplitPlan) -> None:
        self._splits.ensure_served(model, plan)

    def set_split(self, model: str, plan: SplitPlan | None) -> None:
        self._models.set_split(model, plan or self._splits.plans.get(model))

    def arms(self, model: str) -> Mapping[str, Arm]:
        return self._models.traffic.arms.get(model, {})

    def clump(self, model: str, arm: str) -> float:
        traffic = self._models.traffic
        plan = traffic.splits.get(model)
        entry = None if plan is None else traffic.entries(model, plan).get(arm)
        return 1.0 if entry is None else clump_of(entry)

    def missing(self, model: str) -> Mapping[str, str]:
        return self._models.traffic.unready.get(model, {})


class ExperimentClock:
    """One per server: the experiments, and when they are looked at."""

    def __init__(self, models: Models, splits: Splits, outcomes: Outcomes, store: Store, audit: AuditLog, *,
                 loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        others = splits.taken
        self.experiments = Experiments(ExperimentModels(models, splits), outcomes, store, audit, now=time.time,
                                       changed=changed)
        splits.taken = lambda model: others(model) or self.experiments.taken(model)
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    async def begin(self) -> None:
        """Once the models are there, and before calls come: what is written has begun by then if it can."""
        self.experiments.restore()
        self.experiments.step()
        await self.experiments.settled()
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)
        self.experiments.step()

    async def close(self) -> None:
        """What has come is handed to the store, and nothing is looked at any more."""
        if self._timer is not None:
            self._timer.cancel()
            self.experiments.set_written({})
            self.experiments.step()
        await self.experiments.settled()
