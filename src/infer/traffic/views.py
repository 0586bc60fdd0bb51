"""What the controller of rollouts asks of the server around it. Loop thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from infer.outcome_metrics import Metric
from infer.rollouts import RolloutSettings
from infer.shadow_plan import ShadowPlan
from infer.split_plan import SplitPlan
from infer.traffic.looks import Sources


class ModelsView(Protocol):
    """The models of the server."""

    def route(self, model: str) -> Any:
        """The ModelRoute as the manager has it; None for a model that is not known."""

    def has_version(self, model: str, version: int) -> bool:
        """Whether the repositories hold it."""

    def names(self) -> Sequence[str]: ...

    def split(self, model: str) -> SplitPlan | None: ...

    def others(self, model: str) -> str:
        """What else divides the model's requests, or is about to; "" for nothing."""

    def set_split(self, model: str, plan: SplitPlan | None) -> None:
        """None: as it is asked for otherwise."""

    def sources(self, model: str, baseline: int, to: int) -> Sources:
        """What there is to be looked at of the two versions; shadow and outcomes are those that were asked for here."""

    def count_outcomes(self, model: str, metrics: Sequence[Metric]) -> None:
        """That clients report of its replies, from now on; none: no more of them."""

    def shadow_taken(self, model: str) -> str:
        """What else the model has a shadow for; "" for nothing."""

    def set_shadow(self, model: str, baseline: int, plan: ShadowPlan | None) -> None:
        """Of the calls of that version; None: as it is asked for otherwise."""

    def ensure_gates(self, settings: RolloutSettings) -> None:
        """Raises FailedPrecondition where what they need is not there."""

    async def check(self, model: str, version: int, settings: RolloutSettings) -> tuple[str, str]:
        """Why the version, which is ready, is not to have any calls, "" where it may; and what it came to. Ends early
        where it is cancelled."""

    async def move_label(self, model: str, label: str, version: int | None, who: str) -> None:
        """Returns once it is kept; None for what the settings say."""


class StoreView(Protocol):
    def records(self) -> Mapping[str, Any]: ...

    def save(self, model: str, record: Any) -> Future[bool]: ...


class AuditView(Protocol):
    def record(self, event: str, *, outcome: str, who: str, model: str = "", version: str = "",
               detail: str = "") -> object: ...
