"""Shadows of a server's models: what is asked for, and what of it can be, beside the versions that are served.

Loop thread, but for `gauges`. What was asked for by RPC is in the store before it applies, and stands over what the
settings say, also where it was to have none; what a rollout holds stands over both, for as long as it goes on. A
version that goes takes its shadow with it, and the next one begins anew when it is served: its counts are those of that
version.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from infer._core.model_version import VersionEntry
from infer._core.shadow import Shadow, ShadowPool
from infer.errors import FailedPrecondition, InferError, NotFound
from infer.shadow_plan import ShadowPlan, plan_of
from infer.state.store import Store

log = logging.getLogger("infer.traffic")

RECORD = "shadows"


class Route(Protocol):
    """What of a model is served."""

    @property
    def versions(self) -> Sequence[VersionEntry]: ...

    @property
    def labels(self) -> Mapping[str, VersionEntry]: ...


class Routes(Protocol):
    """Where requests lead."""

    def route_of(self, name: str) -> Any:
        """Of a model that is known; else None."""


class Shadows:
    """One per server. `written`: what the settings ask for, by model."""

    def __init__(self, pool: ShadowPool, store: Store, written: Mapping[str, ShadowPlan]) -> None:
        self.pool = pool
        self.running: dict[str, Shadow] = {}        # by model
        self.problems: dict[str, str] = {}          # why a model's is not running
        self._store = store
        self._written = dict(written)
        self._asked = _asked(store)
        self._held: dict[str, tuple[ShadowPlan, str]] = {}      # by model, and the version that it is of the calls of
        self._routes: Routes | None = None
        self._closed = False

    # What is asked for.

    @property
    def plans(self) -> dict[str, ShadowPlan]:
        """By model: what a rollout holds, else what was asked for by RPC, else what is written."""
        held = {model: plan for model, (plan, _) in self._held.items()}
        return {model: plan for model, plan in {**self._written, **self._asked, **held}.items() if plan is not None}

    def asked_by_rpc(self, model: str) -> bool:
        return model in self._asked

    def set_written(self, written: Mapping[str, ShadowPlan]) -> None:
        """The settings were read again."""
        before = self.plans
        self._written = dict(written)
        after = self.plans
        for model in [model for model in {**before, **after} if before.get(model) != after.get(model)]:
            self._apply(model)

    def hold(self, model: str, plan: ShadowPlan, primary: str) -> None:
        """The model's shadow is that, with copies of what version `primary` answers, until `let_go`. Nothing of it is
        kept."""
        self._held[model] = plan, primary
        self._apply(model)

    def let_go(self, model: str) -> None:
        if self._held.pop(model, None) is not None:
            self._apply(model)

    def held(self, model: str) -> bool:
        return model in self._held

    async def ask(self, model: str, plan: ShadowPlan | None) -> None:
        """Kept first, then applied; None: the model has none, whatever is written."""
        if self._routes is None or self._routes.route_of(model) is None:
            raise NotFound(f"model {model!r} is not known: `infer models` lists those that are")
        if model in self._held:
            raise FailedPrecondition(f"the shadow of model {model!r} is that of its rollout to version "
                                     f"{self._held[model][0].to}; end that first")
        if plan is None and model not in self.plans:
            raise NotFound(f"model {model!r} has no shadow")
        before = self._asked
        self._asked = {**before, model: plan}
        kept = self._store.save(RECORD, {name: None if each is None else each.record()
                                         for name, each in self._asked.items()})
        await asyncio.wrap_future(kept)
        self._apply(model)

    # What it comes to.

    def routed(self, routes: Routes) -> None:
        """Other versions may be served from now on; those that are not any more are about to be closed."""
        self._routes = routes
        for model in {**self.plans, **self.running}:
            self._apply(model)

    def _apply(self, model: str) -> None:
        if self._closed:
            return
        plan = self.plans.get(model)
        running = self.running.get(model)
        route = self._routes.route_of(model) if self._routes is not None else None
        target, problem = (None, "") if plan is None else _target(model, plan, route)
        if problem != self.problems.get(model, ""):
            self.problems.pop(model, None)
            if problem:
                self.problems[model] = problem
                log.warning("model %r has no shadow: %s", model, problem, extra={"model": model})
        if running is not None and (plan is None or running.target is not target
                                    or (running.rtol, running.atol) != (plan.rtol, plan.atol)):
            self.pool.end(self.running.pop(model))
            log.info("model %r version %s is no shadow any more", model, running.target.version,
                     extra={"model": model, "version": running.target.version})
            running = None
        if plan is None or target is None or route is None:
            return
        only = self._held[model][1] if model in self._held else ""
        primaries = tuple(entry for entry in route.versions if entry is not target and only in ("", entry.version))
        if running is None:
            self.running[model] = self.pool.begin(target, primaries, fraction=plan.fraction, rtol=plan.rtol,
                                                  atol=plan.atol)
            log.info("model %r version %s is a shadow: %s", model, target.version, plan,
                     extra={"model": model, "version": target.version})
            return
        if running.primaries != primaries:
            self.pool.copy_from(running, primaries)
        if running.fraction != plan.fraction:
            self.pool.set_fraction(running, plan.fraction)

    def close(self) -> None:
        """Ends all of them and the pool; what is asked for stays."""
        self._closed = True
        self.pool.stop()
        self.running = {}

    def gauges(self) -> dict[str, Any]:
        """By key of SERVER_METRICS. Any thread."""
        counts: dict[str, dict[tuple[str, ...], int]] = {name: {} for name in GAUGES}
        for model, shadow in list(self.running.items()):
            key = model, shadow.target.version
            counts["shadow_waiting"][key] = shadow.waiting
            for outcome in ("agreed", "differed", "failed"):
                counts["shadow_copies"][*key, outcome] = getattr(shadow, outcome)
            for reason, count in shadow.drops().items():
                counts["shadow_dropped"][*key, reason] = count
        return counts | {"shadow_bytes": self.pool.bytes}


GAUGES = ("shadow_waiting", "shadow_copies", "shadow_dropped")


def _asked(store: Store) -> dict[str, ShadowPlan | None]:
    found: dict[str, ShadowPlan | None] = {}
    for model, record in store.records().get(RECORD, {}).items():
        try:
            found[model] = None if record is None else plan_of(record)
        except InferError as error:
            log.error("model %r has no shadow: its record in the state directory cannot be used: %s", model,
                      error.message, extra={"model": model})
    return found


def _target(model: str, plan: ShadowPlan, route: Route | None) -> tuple[VersionEntry | None, str]:
    """The version that has the copies; else None, and why."""
    if route is None:
        return None, f"model {model!r} is not known"
    for entry in route.versions:
        if entry.version == plan.to:
            return entry, ""
    if plan.to in route.labels:
        return route.labels[plan.to], ""
    served = ", ".join(sorted((each.version for each in route.versions), key=int)) or "none"
    return None, (f"it has no version or label {plan.to!r} that is served; served: {served}; its version policy says "
                  "which versions are")
