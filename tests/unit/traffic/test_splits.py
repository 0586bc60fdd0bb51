"""Which splits are asked for, and what of them is kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from infer._core.model_version import VersionEntry
from infer._core.router import ModelRoute
from infer.errors import FailedPrecondition, NotFound
from infer.split_plan import SplitPlan, parse_arms
from infer.state.store import Store
from infer.traffic.routes import Traffic
from infer.traffic.splits import RECORD, Splits


def plan(to: str = "3=90,4=10") -> SplitPlan:
    return SplitPlan(parse_arms(to))


def version(number: str) -> VersionEntry:
    return VersionEntry("m", number, None, [], [], batched=True, max_rows=1, gather_rows=1, delay_ns=0,
                        queue_limit_rows=1, max_running=1, properties={})


class Kept:
    """A store, the splits over it, and what they had applied."""

    def __init__(self, store: Store, written: dict[str, SplitPlan] | None = None) -> None:
        self.applied: list[tuple[str, SplitPlan | None]] = []
        traffic = Traffic()
        four, three = version("4"), version("3")
        traffic.merged({"m": ModelRoute((four, three), default=four)})
        self.store = store
        self.splits = Splits(store, written or {}, traffic, lambda model, asked: self.applied.append((model, asked)))

    def ask(self, model: str, asked: SplitPlan | None) -> None:
        asyncio.run(self.splits.ask(model, asked))


def test_what_is_asked_for_stands_over_what_is_written() -> None:
    kept = Kept(Store(None), {"m": plan(), "n": plan("1=1")})
    assert kept.applied == [("m", plan()), ("n", plan("1=1"))]
    kept.ask("m", plan("3=1,4=1"))
    assert kept.splits.plans == {"m": plan("3=1,4=1"), "n": plan("1=1")}
    assert (kept.splits.asked_by_rpc("m"), kept.splits.asked_by_rpc("n")) == (True, False)
    kept.splits.set_written({"m": plan("4=1")})
    kept.ask("m", None)
    assert kept.applied[2:] == [("m", plan("3=1,4=1")), ("n", None), ("m", None)]
    assert kept.splits.plans == {}
    again = Kept(kept.store, {"m": plan()})
    assert again.applied == []


def test_it_is_kept_before_it_is_applied(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = Kept(store)
    before: list[object] = []
    kept.splits._apply = lambda model, asked: before.append(store.waiting)
    kept.ask("m", plan())
    assert before == [0]
    store.close()
    store = Store(tmp_path)
    assert Kept(store).applied == [("m", plan())]
    store.close()


def test_a_rollout_that_begins_while_a_split_is_kept_divides_the_requests() -> None:
    kept = Kept(Store(None))
    taken = iter(["", "a rollout"])
    kept.splits.taken = lambda model: next(taken)
    kept.ask("m", plan())
    assert (kept.applied, kept.splits.plans) == ([], {"m": plan()})


def test_what_cannot_be_is_not_kept() -> None:
    kept = Kept(Store(None))
    for model, asked, error in (("m", plan("9=1"), FailedPrecondition), ("gone", plan(), NotFound),
                                ("m", None, NotFound)):
        with pytest.raises(error):
            kept.ask(model, asked)
    kept.splits.taken = lambda model: "a rollout"
    with pytest.raises(FailedPrecondition, match="model 'm' has a rollout, which divides its requests"):
        kept.ask("m", plan())
    assert (kept.applied, kept.store.records()) == ([], {})


def test_a_record_that_is_damaged_costs_that_model_its_split(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(None)
    store.save(RECORD, {"m": {"arms": 3}, "n": plan("1=1").to_record(), "o": None})
    kept = Kept(store, {"o": plan()})
    assert kept.applied == [("n", plan("1=1"))]
    assert "model 'm' is not divided: its record in the state directory cannot be used" in caplog.text
