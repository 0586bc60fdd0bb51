"""What a look tells the tests of a step: what came since the look before, of the two versions that it is about."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from infer.rollouts import RolloutSettings, parse_guardrails
from infer.traffic.guardrails import StepTests
from infer.traffic.looks import Sources, StepLooks, clump_of, compared, counted
from infer.traffic.outcomes import Sums
from infer.traffic.rollout import RolloutPlan
from infer.traffic.seen import Copies, Seen

SETTINGS = RolloutSettings((0.0, 10.0, 100.0), guardrails=parse_guardrails(("disagreement=0.1", "outcome:bought=-0.1")))


class Arm:
    def __init__(self) -> None:
        self.calls = [0] * 17
        self.bins: list[dict[int, int]] = [{}, {}, {}]

    def add(self, ok: int, cancelled: int, failed: int, place: int) -> None:
        self.calls[0] += ok
        self.calls[1] += cancelled
        self.calls[13] += failed
        for bins in self.bins:
            bins[place] = bins.get(place, 0) + ok

    def buckets(self) -> list[tuple[int, int]]:
        return [(1000, self.calls[0])]

    def output_bins(self) -> list[dict[int, int]]:
        return [dict(each) for each in self.bins]


def shadow_of(agreed: int = 0, differed: int = 0, failed: int = 0, **outputs: tuple[int, int]) -> Any:
    return SimpleNamespace(agreed=agreed, differed=differed, failed=failed, outputs_compared=lambda: {
        name: {"top1": top1, "top1_same": same} for name, (top1, same) in outputs.items()})


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Seen, Seen]]:
    """What the tests were told."""
    added: list[tuple[Seen, Seen]] = []
    monkeypatch.setattr(StepTests, "add", lambda tests, a, b: added.append((a, b)))
    return added


def looks() -> StepLooks:
    return StepLooks(RolloutPlan(3, 4, SETTINGS), 8)


def test_calls_and_outputs_by_name(told: list[tuple[Seen, Seen]]) -> None:
    made, three, four = looks(), Arm(), Arm()
    names = {"3": ["y", "", "w"], "4": ["w", "", "y"]}
    three.add(100, 5, 5, 1)
    for _ in range(3):
        made.verdict((1, 0.0), Sources({"3": three, "4": four, "5": Arm()}, 2.0, outputs=names))
        three.add(10, 1, 2, 1)
        four.add(4, 0, 1, 2)
        four.bins[2][7] = four.bins[2].get(7, 0) + 1
    assert [(a.calls, a.errors, a.latency, a.outputs) for a, _ in told] == [
        (12, 2, {1000: 10}, {"y": {1: 10}, "w": {1: 10}})] * 2
    assert [(b.calls, b.errors, b.outputs, b.clump) for _, b in told] == [
        (5, 1, {"w": {2: 4}, "y": {2: 4, 7: 1}}, 2.0)] * 2


def test_before_there_are_arms_a_shadow_tells_alone(told: list[tuple[Seen, Seen]]) -> None:
    made = looks()
    shadow = shadow_of(5, 1, 1)
    made.verdict((0, 0.0), Sources({}, shadow=shadow))
    shadow.agreed, shadow.failed = 15, 3
    made.verdict((0, 0.0), Sources({}, shadow=shadow))
    # Loaded anew: another one, whose counts are its own.
    made.verdict((0, 0.0), Sources({}, shadow=shadow_of(3)))
    made.verdict((0, 0.0), Sources({}))
    assert [(a.calls, b.calls, b.copies) for a, b in told] == [
        (0, 0, Copies(12, 2)), (0, 0, Copies()), (0, 0, Copies())]


def test_a_step_begins_anew_with_what_comes_after_it(told: list[tuple[Seen, Seen]]) -> None:
    made, shadow = looks(), shadow_of(5)
    for step, agreed in (((0, 1.0), 10), ((0, 1.0), 20), ((1, 2.0), 40), ((1, 2.0), 70)):
        shadow.agreed = agreed
        made.verdict(step, Sources({}, shadow=shadow))
    assert [b.copies.compared for _, b in told] == [10, 30]


def test_outcomes(told: list[tuple[Seen, Seen]]) -> None:
    made = looks()
    for outcomes in ({}, {"3": {"bought": Sums(5, 2.0, 2.0)}},
                     {"3": {"bought": Sums(9, 3.0, 3.0)}, "4": {"bought": Sums(2, 1.0, 1.0)}, "5": {}},
                     # Nobody has counted them meanwhile.
                     {"3": {"bought": Sums(1, 1.0, 1.0)}}):
        made.verdict((1, 0.0), Sources({}, outcomes=outcomes))
    assert [(a.outcomes.get("bought"), b.outcomes.get("bought")) for a, b in told] == [
        (Sums(5, 2.0, 2.0), None), (Sums(4, 1.0, 1.0), Sums(2, 1.0, 1.0)), (Sums(1, 1.0, 1.0), None)]


def test_what_a_shadow_has_compared() -> None:
    assert compared(None) == Copies()
    assert compared(shadow_of(5, 3, 2, y=(10, 9), w=(4, 1))) == Copies(10, 5, 14, 4)


def test_calls_that_share_a_batch() -> None:
    def version(calls: int, rows: int, batches: int) -> Any:
        return SimpleNamespace(stats_snapshot=lambda *_: {
            "calls": [calls, 7], "batch_rows": (batches, rows, ()), "batches": batches})

    assert clump_of(version(0, 0, 0)) == 1.0
    assert clump_of(version(100, 100, 25)) == 4.0
    # Most are answered by the cache; and calls of several rows.
    assert clump_of(version(1000, 100, 50)) == 2.0
    assert clump_of(version(100, 3000, 50)) == 2.0


def test_an_arm_whose_outputs_have_no_names() -> None:
    assert counted(Arm()).outputs == {}
