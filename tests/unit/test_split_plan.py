"""Plans: what may be asked for, how it is written, and what is said of what may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infer.errors import InvalidArgument
from infer.models.settings import written_splits
from infer.models.toml_models import parse_toml_models
from infer.split_plan import ArmPlan, SplitPlan, parse_arm, parse_arms, parse_rules, split_of_table


def plan(to: str = "3=90,4=10", **fields: Any) -> SplitPlan:
    return SplitPlan(parse_arms(to), **fields)


@pytest.mark.parametrize(("text", "arm"), [
    ("3=90", ArmPlan("3", 90, "3")), (" 4 = 0.5 ".replace(" ", ""), ArmPlan("4", 0.5, "4")),
    ("other:7=1e2", ArmPlan("other:7", 100, "7", "other")), ("canary=5", ArmPlan("canary", 5, "canary")),
    ("new@4=10", ArmPlan("new", 10, "4")), ("new@other.b:4=0", ArmPlan("new", 0, "4", "other.b"))])
def test_arms_as_they_are_written(text: str, arm: ArmPlan) -> None:
    assert parse_arm(text) == arm


@pytest.mark.parametrize(("text", "said"), [
    ("3", r"variant '3': expected \[NAME@\]\[MODEL:\]VERSION=WEIGHT, such as 4=10"),
    ("3=many", "variant '3=many': expected"), ("3=nan", "variant '3=nan': expected"),
    ("3=-1", "variant '3': expected a weight of 0, or of 1e-09 to 1e.09, got -1.0"),
    ("3=1e10", "expected a weight of 0, or of 1e-09 to"),
    ("3=1e-310", "expected a weight of 0, or of 1e-09 to"),
    ("=5", "variant '': expected a name of 1 to 128"), ("a b=5", "variant 'a b': expected a name"),
    ("x@a/b=5", "variant 'x': expected a version, a label, or another model's as MODEL:VERSION, got 'a/b'"),
    ("x@a:b:c=5", "got 'a:b:c'"), ("x@:3=5", None)])
def test_what_is_no_arm(text: str, said: str | None) -> None:
    if said is None:
        assert parse_arm(text) == ArmPlan("x", 5, "3")
        return
    with pytest.raises(InvalidArgument, match=said):
        parse_arm(text)


@pytest.mark.parametrize(("make", "said"), [
    (lambda: SplitPlan(()), "split 'split': expected 1 to 16 variants, got 0"),
    (lambda: plan(",".join(f"{i}=1" for i in range(17))), "expected 1 to 16 variants, got 17"),
    (lambda: plan("3=1,3=2"), "variant '3' is named twice"), (lambda: plan("3=0,4=0"), "every weight is 0"),
    (lambda: plan(name="a b"), "split 'a b': expected a name"),
    (lambda: plan(key="a b"), "key: expected a parameter's name"),
    (lambda: plan(rules={"alice": "5"}), "rule 'alice' leads to '5', which is none of its variants: 3, 4"),
    (lambda: plan(rules={"": "3"}), "rule '': expected a key of 1 to 1024 bytes"),
    (lambda: plan(rules={"é" * 513: "3"}), "expected a key of 1 to 1024 bytes"),
    (lambda: plan(rules={str(i): "3" for i in range(4097)}), "expected at most 4096 rules, got 4097")])
def test_what_is_no_plan(make: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        make()


def test_rules_as_they_are_written() -> None:
    assert parse_rules(["alice=4", "a=b=3"]) == {"alice": "4", "a=b": "3"}
    for written, said in ((["alice"], "rule 'alice': expected KEY=VARIANT"), (["=3"], "rule '=3'"),
                          (["a=3", "a=4"], "rule 'a' is given twice")):
        with pytest.raises(InvalidArgument, match=said):
            parse_rules(written)


def test_a_record_comes_back_as_it_was() -> None:
    made = plan("control@3=50,new@other:4=0.1,x@canary=0", name="exp-1", key="user", rules={"alice": "new"})
    assert SplitPlan.from_record(json.loads(json.dumps(made.to_record()))) == made


@pytest.mark.parametrize("record", [
    {}, {"arms": 3}, {"arms": [{"name": "a"}], "name": "s", "key": "k", "rules": {}},
    {**plan().to_record(), "rules": None}, {**plan().to_record(), "arms": [3]}])
def test_a_record_that_is_damaged(record: Any) -> None:
    with pytest.raises(InvalidArgument, match="the record of a split is damaged"):
        SplitPlan.from_record(record)


def test_in_words() -> None:
    assert str(plan(rules={"a": "3"})) == "'split': 3 90%, 4 10%; 1 rules"
    assert str(plan("new@4=1,3=0", name="exp")) == "'exp': new (4) 100%, 3 0%"


@pytest.mark.parametrize(("table", "said"), [
    ("3=90", "expected a table with the weights of versions"), ({}, "expected a table with the weights of versions"),
    ({"to": "3=90"}, "expected a table with the weights of versions"),
    ({"to": {"3": 1}, "salt": "a"}, "'salt' is nothing that a split has; expected to, name, key, rules"),
    ({"to": {"3": 1}, "name": 5}, "name: expected text, got 5"),
    ({"to": {"3": "x"}}, "variant '3': expected a weight of 0, or of 1e-09 to 1e.09, got 'x'"),
    ({"to": {"3": True}}, "expected a weight of 0, or of 1e-09 to 1e.09, got True"),
    ({"to": {"3": 1}, "rules": {"a": 3}}, "rules: expected the variant of each key"),
    ({"to": {"3": 1}, "rules": ["a"]}, "rules: expected the variant of each key"),
    ({"to": {}}, "expected 1 to 16 variants, got 0")])
def test_what_is_no_table_of_one(table: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        split_of_table(table)


def test_a_table_of_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "infer.toml"
    found = parse_toml_models("""
[models.fraud.split]
to = { "3" = 90, "new@4" = 9.5, "other:1" = 0 }
name = "exp-1"
key = "user"
rules = { alice = "new" }

[models.plain]
""", path)
    assert found.problems == ()
    assert written_splits({each.name: each for each in found.models}) == {
        "fraud": plan("3=90,new@4=9.5,other:1=0", name="exp-1", key="user", rules={"alice": "new"})}
    wrong = parse_toml_models("[models.fraud.split]\nto = { '3' = 0 }\n", path)
    assert [str(problem) for problem in wrong.problems] == [
        f"{path}:1:1: split: split 'split': every weight is 0; give one variant a weight, got {{'to': {{'3': 0}}}}; "
        "correct the value [E103]"]
