"""What is asked of shadows beside what is served: which begin, go on and end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from infer.errors import FailedPrecondition, NotFound
from infer.shadow_plan import ShadowPlan
from infer.state.store import Store
from infer.traffic.shadows import RECORD, Shadows


class Pool:
    """Notes what becomes of shadows."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.bytes = 0

    def begin(self, target: Any, primaries: tuple[Any, ...], **plan: float) -> Any:
        self.log.append(("begin", target.version, *[each.version for each in primaries]))
        return SimpleNamespace(target=target, primaries=primaries, **plan)

    def copy_from(self, shadow: Any, primaries: tuple[Any, ...]) -> None:
        self.log.append(("from", shadow.target.version, *[each.version for each in primaries]))
        shadow.primaries = primaries

    def set_fraction(self, shadow: Any, fraction: float) -> None:
        self.log.append(("fraction", fraction))
        shadow.fraction = fraction

    def end(self, shadow: Any) -> None:
        self.log.append(("end", shadow.target.version))

    def stop(self) -> None:
        self.log.append(("stop",))

    def took(self) -> list[tuple[Any, ...]]:
        """Since it was last asked."""
        log, self.log = self.log, []
        return log


class Routes:
    """One model `m`."""

    def __init__(self, *versions: Any, labels: Mapping[str, Any] | None = None) -> None:
        self.route = SimpleNamespace(versions=versions, labels=labels or {})

    def route_of(self, name: str) -> Any:
        return self.route if name == "m" else None


ONE, TWO, THREE = (SimpleNamespace(version=str(number)) for number in (1, 2, 3))


def shadows_of(written: Mapping[str, ShadowPlan], store: Store | None = None) -> tuple[Shadows, Pool]:
    pool = Pool()
    shadows: Any = Shadows(pool, store or Store(None), written)             # type: ignore[arg-type]
    return shadows, pool


def test_it_follows_what_is_served() -> None:
    shadows, pool = shadows_of({"m": ShadowPlan("1")})
    assert pool.took() == []
    shadows.routed(Routes(ONE, TWO))
    assert pool.took() == [("begin", "1", "2")]
    shadows.routed(Routes(ONE, TWO))
    assert pool.took() == []
    shadows.routed(Routes(ONE, TWO, THREE))
    assert pool.took() == [("from", "1", "2", "3")]
    shadows.routed(Routes(TWO, THREE))
    assert pool.took() == [("end", "1")]
    assert shadows.problems["m"].startswith("it has no version or label '1' that is served; served: 2, 3;")
    again = SimpleNamespace(version="1")
    shadows.routed(Routes(again, TWO))
    assert pool.took() == [("begin", "1", "2")]
    assert shadows.problems == {}
    # Loaded anew: another entry of the same number.
    shadows.routed(Routes(ONE, TWO))
    assert pool.took() == [("end", "1"), ("begin", "1", "2")]
    shadows.close()
    shadows.routed(Routes())
    assert pool.took() == [("stop",)]


def test_a_label_that_moves_takes_the_shadow_with_it() -> None:
    shadows, pool = shadows_of({"m": ShadowPlan("next")})
    shadows.routed(Routes(ONE, TWO, labels={"next": ONE}))
    shadows.routed(Routes(ONE, TWO, labels={"next": TWO}))
    assert pool.took() == [("begin", "1", "2"), ("end", "1"), ("begin", "2", "1")]


def test_another_fraction_goes_on_and_another_tolerance_begins_anew() -> None:
    shadows, pool = shadows_of({"m": ShadowPlan("1")})
    shadows.routed(Routes(ONE, TWO))
    pool.took()
    shadows.set_written({"m": ShadowPlan("1", 0.5)})
    assert pool.took() == [("fraction", 0.5)]
    shadows.set_written({"m": ShadowPlan("1", 0.5, rtol=0.1)})
    assert pool.took() == [("end", "1"), ("begin", "1", "2")]
    shadows.set_written({"gone": ShadowPlan("1")})
    assert pool.took() == [("end", "1")]
    assert shadows.problems["gone"] == "model 'gone' is not known"


async def test_what_was_asked_for_is_kept_before_it_applies_and_stands_over_what_is_written() -> None:
    store = Store(None)
    shadows, pool = shadows_of({"m": ShadowPlan("1")}, store)
    with pytest.raises(NotFound, match="model 'm' is not known"):
        await shadows.ask("m", ShadowPlan("2"))
    shadows.routed(Routes(ONE, TWO))
    await shadows.ask("m", ShadowPlan("2"))
    assert pool.took() == [("begin", "1", "2"), ("end", "1"), ("begin", "2", "1")]
    assert store.records()[RECORD] == {"m": ShadowPlan("2").record()}
    shadows.set_written({"m": ShadowPlan("1", 0.5)})
    assert pool.took() == []
    await shadows.ask("m", None)
    assert (pool.took(), shadows.plans, shadows.asked_by_rpc("m")) == ([("end", "2")], {}, True)
    with pytest.raises(NotFound, match="model 'm' has no shadow"):
        await shadows.ask("m", None)
    later, _ = shadows_of({"m": ShadowPlan("1")}, store)
    assert later.plans == {}


async def test_what_a_rollout_holds_stands_over_both_until_it_lets_go() -> None:
    store = Store(None)
    shadows, pool = shadows_of({"m": ShadowPlan("1")}, store)
    shadows.routed(Routes(ONE, TWO, THREE))
    pool.took()
    shadows.hold("m", ShadowPlan("3", 0.5), "2")
    assert pool.took() == [("end", "1"), ("begin", "3", "2")]
    shadows.hold("m", ShadowPlan("3", 0.5), "2")
    shadows.set_written({"m": ShadowPlan("2")})
    assert (pool.took(), shadows.plans, shadows.held("m")) == ([], {"m": ShadowPlan("3", 0.5)}, True)
    for plan in (ShadowPlan("1"), None):
        with pytest.raises(FailedPrecondition, match="is that of its rollout to version 3"):
            await shadows.ask("m", plan)
    assert store.records() == {}
    shadows.let_go("m")
    assert pool.took() == [("end", "3"), ("begin", "2", "1", "3")]
    shadows.let_go("m")
    assert (pool.took(), shadows.held("m")) == ([], False)


def test_a_damaged_record_is_said_and_left_aside(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(None)
    store.save(RECORD, {"m": {"fraction": 2}, "n": {"to": "3"}})
    with caplog.at_level(logging.ERROR):
        shadows, _ = shadows_of({}, store)
    assert shadows.plans == {"n": ShadowPlan("3")}
    assert "model 'm' has no shadow: its record in the state directory cannot be used" in caplog.text
