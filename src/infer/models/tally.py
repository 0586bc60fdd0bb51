"""What all models come to, kept up model by model, so that a step costs what its own models do. Loop thread, no I/O."""

from __future__ import annotations

from collections import Counter

from infer._core.router import ModelRoute
from infer.models.harness import State
from infer.models.served_model import ServedModel
from infer.models.status import unready_reason


class Tally:
    """Of each model as of the last `note`."""

    def __init__(self) -> None:
        self.untried = 0                        # versions that shall serve and have not been tried yet
        self.unready: dict[str, str] = {}       # why a model that shall be served is not, by name
        self.states: Counter[State] = Counter()
        self._noted: dict[str, tuple[int, list[State]]] = {}

    def gauges(self) -> dict[str, int]:
        return {"models_draining": self.states[State.DRAINING], "models_failed": self.states[State.FAILED],
                "models_ready": self.states[State.READY]}

    def note(self, model: ServedModel, route: ModelRoute) -> None:
        """The model as it is now; `route`: as it was made last."""
        self.forget(model.name)
        self._count(model)
        if reason := unready_reason(model, route):
            self.unready[model.name] = reason

    def recount(self, model: ServedModel) -> None:
        """A load of it has begun, of which its route says nothing."""
        self._discount(model.name)
        self._count(model)

    def forget(self, name: str) -> None:
        self._discount(name)
        self.unready.pop(name, None)

    def _count(self, model: ServedModel) -> None:
        untried, states = model.untried(), [row.state for row in model.table]
        self._noted[model.name] = untried, states
        self.untried += untried
        self.states.update(states)

    def _discount(self, name: str) -> None:
        untried, states = self._noted.pop(name, (0, []))
        self.untried -= untried
        self.states.subtract(states)
