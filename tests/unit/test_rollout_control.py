"""What rollouts ask of a server's models, where it cannot be had."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from infer.errors import ResourceExhausted
from infer.outcome_metrics import parse_metrics
from infer.rollout_control import RolloutModels
from infer.rollouts import RolloutSettings

METRICS = parse_metrics(["clicked:rate"])


class FakeOutcomes:
    """Has memory for a watch, or none."""

    def __init__(self) -> None:
        self.full = True
        self.watched: set[str] = set()

    def watch(self, model: str, metrics: object) -> None:
        if self.full:
            raise ResourceExhausted("no memory")
        self.watched.add(model)

    def unwatch(self, model: str) -> None:
        self.watched.remove(model)


def models(outcomes: Any = None) -> RolloutModels:
    served: Any = SimpleNamespace(traffic=SimpleNamespace(served=lambda model: None),
                                  watcher=SimpleNamespace(last=None))
    unused: Any = None
    return RolloutModels(served, unused, unused, outcomes, None)


def test_outcomes_that_could_not_be_counted_are_counted_once_there_is_memory() -> None:
    outcomes = FakeOutcomes()
    found = models(outcomes)
    with pytest.raises(ResourceExhausted):
        found.count_outcomes("m", METRICS)
    outcomes.full = False
    found.count_outcomes("m", METRICS)
    assert outcomes.watched == {"m"}
    found.count_outcomes("m", ())
    assert outcomes.watched == set()


async def test_a_version_that_is_gone_passes_no_gates() -> None:
    failure, told = await models().check("m", 4, RolloutSettings())
    assert (failure, told) == ("version 4 is not served any more", "")
