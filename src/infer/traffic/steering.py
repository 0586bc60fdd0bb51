"""What the traffic of a model does for a rollout: its split, the shadow of the candidate, and outcomes that
are counted. Loop thread."""

from __future__ import annotations

from infer.shadow_plan import ShadowPlan
from infer.split_plan import ArmPlan, SplitPlan
from infer.traffic.rollout import Rollout
from infer.traffic.views import ModelsView


class Steering:
    """One per server; keeps nothing."""

    def __init__(self, models: ModelsView) -> None:
        self._models = models

    def follow(self, model: str, rollout: Rollout, weight: float) -> None:
        """`weight`: percent of the calls that the candidate has from now on."""
        self._mirror(model, rollout)
        self._models.count_outcomes(model, rollout.plan.settings.metrics if rollout.compares else ())
        if not weight:
            self.give_back(model, rollout)
            return
        baseline, to = str(rollout.plan.baseline), str(rollout.plan.to)
        self._models.set_split(model, SplitPlan(
            (ArmPlan(baseline, 100.0 - weight, baseline), ArmPlan(to, weight, to)), name=_name(rollout)))

    def give_back(self, model: str, rollout: Rollout) -> None:
        """The requests are divided as others ask for, where the rollout has divided them."""
        found = self._models.split(model)
        if found is not None and found.name == _name(rollout):
            self._models.set_split(model, None)

    def _mirror(self, model: str, rollout: Rollout) -> None:
        """The candidate is a shadow while it is compared with the baseline."""
        plan, settings = rollout.plan, rollout.plan.settings
        compared = settings.has_shadow and rollout.compares
        self._models.set_shadow(model, plan.baseline, ShadowPlan(
            str(plan.to), settings.shadow_fraction, settings.rtol, settings.atol) if compared else None)


def _name(rollout: Rollout) -> str:
    return f"rollout-{rollout.plan.baseline}-{rollout.plan.to}"
