"""What plans come to beside what is served, step by step."""

from __future__ import annotations

from typing import Any

import pytest

from infer._core.model_version import VersionEntry
from infer._core.router import ModelRoute, RouteTable
from infer.split_plan import SplitPlan, parse_arms
from infer.traffic.routes import Traffic

UNAVAILABLE = 14


def version(number: str, name: str = "m") -> VersionEntry:
    return VersionEntry(name, number, None, [], [], batched=True, max_rows=1, gather_rows=1, delay_ns=0,
                        queue_limit_rows=1, max_running=1, properties={})


def route(*entries: VersionEntry, labels: dict[str, VersionEntry] | None = None,
          unready: dict[str, tuple[int, str]] | None = None) -> ModelRoute:
    return ModelRoute(entries, labels or {}, entries[0] if entries else None, unready or {},
                      None if entries else (UNAVAILABLE, "none"))


def plan(to: str, **fields: Any) -> SplitPlan:
    return SplitPlan(parse_arms(to), **fields)


def leads(made: ModelRoute | None) -> list[tuple[str | None, str | None]]:
    """(arm that counts, version) of each arm."""
    assert made is not None
    assert made.split is not None
    return [(arm and arm.name, entry and f"{entry.name.decode()}:{entry.version}")
            for arm, entry in zip(made.split.arms, made.split.entries, strict=True)]


THREE, FOUR, OTHER = version("3"), version("4"), version("7", "other")


def test_a_model_that_is_not_divided_passes_as_it_is() -> None:
    traffic = Traffic()
    served = route(FOUR, THREE)
    assert traffic.merged({"m": served, "gone": None}) == {"m": served, "gone": None}
    assert traffic.gauges == {"variants": [], "variants_unready": {}}


def test_a_plan_comes_with_the_next_table_and_goes_with_one() -> None:
    traffic = Traffic()
    served = route(FOUR, THREE)
    traffic.merged({"m": served})
    traffic.set_split("m", plan("3=90,4=10"))
    changed = traffic.merged({})
    assert leads(changed["m"]) == [("3", "m:3"), ("4", "m:4")]
    RouteTable([(name, each) for name, each in changed.items() if each is not None])
    # Nothing has changed since.
    assert traffic.merged({}) == {}
    traffic.set_split("m", None)
    assert traffic.merged({}) == {"m": served}
    assert traffic.gauges["variants"] == []


def test_a_plan_of_a_model_that_comes_later() -> None:
    traffic = Traffic()
    traffic.set_split("m", plan("3=90,4=10"))
    assert traffic.merged({}) == {}
    assert leads(traffic.merged({"m": route(THREE)})["m"]) == [("3", "m:3"), ("3", None)]
    assert leads(traffic.merged({"m": route(FOUR, THREE)})["m"]) == [("3", "m:3"), ("4", "m:4")]


def test_what_is_not_ready_goes_to_the_default_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "infer.traffic")
    traffic = Traffic()
    traffic.set_split("m", plan("3=90,4=10"))
    changed = traffic.merged({"m": route(FOUR, unready={"3": (UNAVAILABLE, "model 'm' version 3 is loading")})})
    assert leads(changed["m"]) == [("4", None), ("4", "m:4")]
    traffic.merged({"m": route(FOUR, unready={"3": (UNAVAILABLE, "it is loading")})})
    assert traffic.gauges["variants_unready"] == {("m", "3"): 1}
    traffic.merged({"m": route(FOUR, THREE)})
    assert caplog.messages == [
        "model 'm': variant '3' of its split is not served, and its share goes to the default version: model 'm' "
        "version 3 is loading", "model 'm': variant '3' of its split is served again"]
    # Where no arm leads to the default, what goes there counts for none.
    traffic.set_split("m", plan("5=1,6=1"))
    assert leads(traffic.merged({})["m"]) == [(None, None), (None, None)]
    assert caplog.messages[2].endswith(
        "model 'm' has no version or label '5'; served: 3, 4; its version policy says which versions are")


def test_arms_by_label_follow_it() -> None:
    traffic = Traffic()
    traffic.set_split("m", plan("stable=1,new@canary=1"))
    assert leads(traffic.merged({"m": route(FOUR, THREE, labels={"stable": THREE, "canary": FOUR})})["m"]) == [
        ("stable", "m:3"), ("new", "m:4")]
    assert leads(traffic.merged({"m": route(FOUR, THREE, labels={"stable": FOUR})})["m"]) == [
        ("stable", "m:4"), ("stable", None)]


def test_an_arm_of_another_model_follows_that() -> None:
    traffic = Traffic()
    served = route(THREE)
    traffic.set_split("m", plan("3=1,other:7=1"))
    assert leads(traffic.merged({"m": served})["m"]) == [("3", "m:3"), ("3", None)]
    changed = traffic.merged({"other": route(OTHER)})
    assert set(changed) == {"m", "other"}
    assert leads(changed["m"]) == [("3", "m:3"), ("other:7", "other:7")]
    assert leads(traffic.merged({"other": None})["m"]) == [("3", "m:3"), ("3", None)]
    assert traffic.missing("m", traffic.splits["m"]) == {"other:7": "model 'other' is not known"}
    assert traffic.entries("m", traffic.splits["m"]) == {"3": THREE}


def test_arms_last_as_long_as_their_split() -> None:
    traffic = Traffic()
    traffic.merged({"m": route(FOUR, THREE)})
    traffic.set_split("m", plan("3=90,4=10", name="a"))
    first = dict(traffic.arms["m"])
    traffic.set_split("m", plan("3=50,4=40,5=10", name="a"))
    assert {name: traffic.arms["m"][name] is first[name] for name in first} == {"3": True, "4": True}
    traffic.merged({"m": route(version("4"), version("3"))})
    assert traffic.arms["m"]["4"] is first["4"]
    assert traffic.arms["m"]["4"].split == "a"
    traffic.set_split("m", plan("3=50,4=50", name="b"))
    assert traffic.arms["m"]["4"] is not first["4"]


def test_models_of_one_name_of_split_are_divided_each_in_its_own_way() -> None:
    traffic = Traffic()
    chosen: list[list[int]] = []
    for name in ("m", "n"):
        traffic.set_split(name, plan("3=50,4=50"))
        made = traffic.merged({name: route(version("4", name), version("3", name))})[name]
        assert made is not None
        assert made.split is not None
        chosen.append([made.split.choose(b"user-%d" % i) for i in range(200)])
    assert 60 < sum(one == other for one, other in zip(*chosen, strict=True)) < 140


def test_the_order_of_arms_is_the_plans() -> None:
    traffic = Traffic()
    traffic.set_split("m", plan("4=10,3=90", rules={"alice": "3"}))
    made = traffic.merged({"m": route(FOUR, THREE)})["m"]
    assert made is not None
    assert made.split is not None
    assert made.split.choose(b"alice") == 1


def test_at_the_end_nobody_is_told_what_goes(caplog: pytest.LogCaptureFixture) -> None:
    traffic = Traffic()
    traffic.set_split("m", plan("3=90,4=10"))
    traffic.merged({"m": route(FOUR, THREE)})
    traffic.close()
    assert leads(traffic.merged({"m": route(FOUR)})["m"]) == [("4", None), ("4", "m:4")]
    assert caplog.messages == []
