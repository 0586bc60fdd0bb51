"""Experiments over models, a store and arms that a test makes up: what is kept, what the traffic does, what is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from infer.errors import FailedPrecondition, NotFound
from infer.experiments import ExperimentPlan, ExperimentSettings, parse_experiment_arms
from infer.outcome_metrics import Outcome, parse_metrics
from infer.split_plan import SplitPlan
from infer.traffic.experiment import GUARDRAIL, NOT_ENOUGH, RESULTS, WINNER
from infer.traffic.experiments import BLOCKS, MAX_PAST, RECORD, SUMS, Experiments
from infer.traffic.outcomes import Outcomes
from infer.traffic.routes import Traffic
from tests.unit.traffic.test_controller import FakeArm
from tests.unit.traffic.test_routes import route, version

SETTINGS = ExperimentSettings(parse_experiment_arms("control=1,new=2"),
                              parse_metrics(["clicked:rate", "spend:mean:0..9"]))


class Arm(FakeArm):
    def quantile_ns(self, quantile: float) -> float:
        return 1e6 * quantile


class Fake:
    """Models, store and audit log in one; `log` is what was done, in its order."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.traffic.merged({"m": route(version("2"), version("1"))})
        self.made: dict[str, Arm] = {}
        self.others = ""
        self.absent = ""                # an arm that leads to nothing
        self.unready: dict[str, str] = {}
        self.log: list[Any] = []
        self.kept: dict[str, Any] = {}
        self.hangs = False
        self.audited: list[tuple[str, str, str]] = []

    def taken(self, model: str) -> str:
        return self.others

    def ensure_served(self, model: str, plan: SplitPlan) -> None:
        if model != "m":
            raise NotFound(f"model {model!r} is not known")
        if self.absent:
            raise FailedPrecondition(f"variant {self.absent!r} cannot be called")

    def set_split(self, model: str, plan: SplitPlan | None) -> None:
        self.traffic.set_split(model, plan)
        self.traffic.merged({})
        self.made = {arm.name: Arm() for arm in plan.arms} if plan else {}
        self.log.append(("split", plan and plan.name))

    def arms(self, model: str) -> Mapping[str, Arm]:
        return self.made

    def clump(self, model: str, arm: str) -> float:
        return 1.0

    def missing(self, model: str) -> Mapping[str, str]:
        return self.unready

    def records(self) -> dict[str, Any]:
        return dict(json.loads(json.dumps(self.kept)))

    def save(self, name: str, record: Any) -> Future[bool]:
        future: Future[bool] = Future()
        if not self.hangs:
            if record is None:
                self.kept.pop(name, None)
            else:
                self.kept[name] = json.loads(json.dumps(record, allow_nan=False))
            self.log.append(("kept", name))
            future.set_result(True)
        return future

    def record(self, event: str, *, outcome: str, who: str, model: str = "", version: str = "", detail: str = ""
               ) -> None:
        self.audited.append((outcome, who, detail))


class Rig:
    def __init__(self) -> None:
        self.fake = Fake()
        self.now = 1000.0
        self.rng = np.random.default_rng(1)
        self.users = 0
        self.written: dict[str, ExperimentPlan] = {}
        self.started()

    def started(self) -> None:
        """A server is, with what the store has."""
        self.fake.traffic = Traffic()
        self.fake.traffic.merged({"m": route(version("2"), version("1"))})
        self.fake.made = {}
        self.outcomes = Outcomes(self.fake.traffic, now_ns=lambda: 0, remembered=10_000)
        self.experiments = Experiments(self.fake, self.outcomes, self.fake, self.fake, now=lambda: self.now)
        self.experiments.set_written(self.written)
        self.experiments.restore()

    def write(self, name: str, settings: ExperimentSettings = SETTINGS) -> None:
        """The settings are read again."""
        self.written = {"m": ExperimentPlan(name, settings)} if name else {}
        self.experiments.set_written(self.written)

    @property
    def running(self) -> dict[str, str]:
        return {model: each.name for model, each in self.experiments.running().items()}

    async def second(self, rates: Mapping[str, float] | None = None, errors: Mapping[str, float] | None = None,
                     n: int = 50) -> None:
        """Of outcomes and calls, and a look at them."""
        for _ in range(n if rates else 0):
            self.users += 1
            key = f"user-{self.users}"
            arm = self.fake.traffic.arm_of("m", key.encode())
            assert arm is not None
            assert rates is not None
            self.outcomes.record([Outcome("m", "clicked", float(self.rng.random() < rates[arm]), routing_key=key)])
        for name, arm_ in self.fake.made.items():
            arm_.add(200, int(self.rng.binomial(200, (errors or {}).get(name, 0.0))))
        self.now += 1
        self.experiments.step()
        await self.experiments.settled()


async def test_from_its_start_to_its_end() -> None:
    rig = Rig()
    experiment = await rig.experiments.start("m", SETTINGS, who="alice", reason="is it better?")
    assert rig.fake.log == [("kept", SUMS), ("kept", BLOCKS + "m"), ("kept", RECORD + "m"), ("split", "experiment-1")]
    assert (experiment.name, rig.experiments.taken("m"), rig.experiments.taken("n")) == (
        "experiment-1", "experiment 'experiment-1'", "")
    for _ in range(40):
        await rig.second({"control": 0.2, "new": 0.5})
    report = await rig.experiments.report("m")
    assert (report["state"], report["decision"]["result"], report["decision"]["winner"]) == ("running", WINNER, "new")
    assert sum(arm["n"] for arm in report["metrics"][0]["arms"]) == 2000 == report["outcomes"]["accepted"]
    assert report["arms"][1] | {} == {
        "name": "new", "to": "2", "weight": 1.0, "share": 0.5, "control": False, "calls": 8000, "failed": 0,
        "p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
    assert {key: value for key, value in rig.experiments.gauges["experiment_decision"].items() if value} == {
        ("m", "experiment-1", WINNER): 1}
    last = await rig.experiments.stop("m", who="bob", reason="it is")
    assert (last["state"], last["ended_by"], last["end_reason"], last["who"]) == ("stopped", "bob", "it is", "alice")
    assert rig.fake.log[-2:] == [("split", None), ("kept", BLOCKS + "m")]
    assert rig.fake.audited == [
        ("start", "alice", "experiment-1: 'experiment-1': control (1) 50%, new (2) 50%: is it better?"),
        ("stop", "bob", f"experiment-1: {WINNER}: it is")]
    assert rig.experiments.running() == {}
    assert rig.experiments.past("m") == [last] == [await rig.experiments.report("m")]
    assert rig.experiments.gauges == {"experiment_decision": {}, "experiments_ended": {WINNER: 1},
                                       "experiment_looks_failed": {}}
    with pytest.raises(FailedPrecondition, match="nobody counts its outcomes"):
        rig.outcomes.record([Outcome("m", "clicked", 1.0, routing_key="a")])
    # The next one deals keys anew.
    assert (await rig.experiments.start("m", SETTINGS, who="alice")).name == "experiment-2"
    assert set(rig.experiments.gauges["experiment_decision"]) == {("m", "experiment-2", each) for each in RESULTS}


async def test_what_cannot_begin() -> None:
    rig = Rig()
    with pytest.raises(NotFound, match="model 'n' is not known"):
        await rig.experiments.start("n", SETTINGS, who="alice")
    rig.fake.others = "a rollout to version 2"
    with pytest.raises(FailedPrecondition, match="has a rollout to version 2, which divides its requests; end that"):
        await rig.experiments.start("m", SETTINGS, who="alice")
    rig.fake.others = ""
    await rig.experiments.start("m", SETTINGS, name="one", who="alice")
    with pytest.raises(FailedPrecondition, match="has experiment 'one', which divides its requests"):
        await rig.experiments.start("m", SETTINGS, name="two", who="alice")
    await rig.experiments.stop("m", who="alice")
    with pytest.raises(FailedPrecondition, match="has had an experiment 'one'; another name"):
        await rig.experiments.start("m", SETTINGS, name="one", who="alice")
    with pytest.raises(FailedPrecondition, match="no experiment under way"):
        await rig.experiments.stop("m", who="alice")
    for model, name in (("n", ""), ("m", "two")):
        with pytest.raises(NotFound, match="has had no experiment"):
            await rig.experiments.report(model, name)
    assert [outcome for outcome, *_ in rig.fake.audited] == ["start", "stop"]


async def test_a_guardrail_ends_it() -> None:
    rig = Rig()
    await rig.experiments.start("m", SETTINGS, who="alice")
    for _ in range(30):
        await rig.second(errors={"new": 0.3})
        if not rig.experiments.running():
            break
    [report] = rig.experiments.past()
    assert report["decision"]["result"] == GUARDRAIL
    assert report["ended_by"] == "experiment"
    assert report["end_reason"].startswith("new: errors: ")
    assert {(each["arm"], each["kind"]): each["result"] for each in report["guardrails"]}["new", "errors"] == "fail"
    assert rig.fake.traffic.splits == {}
    assert rig.experiments.gauges["experiments_ended"] == {GUARDRAIL: 1}


async def test_a_look_that_fails_is_said_and_counted_and_stops_no_other(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    looked: list[str] = []
    whole = rig.fake.arms

    def arms(model: str) -> Mapping[str, Arm]:
        looked.append(model)
        if model == "m":
            raise ValueError("math domain error")
        return whole(model)

    rig.fake.traffic.merged({"n": route(version("2"), version("1"))})
    monkeypatch.setattr(rig.fake, "ensure_served", lambda model, plan: None)
    for model in ("m", "n"):
        await rig.experiments.start(model, SETTINGS, who="alice")
    monkeypatch.setattr(rig.fake, "arms", arms)
    for _ in range(3):
        await rig.second()
    assert looked == ["m", "n"] * 3
    assert rig.experiments.gauges["experiment_looks_failed"] == {"m": 3}
    assert len([each for each in caplog.messages if "cannot be looked at" in each]) == 1


async def test_an_end_that_fails_takes_the_traffic_back_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    await rig.experiments.start("m", SETTINGS, who="alice")

    def broken(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("infer.traffic.experiments.report_of", broken)
        for _ in range(30):
            await rig.second(errors={"new": 0.3})
        assert set(rig.experiments.running()) == {"m"}
        assert rig.fake.traffic.splits == {}
    await rig.second()
    [report] = rig.experiments.past()
    assert report["decision"]["result"] == GUARDRAIL
    assert rig.experiments.running() == {}


async def test_a_server_that_is_killed_before_the_first_look_does_not_count_what_a_former_one_had() -> None:
    rig = Rig()
    await rig.experiments.start("m", SETTINGS, who="alice")
    for _ in range(10):
        await rig.second({"control": 0.2, "new": 0.5})
    blocks = rig.fake.kept[BLOCKS + "m"]
    await rig.experiments.stop("m", who="alice")
    # It is killed before that is gone.
    rig.fake.kept[BLOCKS + "m"] = blocks
    rig.started()
    await rig.experiments.start("m", SETTINGS, who="alice")
    rig.started()
    experiment = rig.experiments.running()["m"]
    assert (experiment.name, experiment.units) == ("experiment-2", [0, 0])
    assert [track.blocks for track in experiment.tracks] == [[], []]


async def test_it_goes_on_after_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    await rig.experiments.start("m", SETTINGS, name="e", who="alice")
    for _ in range(20):
        await rig.second({"control": 0.2, "new": 0.3})
    before = await rig.experiments.report("m")
    rig.fake.others = "split 'of the settings'"
    rig.started()
    assert "its experiment 'e' goes on; split 'of the settings' counts again" in caplog.text
    assert rig.fake.traffic.splits["m"].name == "e"
    after = await rig.experiments.report("m")
    assert after["metrics"] == before["metrics"]
    assert after["decision"] == before["decision"]
    for _ in range(20):
        await rig.second({"control": 0.2, "new": 0.3})
    assert sum(arm["n"] for arm in (await rig.experiments.report("m"))["metrics"][0]["arms"]) == 2000
    await rig.experiments.stop("m", who="alice")
    rig.started()
    assert rig.experiments.running() == {}
    assert len(rig.experiments.past()) == 1
    rig.fake.others = ""
    assert (await rig.experiments.start("m", SETTINGS, who="alice")).name == "experiment-2"


async def test_what_was_kept_before_it_took_effect() -> None:
    rig = Rig()
    await rig.experiments.start("m", SETTINGS, name="e", who="alice")
    await rig.second({"control": 0.2, "new": 0.3}, n=100)
    kept = dict(rig.fake.kept)
    assert set(kept) == {RECORD + "m", SUMS, BLOCKS + "m"}
    await rig.second()
    assert rig.fake.kept == kept        # nothing has come
    rig.fake.kept.pop(SUMS)
    rig.started()
    assert sum(rig.experiments.running()["m"].units) == 100
    rig.fake.kept[RECORD + "m"]["experiment"]["settings"] = {}
    rig.started()
    assert rig.experiments.running() == {}


async def test_a_disk_that_hangs_does_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer.traffic.experiments.KEEP_SECONDS", 0.0)
    rig = Rig()
    rig.fake.hangs = True
    await rig.experiments.start("m", SETTINGS, who="alice")
    await rig.second({"control": 0.2, "new": 0.3})
    assert rig.fake.traffic.splits["m"].name == "experiment-1"
    await rig.experiments.stop("m", who="alice")
    assert rig.fake.traffic.splits == {}


async def test_reports_of_the_last_ones_are_kept() -> None:
    rig = Rig()
    for number in range(MAX_PAST + 2):
        await rig.experiments.start("m", SETTINGS, name=f"e{number}", who="alice")
        await rig.experiments.stop("m", who="alice")
    assert [each["experiment"] for each in rig.experiments.past()] == [f"e{n}" for n in range(2, MAX_PAST + 2)]
    assert (await rig.experiments.report("m", "e5"))["decision"]["result"] == NOT_ENOUGH


async def test_an_arm_that_is_not_served_is_told() -> None:
    rig = Rig()
    await rig.experiments.start("m", SETTINGS, who="alice")
    rig.fake.unready = {"new": "it is loading"}
    assert (await rig.experiments.report("m"))["problems"] == ["arm 'new' gets none of its share: it is loading"]
    rig.fake.made.pop("new")
    seen = (await rig.experiments.report("m"))["arms"][1]
    assert (seen["calls"], seen["p50_ms"]) == (0, None)


async def test_what_the_settings_ask_for_begins_by_itself_and_once() -> None:
    rig = Rig()
    rig.write("e")
    rig.experiments.step()
    rig.experiments.step()
    await rig.experiments.settled()
    assert rig.running == {"m": "e"}
    assert rig.fake.log == [("kept", SUMS), ("kept", BLOCKS + "m"), ("kept", RECORD + "m"), ("split", "e")]
    await rig.second({"control": 0.2, "new": 0.5})
    rig.started()
    await rig.second({"control": 0.2, "new": 0.5})
    assert sum(arm["n"] for arm in (await rig.experiments.report("m"))["metrics"][0]["arms"]) == 100
    await rig.experiments.stop("m", who="alice")
    for _ in range(2):
        await rig.second()
        rig.write("e")
        await rig.second()
        rig.started()
    assert rig.running == {}
    assert [each["experiment"] for each in rig.experiments.past()] == ["e"]
    assert [each[:2] for each in rig.fake.audited] == [("start", "settings"), ("stop", "alice")]
    # Another name is another one.
    rig.write("f")
    await rig.second()
    assert rig.running == {"m": "f"}


async def test_one_that_people_began_under_its_name_is_the_one() -> None:
    rig = Rig()
    await rig.experiments.start("m", SETTINGS, name="e", who="alice")
    rig.write("e")
    await rig.second()
    assert rig.experiments.running()["m"].who == "alice"
    await rig.experiments.stop("m", who="alice")
    await rig.second()
    assert rig.running == {}


@pytest.mark.parametrize("who", ["settings", "alice"])
async def test_it_has_ended_also_when_its_report_is_gone(who: str) -> None:
    rig = Rig()
    if who == "alice":
        await rig.experiments.start("m", SETTINGS, name="e", who="alice")
    rig.write("e")
    await rig.second()
    await rig.experiments.stop("m", who="alice")
    for number in range(MAX_PAST + 1):
        await rig.experiments.start("m", SETTINGS, name=f"e{number}", who="alice")
        await rig.experiments.stop("m", who="alice")
    assert "e" not in [each["experiment"] for each in rig.experiments.past()]
    rig.started()
    await rig.second()
    assert rig.running == {}


async def test_one_that_a_guardrail_ends_stays_ended() -> None:
    rig = Rig()
    rig.write("e")
    await rig.second()
    for _ in range(30):
        await rig.second(errors={"new": 0.3})
        if not rig.running:
            break
    await rig.second()
    rig.started()
    await rig.second()
    assert (rig.running, len(rig.experiments.past())) == ({}, 1)


async def test_it_waits_for_its_arms_and_for_who_divides_the_model(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.fake.absent = "new"
    rig.write("e")
    for _ in range(3):
        await rig.second()
    rig.fake.absent, rig.fake.others = "", "a rollout to version 2"
    for _ in range(3):
        await rig.second()
    assert (rig.running, rig.fake.log) == ({}, [])
    assert [each.getMessage() for each in caplog.records if each.levelname == "WARNING"] == [
        "model 'm': experiment 'e', which the settings ask for, has not begun: variant 'new' cannot be called",
        "model 'm': experiment 'e', which the settings ask for, has not begun: model 'm' has a rollout to version 2, "
        "which divides its requests; end that first"]
    rig.fake.others = ""
    await rig.second()
    assert rig.running == {"m": "e"}


async def test_another_experiment_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    await rig.experiments.start("m", SETTINGS, name="theirs", who="alice")
    rig.write("e")
    for _ in range(3):
        await rig.second()
    assert rig.running == {"m": "theirs"}
    assert caplog.text.count("has not begun: model 'm' has experiment 'theirs'") == 1
    await rig.experiments.stop("m", who="alice")
    await rig.second()
    assert rig.running == {"m": "e"}


async def test_taking_the_table_out_or_changing_it_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.write("e")
    await rig.second()
    rig.write("e", ExperimentSettings(parse_experiment_arms("control=1,new=2", "3,1"), SETTINGS.metrics))
    for _ in range(3):
        await rig.second()
    assert rig.experiments.running()["m"].settings == SETTINGS
    assert caplog.text.count("experiment 'e' goes on as it began") == 1
    rig.write("")
    await rig.second()
    rig.started()
    assert rig.running == {"m": "e"}


async def test_one_whose_record_is_damaged_does_not_begin_anew() -> None:
    rig = Rig()
    rig.write("e")
    await rig.second()
    rig.fake.kept[RECORD + "m"]["experiment"]["settings"] = {}
    rig.started()
    await rig.second()
    assert rig.running == {}


async def test_records_without_what_was_written_are_read() -> None:
    rig = Rig()
    await rig.experiments.start("m", SETTINGS, name="e", who="alice")
    del rig.fake.kept[RECORD + "m"]["written"]
    rig.started()
    assert rig.running == {"m": "e"}
