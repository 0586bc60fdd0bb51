"""The controller over models, a store and arms that a test makes up: what is kept, and what the traffic does then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from infer.errors import FailedPrecondition, NotFound, ResourceExhausted, Unavailable
from infer.gate_plan import GatePlan
from infer.outcome_metrics import Metric
from infer.rollouts import RolloutSettings, parse_guardrails
from infer.shadow_plan import ShadowPlan
from infer.split_plan import ArmPlan, SplitPlan
from infer.traffic.controller import MAX_PAST, Controller
from infer.traffic.looks import Sources
from infer.traffic.outcomes import Sums
from tests.support.turns import turn

ERRORS = parse_guardrails(("p50=off", "p99=off", "drift=off"))
QUICK = RolloutSettings((10.0, 50.0, 100.0), 10.0, ERRORS)


class FakeArm:
    """Counters of a variant."""

    def __init__(self) -> None:
        self.calls = [0] * 17

    def add(self, calls: int, errors: int = 0) -> None:
        self.calls[0] += calls - errors
        self.calls[13] += errors

    def buckets(self) -> list[tuple[int, int]]:
        return [(1000, self.calls[0])] if self.calls[0] else []

    def output_bins(self) -> list[dict[int, int]]:
        return []


def entry(version: int, settings: RolloutSettings | None = None) -> Any:
    return SimpleNamespace(version=str(version), guard=None, settings=SimpleNamespace(rollout=settings))


class Fake:
    """Models, store and audit log in one; `log` is what was done, in its order."""

    def __init__(self, *versions: int, settings: RolloutSettings | None = None) -> None:
        self.entries = {version: entry(version, settings) for version in versions}
        self.unready: dict[str, tuple[int, str]] = {}
        self.labels: dict[str, int] = {}
        self.plan: SplitPlan | None = None
        self.written: SplitPlan | None = None
        self.made: dict[str, FakeArm] = {}
        self.mirrored: ShadowPlan | None = None
        self.copied = SimpleNamespace(agreed=0, differed=0, failed=0, outputs_compared=dict)
        self.shadow_problem = ""
        self.counted: tuple[str, ...] = ()
        self.reported: dict[str, dict[str, Sums]] = {}
        self.in_repository: set[int] = set()
        self.log: list[Any] = []
        self.kept: dict[str, Any] = {}
        self.hangs = False
        self.refuses_labels = False
        self.other = ""
        self.gate = ""
        self.endless = False
        self.audited: list[tuple[str, str, str]] = []

    def names(self) -> list[str]:
        return ["m"]

    def route(self, model: str) -> Any:
        if model != "m":
            return None
        labels = {label: self.entries[version] for label, version in self.labels.items() if version in self.entries}
        default = labels.get("stable") if "stable" in self.labels else (
            self.entries[max(self.entries)] if self.entries else None)
        return SimpleNamespace(versions=tuple(self.entries.values()), labels=labels, default=default,
                               unready=self.unready)

    def has_version(self, model: str, version: int) -> bool:
        return version in self.in_repository

    def split(self, model: str) -> SplitPlan | None:
        return self.plan

    def others(self, model: str) -> str:
        return self.other

    def set_split(self, model: str, plan: SplitPlan | None) -> None:
        self.plan = plan = plan or self.written
        if plan is None:
            self.made = {}
        else:
            self.made = {arm.name: self.made.get(arm.name) or FakeArm() for arm in plan.arms}
        self.log.append(("weight", self.weight))

    @property
    def weight(self) -> float:
        return 0.0 if self.plan is None else self.plan.arms[1].weight

    def sources(self, model: str, baseline: int, to: int) -> Sources:
        return Sources(self.made, 1.0, None if self.mirrored is None else self.copied, self.reported)

    def count_outcomes(self, model: str, metrics: Sequence[Metric]) -> None:
        self.counted = tuple(each.name for each in metrics)

    def shadow_taken(self, model: str) -> str:
        return self.shadow_problem

    def set_shadow(self, model: str, baseline: int, plan: ShadowPlan | None) -> None:
        if plan != self.mirrored:
            self.log.append(("shadow", baseline, None if plan is None else plan.to))
            self.copied = SimpleNamespace(agreed=0, differed=0, failed=0, outputs_compared=dict)
        self.mirrored = plan

    def ensure_gates(self, settings: RolloutSettings) -> None:
        if settings.gates.replay:
            raise FailedPrecondition("no such file")

    async def check(self, model: str, version: int, settings: RolloutSettings) -> tuple[str, str]:
        if self.endless:
            self.log.append("checking")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.log.append("given up")
        return self.gate, "as good as gold"

    async def move_label(self, model: str, label: str, version: int | None, who: str) -> None:
        if self.refuses_labels:
            raise Unavailable("not now")
        await turn()
        self.log.append((label, version))
        if version is None:
            self.labels.pop(label, None)
        else:
            self.labels[label] = version

    def records(self) -> dict[str, Any]:
        return {"rollouts": json.loads(json.dumps(self.kept))} if self.kept else {}

    def save(self, name: str, record: Any) -> Future[bool]:
        future: Future[bool] = Future()
        if not self.hangs:
            self.kept = json.loads(json.dumps(record))
            self.log.append(("kept", record["m"]["rollout"]["state"], self.weight))
            future.set_result(True)
        return future

    def record(self, event: str, *, outcome: str, who: str, model: str = "", version: str = "", detail: str = ""
               ) -> None:
        self.audited.append((outcome, version, who))


class Rig:
    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.now = 1000.0
        self.rng = np.random.default_rng(1)
        self.restarted()

    def restarted(self) -> None:
        self.controller = Controller(self.fake, self.fake, self.fake, now=lambda: self.now)

    async def second(self, errors: float = 0.0, rate: int = 2000) -> None:
        """Of traffic, and a look at it."""
        for name, arm in self.fake.made.items():
            share = next(each.weight for each in self.fake.plan.arms if each.name == name) / 100
            calls = int(self.rng.poisson(rate * share))
            arm.add(calls, int(self.rng.binomial(calls, errors if name == "4" else 0.001)))
        self.now += 1
        self.controller.step()
        await self.controller.settled()

    async def until(self, state: str, errors: float = 0.0, seconds: int = 300) -> None:
        for _ in range(seconds):
            if self.state == state:
                return
            await self.second(errors)
        raise AssertionError((self.state, self.fake.log))

    @property
    def state(self) -> str:
        return self.controller.rollouts()["m"].state


async def started(settings: RolloutSettings = QUICK, *versions: int) -> Rig:
    rig = Rig(Fake(*(versions or (3, 4))))
    rig.fake.labels["stable"] = 3
    await rig.controller.start("m", to=4, settings=settings, who="ann", reason="better")
    return rig


async def test_a_good_version_gets_all_of_it() -> None:
    rig = await started()
    assert (rig.state, rig.fake.plan) == ("waiting", None)
    await rig.until("done")
    assert rig.fake.labels == {"stable": 4}
    assert rig.fake.plan is None
    weights = [each[1] for each in rig.fake.log if each[0] == "weight"]
    assert weights == [10.0, 50.0, 100.0, 0.0]
    # The label has moved before the split is gone, so that no call falls back to the old version.
    assert rig.fake.log.index(("stable", 4)) < rig.fake.log.index(("weight", 0.0))
    assert [each[0] for each in rig.fake.audited] == ["start", "gates", "step", "step", "done"]
    assert rig.controller.gauges["rollouts_ended"] == {"done": 1}


async def test_what_was_decided_is_kept_before_it_takes_effect() -> None:
    rig = await started()
    await rig.until("done")
    log = rig.fake.log
    for at, what in enumerate(log):
        if what[0] == "weight" and what[1]:
            before = [each for each in log[:at] if each[0] == "kept"][-1]
            assert before[1] == ("done" if what[1] == 100 else "running")
            assert before[2] < what[1]


@pytest.mark.parametrize("paused", [False, True])
async def test_a_bad_version_is_taken_back(paused: bool) -> None:
    rig = await started()
    await rig.second()
    await rig.second()
    if paused:
        await rig.controller.change("m", "pause", who="ann")
    await rig.until("rolled back", errors=0.05, seconds=30)
    assert (rig.fake.plan, rig.fake.labels) == (None, {"stable": 3})
    assert rig.controller.gauges["rollout_weight"] == {("m", "4"): 0.0}
    assert "errors" in rig.controller.rollouts()["m"].history[-1].reason
    # It is kept that nothing is left to be done.
    assert rig.fake.kept["m"]["unfinished"] is False


async def test_an_open_breaker_and_a_version_that_is_gone() -> None:
    rig = await started()
    await rig.second()
    rig.fake.entries[4].guard = SimpleNamespace(state="open", why="20 of 20 calls failed")
    await rig.second()
    assert (rig.state, rig.fake.plan) == ("rolled back", None)
    rig = await started()
    await rig.second()
    await rig.second()
    assert rig.fake.weight == 10.0
    del rig.fake.entries[4]
    await rig.second()
    assert (rig.state, rig.fake.plan) == ("rolled back", None)


async def test_a_version_that_is_not_loaded_yet() -> None:
    rig = Rig(Fake(3))
    rig.fake.in_repository = {3, 4}
    await rig.controller.start("m", to=4, settings=QUICK, who="ann")
    assert rig.fake.labels == {"stable": 3, "canary": 4}
    await rig.second()
    assert rig.state == "waiting"
    rig.fake.unready["4"] = (14, "is loading")
    await rig.second()
    assert rig.state == "waiting"
    rig.fake.unready["4"] = (9, "is broken")
    await rig.second()
    assert rig.state == "rolled back"
    assert rig.controller.rollouts()["m"].history[-1].reason == "is broken"


async def test_what_cannot_be_started() -> None:
    rig = Rig(Fake(3, 4))
    rig.fake.labels["stable"] = 3
    for model, fields, error in [
            ("n", {"to": 4}, NotFound), ("m", {"to": 5}, NotFound), ("m", {"to": 3}, FailedPrecondition),
            ("m", {"to": 4, "baseline": 2}, FailedPrecondition)]:
        with pytest.raises(error):
            await rig.controller.start(model, settings=QUICK, who="ann", **fields)
    rig.fake.plan = SplitPlan((ArmPlan("a", 1, "3"), ArmPlan("b", 1, "4")))
    with pytest.raises(FailedPrecondition, match="split"):
        await rig.controller.start("m", to=4, settings=QUICK, who="ann")
    rig.fake.plan = None
    await rig.controller.start("m", to=4, settings=QUICK, who="ann")
    assert rig.controller.rollouts()["m"].plan.baseline == 3
    with pytest.raises(FailedPrecondition, match="abort it first"):
        await rig.controller.start("m", to=4, settings=QUICK, who="ann")
    with pytest.raises(NotFound, match="no rollout"):
        await rig.controller.change("n", "pause", who="ann")


async def test_checks_before_the_first_step() -> None:
    rig = await started()
    rig.fake.gate = "output 'y' differs"
    await rig.second()
    assert rig.state == "gates"
    await rig.second()
    assert (rig.state, rig.fake.plan) == ("rolled back", None)
    assert rig.controller.rollouts()["m"].history[-1].reason == "before the first step: output 'y' differs"
    rig.fake.gate = ""
    await rig.controller.start("m", to=4, settings=QUICK, who="ann")
    await rig.second()
    await rig.second()
    assert (rig.state, rig.controller.rollouts()["m"].history[-1].reason) == ("running", "as good as gold")
    await rig.controller.change("m", "abort", who="ann")
    with pytest.raises(FailedPrecondition, match="no such file"):
        await rig.controller.start("m", to=4, settings=RolloutSettings(gates=GatePlan(replay="x")), who="ann")


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_checks_that_go_on_are_given_up(how: str) -> None:
    rig = await started()
    rig.fake.endless = True
    rig.now += 1
    rig.controller.step()
    while "checking" not in rig.fake.log:
        await turn()
    if how == "abort":
        await rig.controller.change("m", "abort", who="ann")
    else:
        await rig.controller.close()
    await rig.controller.settled()
    assert rig.fake.log.count("given up") == 1


MIRRORED = RolloutSettings((0.0, 10.0, 100.0), 10.0, parse_guardrails(
    ("p50=off", "p99=off", "drift=off", "disagreement=0.05")), shadow_fraction=0.5, rtol=0.1)


async def test_a_shadow_goes_before_the_calls_and_beside_them() -> None:
    rig = await started(MIRRORED)
    assert rig.fake.mirrored is None
    await rig.second()
    await rig.second()
    assert (rig.state, rig.fake.plan) == ("running", None)
    assert rig.fake.mirrored == ShadowPlan("4", 0.5, rtol=0.1, atol=1e-5)
    for _ in range(30):
        await rig.second()
    # Nothing has been compared yet.
    assert (rig.state, rig.fake.plan) == ("running", None)
    while rig.fake.plan is None:
        rig.fake.copied.agreed += 100
        await rig.second()
    assert rig.fake.weight == 10.0
    assert rig.fake.mirrored is not None
    # From here on its agreement is asked for anew.
    for _ in range(50):
        await rig.second()
    assert rig.fake.weight == 10.0
    while rig.state == "running":
        rig.fake.copied.agreed += 100
        await rig.second()
    assert (rig.state, rig.fake.mirrored, rig.fake.labels) == ("done", None, {"stable": 4})


@pytest.mark.parametrize("differs", ["differed", "failed"])
async def test_a_shadow_that_answers_otherwise_takes_the_version_back(differs: str) -> None:
    rig = await started(MIRRORED)
    while rig.state != "rolled back":
        rig.fake.copied.agreed += 80
        setattr(rig.fake.copied, differs, getattr(rig.fake.copied, differs) + 20)
        await rig.second()
    assert rig.fake.mirrored is None
    assert "copies were answered otherwise" in rig.controller.rollouts()["m"].history[-1].reason
    assert not any(each[0] == "weight" and each[1] for each in rig.fake.log)


async def test_a_shadow_that_is_taken_and_one_that_a_restart_finds(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(Fake(3, 4))
    rig.fake.labels["stable"] = 3
    rig.fake.shadow_problem = "it has one already"
    with pytest.raises(FailedPrecondition, match="needs a shadow of version 4, and it has one already; end that with"):
        await rig.controller.start("m", to=4, settings=MIRRORED, who="ann")
    rig.fake.shadow_problem = ""
    await rig.controller.start("m", to=4, settings=MIRRORED, who="ann")
    await rig.second()
    await rig.second()
    rig.fake.mirrored, rig.fake.shadow_problem = None, "it has one already"
    rig.restarted()
    await rig.controller.restore()
    assert rig.fake.mirrored is not None
    assert "the shadow that the settings ask for counts again" in caplog.text
    await rig.controller.change("m", "abort", who="ann")
    assert rig.fake.mirrored is None


async def test_outcomes_that_clients_report_take_a_version_back() -> None:
    guardrails = parse_guardrails(("p50=off", "p99=off", "drift=off", "outcome:bought=-0.1"))
    rig = await started(RolloutSettings((10.0, 100.0), 10.0, guardrails))
    assert rig.fake.counted == ()
    await rig.second()
    await rig.second()
    assert rig.fake.counted == ("bought",)
    for _ in range(30):
        await rig.second()
    # Nobody has reported anything.
    assert rig.state == "running"
    for look in range(1, 100):
        rig.fake.reported = {"3": {"bought": Sums(50 * look, 25.0 * look, 25.0 * look)},
                             "4": {"bought": Sums(20 * look, 2.0 * look, 2.0 * look)}}
        await rig.second()
        if rig.state != "running":
            break
    assert (rig.state, rig.fake.counted) == ("rolled back", ())
    assert "outcome:bought: 0.1 of" in rig.controller.rollouts()["m"].history[-1].reason


async def test_commands() -> None:
    rig = await started()
    await rig.second()
    await rig.second()
    await rig.controller.change("m", "promote", who="ann")
    assert rig.fake.weight == 50.0
    await rig.controller.change("m", "abort", who="ann", reason="no")
    assert (rig.state, rig.fake.plan, rig.fake.labels) == ("aborted", None, {"stable": 3})
    await rig.controller.start("m", to=4, settings=QUICK, who="ann")
    await rig.second()
    await rig.second()
    await rig.controller.change("m", "promote", who="ann", all_of_it=True)
    assert rig.fake.labels == {"stable": 4}
    assert [each.state for each in rig.controller.past("m")] == ["aborted"]


async def test_a_restart_has_the_weight_last_decided() -> None:
    rig = await started()
    await rig.second()
    await rig.second()
    await rig.controller.change("m", "promote", who="ann")
    rig.fake.plan, rig.fake.made = None, {}
    rig.restarted()
    await rig.controller.restore()
    assert (rig.state, rig.fake.weight) == ("running", 50.0)
    await rig.until("done")
    assert rig.fake.labels == {"stable": 4}
    rig.fake.log.clear()
    rig.restarted()
    await rig.controller.restore()
    assert rig.fake.log == []


async def test_a_split_of_the_settings_counts_again_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    rig = await started()
    await rig.second()
    await rig.second()
    rig.fake.plan = rig.fake.written = SplitPlan((ArmPlan("a", 1, "3"), ArmPlan("b", 1, "4")))
    rig.restarted()
    await rig.controller.restore()
    assert "its rollout to version 4 goes on; the split that the settings ask for counts again" in caplog.text
    assert rig.fake.weight == 10.0
    await rig.controller.change("m", "abort", who="ann")
    assert rig.fake.plan == rig.fake.written
    assert rig.fake.kept["m"]["unfinished"] is False


async def test_a_restart_may_roll_back() -> None:
    rig = await started(RolloutSettings((10.0, 100.0), 10.0, ERRORS, on_restart="rollback"))
    await rig.second()
    await rig.second()
    rig.fake.plan = None
    rig.restarted()
    await rig.controller.restore()
    assert (rig.state, rig.fake.plan, rig.fake.labels) == ("rolled back", None, {"stable": 3})


async def test_an_end_that_was_kept_and_not_done_is_done_after_a_restart() -> None:
    rig = await started()
    await rig.second()
    await rig.second()
    rig.fake.refuses_labels = True
    await rig.controller.change("m", "promote", who="ann", all_of_it=True)
    assert (rig.state, rig.fake.weight, rig.fake.kept["m"]["unfinished"]) == ("done", 100.0, True)
    rig.fake.plan, rig.fake.refuses_labels = None, False
    rig.restarted()
    await rig.controller.restore()
    assert (rig.fake.labels, rig.fake.plan) == ({"stable": 4}, None)


async def test_labels_that_cannot_be_moved_yet_are_tried_again() -> None:
    rig = await started()
    await rig.second()
    await rig.second()
    rig.fake.refuses_labels = True
    await rig.controller.change("m", "abort", who="ann")
    # The traffic does not wait for it.
    assert (rig.fake.plan, rig.fake.labels) == (None, {"stable": 3, "canary": 4})
    rig.fake.refuses_labels = False
    await rig.second()
    assert rig.fake.labels == {"stable": 3}


async def test_labels_that_cannot_be_moved_at_the_start_are_moved_later(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(Fake(3, 4))
    rig.fake.refuses_labels = True
    await rig.controller.start("m", to=4, baseline=3, settings=QUICK, who="ann")
    for _ in range(5):
        await rig.second()
    assert rig.fake.labels == {}
    # Not twice a second.
    assert len([each for each in caplog.messages if "labels of its rollout cannot be moved yet" in each]) == 1
    rig.fake.refuses_labels = False
    await rig.second()
    assert rig.fake.labels == {"stable": 3, "canary": 4}


async def test_a_look_that_fails_is_said_and_counted_and_the_breaker_still_takes_it_back(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    rig = await started()
    await rig.second()
    await rig.second()
    assert rig.fake.weight == 10.0

    def broken(*_: object) -> Sources:
        raise ValueError("math domain error")

    monkeypatch.setattr(rig.fake, "sources", broken)
    for _ in range(3):
        await rig.second()
    assert (rig.state, rig.fake.weight) == ("running", 10.0)
    assert rig.controller.rollouts()["m"].verdict.reason == "it cannot be looked at: ValueError: math domain error"
    assert rig.controller.gauges["rollout_looks_failed"] == {"m": 3}
    assert len([each for each in caplog.messages if "cannot be looked at" in each]) == 1
    rig.fake.entries[4].guard = SimpleNamespace(state="open", why="all fail")
    await rig.second()
    assert (rig.state, rig.fake.weight) == ("rolled back", 0.0)


async def test_a_look_that_fails_does_not_stop_other_models(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(Fake(3, 4, settings=RolloutSettings(on_new_version="rollout")))
    rig.fake.labels["stable"] = 3
    await rig.second()
    assert rig.state == "waiting"
    monkeypatch.setattr(rig.controller.rollouts()["m"], "look", None)
    names: list[str] = []
    monkeypatch.setattr(rig.fake, "names", lambda: names.append("asked") or ["m"])
    await rig.second()
    assert names == ["asked"]
    assert rig.controller.gauges["rollout_looks_failed"] == {"m": 1}


async def test_a_model_whose_versions_cannot_be_told_does_not_stop_other_models(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(Fake(3, 4, settings=RolloutSettings(on_new_version="rollout")))
    rig.fake.labels["stable"] = 3
    monkeypatch.setattr(rig.fake, "names", lambda: ["bad", "m"])
    whole = rig.controller.settings_of

    def settings_of(model: str) -> RolloutSettings:
        if model == "bad":
            raise ValueError("no version")
        return whole(model)

    monkeypatch.setattr(rig.controller, "settings_of", settings_of)
    await rig.second()
    await rig.second()
    assert rig.state in ("waiting", "gates", "running")
    assert rig.controller.gauges["rollout_looks_failed"] == {"bad": 2}
    assert len([each for each in caplog.messages if "cannot be told" in each]) == 1


async def test_an_experiment_that_has_no_split_yet_keeps_a_rollout_from_beginning() -> None:
    rig = Rig(Fake(3, 4))
    rig.fake.other = "experiment 'e'"
    with pytest.raises(FailedPrecondition, match="has experiment 'e', which divides its requests; end that first"):
        await rig.controller.start("m", to=4, settings=QUICK, who="ann")
    assert rig.controller.rollouts() == {}


async def test_traffic_that_does_not_follow_is_tried_again(monkeypatch: pytest.MonkeyPatch,
                                                           caplog: pytest.LogCaptureFixture) -> None:
    rig = await started()
    await rig.second()

    def refused(*_: object) -> None:
        raise ResourceExhausted("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(rig.fake, "count_outcomes", refused)
        for _ in range(3):
            await rig.second()
        assert (rig.state, rig.fake.weight) == ("running", 0.0)
    assert len([each for each in caplog.messages if "does not follow its rollout yet" in each]) == 1
    await rig.second()
    assert rig.fake.weight == 10.0


@pytest.mark.parametrize("damage", [{"rollout": {"plan": 1}}, {"past": None}, {"rollout": None}])
async def test_a_damaged_record_costs_that_model_its_rollout(damage: dict[str, Any], caplog: pytest.LogCaptureFixture
                                                             ) -> None:
    rig = await started()
    await rig.second()
    rig.fake.kept["m"] |= damage
    rig.restarted()
    await rig.controller.restore()
    assert rig.controller.rollouts() == {}
    assert "model 'm': its rollout does not go on: " in caplog.text


async def test_a_version_that_cannot_be_held_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(Fake(3, settings=RolloutSettings(on_new_version="rollout")))
    rig.fake.refuses_labels = True
    for _ in range(4):
        await rig.second()
    assert len([each for each in caplog.messages if "is not held" in each]) == 1
    rig.fake.refuses_labels = False
    # Looks that come meanwhile do not ask for it again.
    for _ in range(3):
        rig.controller.step()
    await rig.controller.settled()
    assert rig.fake.log == [("stable", 3)]


async def test_a_disk_that_hangs_does_not_keep_a_bad_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer.traffic.controller.KEEP_SECONDS", 0.0)
    rig = await started()
    await rig.second()
    await rig.second()
    rig.fake.hangs = True
    await rig.until("rolled back", errors=0.2, seconds=30)
    assert rig.fake.plan is None


async def test_new_versions_by_themselves() -> None:
    settings = RolloutSettings((10.0, 100.0), 0.0, ERRORS, on_new_version="rollout")
    rig = Rig(Fake(3, settings=settings))
    await rig.second()
    # What is there answers until a rollout has gone well.
    assert rig.fake.labels == {"stable": 3}
    await rig.second()
    assert rig.controller.rollouts() == {}
    rig.fake.entries[4] = entry(4, settings)
    await rig.second()
    assert rig.fake.labels == {"stable": 3, "canary": 4}
    await rig.until("rolled back", errors=0.2)
    for _ in range(5):
        await rig.second()
    # It is not tried again.
    assert rig.controller.past("m") == []
    rig.fake.entries[5] = entry(5, settings)
    await rig.second()
    await rig.until("done")
    assert rig.fake.labels == {"stable": 5}
    assert [each.plan.to for each in rig.controller.past("m")] == [4]


async def test_one_that_cannot_begin_by_itself_is_tried_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    settings = RolloutSettings((10.0, 100.0), 0.0, ERRORS, on_new_version="rollout", gates=GatePlan(replay="x"))
    rig = Rig(Fake(3, settings=settings))
    await rig.second()
    rig.fake.entries[4] = entry(4, settings)
    for _ in range(5):
        await rig.second()
    assert caplog.text.count("model 'm': version 4 is not rolled out: no such file") == 1
    for each in rig.fake.entries.values():
        each.settings.rollout = RolloutSettings((10.0, 100.0), 0.0, ERRORS, on_new_version="rollout")
    await rig.second()
    assert rig.controller.rollouts()["m"].plan.to == 4


async def test_former_rollouts_are_bounded() -> None:
    rig = await started()
    for _ in range(MAX_PAST + 5):
        await rig.controller.change("m", "abort", who="ann")
        await rig.controller.start("m", to=4, settings=QUICK, who="ann")
    assert len(rig.controller.past("m")) == MAX_PAST
