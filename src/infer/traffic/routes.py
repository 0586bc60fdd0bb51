"""What plans come to beside what is served: each model's route with its split, and the Arms that last.

Loop thread, but for `arms` and `unready`, which are replaced whole and may be read from any thread. The routes of the
manager go in, those that the table gets come out. An Arm is kept for as long as the split of its name has it, so that
its numbers go on over changes of weights and versions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from infer._core.arm import Arm
from infer._core.model_version import VersionEntry
from infer._core.recent import Recent
from infer._core.router import ModelRoute
from infer._core.variants import Split
from infer.split_plan import ArmPlan, SplitPlan

log = logging.getLogger("infer.traffic")

Changes = Mapping[str, ModelRoute | None]


class Traffic:
    """One per server."""

    def __init__(self) -> None:
        self.splits: dict[str, SplitPlan] = {}
        self.arms: Mapping[str, Mapping[str, Arm]] = {}         # by model and name
        self.unready: Mapping[str, Mapping[str, str]] = {}      # why, by model and name of an arm
        self._divisions: dict[str, Split] = {}
        self._remembering: dict[str, tuple[Recent, Callable[[str], int]]] = {}
        self._served: dict[str, ModelRoute] = {}
        self._changed: set[str] = set()
        self._closed = False

    def set_split(self, model: str, plan: SplitPlan | None) -> None:
        """From the next `merged` on; None: its requests are not divided any more."""
        before = self.splits.get(model)
        if plan is None:
            self.splits.pop(model, None)
            self._divisions.pop(model, None)
        else:
            self.splits[model] = plan
        kept = self.arms.get(model, {}) if plan and before and plan.name == before.name else {}
        arms = {arm.name: kept.get(arm.name) or Arm(model, plan.name, arm.name) for arm in plan.arms} if plan else {}
        others = {name: each for name, each in self.arms.items() if name != model}
        self.arms = {**others, model: arms} if arms else others
        if model in self._remembering:
            self.remember(model, *self._remembering[model])
        self._changed.add(model)

    def remember(self, model: str, recent: Recent | None, number_of: Callable[[str], int] = lambda name: 0) -> None:
        """The ids of its divided requests are put into `recent` from now on, under the number of their arm's name."""
        if recent is None:
            self._remembering.pop(model, None)
        else:
            self._remembering[model] = recent, number_of
        for name, arm in self.arms.get(model, {}).items():
            arm.remember(recent, 0 if recent is None else number_of(name))

    def arm_of(self, model: str, key: bytes) -> str | None:
        """The name of the arm that a routing key of the model belongs to now; None: it belongs to none."""
        division = self._divisions.get(model)
        arm = None if division is None else division.arms[division.choose(key)]
        return None if arm is None else arm.name

    def merged(self, changes: Changes) -> dict[str, ModelRoute | None]:
        """Those, and what else they and new plans change, as the table is to have them."""
        for name, route in changes.items():
            if route is None:
                self._served.pop(name, None)
            else:
                self._served[name] = route
        found = dict(changes)
        for name in self._changed:
            if name in self._served:
                found[name] = self._served[name]
        for name, plan in self.splits.items():
            if name in self._served and (name in found or any(arm.model in changes for arm in plan.arms)):
                found[name] = self._divided(name, plan, self._served[name])
        self._changed = {name for name in self._changed if name not in self._served}
        self._tell()
        return found

    def close(self) -> None:
        """Versions that go from now on go with the server."""
        self._closed = True

    @property
    def gauges(self) -> dict[str, Any]:
        """By key of SERVER_METRICS; `variants`: every Arm. Any thread."""
        return {"variants": [arm for arms in self.arms.values() for arm in arms.values()],
                "variants_unready": {(model, name): 1 for model, missing in self.unready.items() for name in missing}}

    def missing(self, model: str, plan: SplitPlan) -> dict[str, str]:
        """The arms that lead to nothing served, and why. `model` itself may not be."""
        return {arm.name: why for arm in plan.arms if (why := self._target(model, arm)[1])}

    def entries(self, model: str, plan: SplitPlan) -> dict[str, VersionEntry]:
        """What its arms lead to now, by name; none of those that are not served."""
        return {arm.name: entry for arm in plan.arms if (entry := self._target(model, arm)[0]) is not None}

    def served(self, model: str) -> ModelRoute | None:
        """As the manager has it."""
        return self._served.get(model)

    def _target(self, model: str, arm: ArmPlan) -> tuple[VersionEntry | None, str]:
        """What the arm leads to; else None, and why."""
        name = arm.model or model
        route = self._served.get(name)
        if route is None:
            return None, f"model {name!r} is not known"
        for entry in route.versions:
            if entry.version == arm.version:
                return entry, ""
        if arm.version in route.labels:
            return route.labels[arm.version], ""
        if arm.version in route.unready:
            return None, route.unready[arm.version][1]
        served = ", ".join(sorted((each.version for each in route.versions), key=int)) or "none"
        return None, (f"model {name!r} has no version or label {arm.version!r}; served: {served}; its version policy "
                      "says which versions are")

    def _divided(self, model: str, plan: SplitPlan, route: ModelRoute) -> ModelRoute:
        arms = self.arms[model]
        targets = {arm.name: self._target(model, arm)[0] for arm in plan.arms}
        # What an arm that is not ready would get goes to the default, and counts for the arm that leads there.
        default = next((arms[name] for name, entry in targets.items() if entry is not None and entry is route.default),
                       None)
        # The same name elsewhere is another experiment.
        salt = f"{model}/{plan.name}"
        order = [arm.name for arm in plan.arms]
        self._divisions[model] = division = Split(
            salt, [(arm.name, float(arm.weight), arms[arm.name] if targets[arm.name] is not None else default,
                    targets[arm.name]) for arm in plan.arms],
            [(key.encode(), order.index(arm)) for key, arm in plan.rules.items()], plan.key)
        return route._replace(split=division)

    def _tell(self) -> None:
        """Logs the arms that have come to be without a version, or with one again."""
        if self._closed:
            return
        unready = {model: missing for model, plan in self.splits.items() if (missing := self.missing(model, plan))}
        for model, missing in unready.items():
            for name, why in missing.items():
                if name not in self.unready.get(model, {}):
                    log.warning("model %r: variant %r of its split is not served, and its share goes to the default "
                                "version: %s", model, name, why, extra={"model": model, "variant": name})
        for model, before in self.unready.items():
            for name in before:
                if name not in unready.get(model, {}) and name in self.arms.get(model, {}):
                    log.info("model %r: variant %r of its split is served again", model, name,
                             extra={"model": model, "variant": name})
        self.unready = unready
