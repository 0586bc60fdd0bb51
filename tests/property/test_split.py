"""Splits: against a plain Python model, and what a million keys come to (Shows 1)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer._core._testing_split import contingency
from infer._core.variants import ARMS_MAX, RULES_MAX, hash_of
from tests.support.splits import chi_square, chosen, hashed, shares, split_of

KEYS = 1_000_000
SHARE, MOVED = 0.002, 0.003
NAMES = st.text("abc-._:XYZ0123456789é", min_size=1, max_size=20)
WEIGHTS = st.dictionaries(NAMES, st.sampled_from([0.0, 0.01, 1.0, 10.0, 33.3, 1e6]), min_size=1, max_size=ARMS_MAX)
# What a chi-square of so many degrees of freedom passes by chance once in a thousand times.
PINNED, PINNED_HASH = "0100111100101020012001021111010001200011", 0xf0b31e27c4b0b6c3
CHI_SQUARE = {1: 10.83, 2: 13.82, 4: 18.47}


@given(st.binary(max_size=70))
def test_keys_hash_as_the_model_says(key: bytes) -> None:
    assert hash_of(key) == hashed(key)


@settings(max_examples=200)
@given(WEIGHTS.filter(lambda weights: any(weights.values())), NAMES, st.data())
def test_arms_are_those_of_the_model(weights: Mapping[str, float], salt: str, data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.binary(max_size=30), min_size=1, max_size=30, unique=True))
    rules = {key: data.draw(st.sampled_from(list(weights))) for key in keys[::3]}
    split = split_of(weights, salt, rules)
    assert [list(weights)[split.choose(key)] for key in keys] == [chosen(salt, weights, rules, key) for key in keys]


def test_as_many_rules_as_there_may_be() -> None:
    rules = {f"key-{i}".encode(): f"{i % 3}" for i in range(RULES_MAX)}
    split = split_of({"0": 1, "1": 0, "2": 0}, rules=rules)
    assert all(split.choose(key) == int(arm) for key, arm in rules.items())
    assert {split.choose(f"other-{i}".encode()) for i in range(100)} == {0}
    with pytest.raises(ValueError, match=f"{RULES_MAX + 1} rules"):
        split_of({"0": 1, "1": 0, "2": 0}, rules=rules | {b"one more": "0"})


def test_as_many_arms_as_there_may_be() -> None:
    split = split_of({str(i): 1.0 for i in range(ARMS_MAX)})
    assert {split.choose(b"%d" % i) for i in range(1000)} == set(range(ARMS_MAX))
    with pytest.raises(ValueError, match=f"{ARMS_MAX + 1} arms"):
        split_of({str(i): 1.0 for i in range(ARMS_MAX + 1)})


# Shows 1.

@pytest.mark.parametrize("weights", [
    {"1": 50, "2": 50}, {"3": 90, "4": 10}, {"a": 1, "b": 99}, {"a": 98, "b": 1, "c": 1}, {"x": 5, "y": 3, "z": 2},
    {str(i): i + 1 for i in range(ARMS_MAX)}])
def test_shares_are_the_weights(weights: Mapping[str, float]) -> None:
    split = split_of(weights)
    found = shares(contingency(split, split, KEYS))
    wanted = [weight / sum(weights.values()) for weight in weights.values()]
    assert max(abs(count / KEYS - share) for count, share in zip(found, wanted, strict=True)) <= SHARE


@pytest.mark.parametrize(("before", "after", "moved"), [((50, 50), (60, 40), 0.10), ((99, 1), (95, 5), 0.04),
                                                       ((90, 10), (0, 100), 0.90)])
def test_a_weight_moves_what_it_grows_by_and_none_the_other_way(
        before: tuple[int, int], after: tuple[int, int], moved: float) -> None:
    ways = contingency(split_of(dict(zip("ab", before, strict=True))), split_of(dict(zip("ab", after, strict=True))),
                       KEYS)
    to_a, to_b = ways[1][0], ways[0][1]
    assert min(to_a, to_b) == 0
    assert abs(max(to_a, to_b) / KEYS - moved) <= MOVED


@pytest.mark.parametrize("weights", [{"a": 50, "b": 50, "new": 10}, {"a": 45, "b": 45, "new": 10}])
def test_a_variant_that_is_added_moves_its_share_alone(weights: Mapping[str, float]) -> None:
    ways = contingency(split_of({"a": 50, "b": 50}), split_of(weights), KEYS)
    assert (ways[0][1], ways[1][0]) == (0, 0)
    share = weights["new"] / sum(weights.values())
    assert abs((ways[0][2] + ways[1][2]) / KEYS - share) <= SHARE
    # It takes as much of each.
    assert abs(ways[0][2] - ways[1][2]) / KEYS <= SHARE


def test_the_order_in_which_arms_are_written_says_nothing() -> None:
    ways = contingency(split_of({"a": 1, "b": 2, "c": 3}), split_of({"c": 3, "a": 1, "b": 2}), KEYS // 10)
    assert {(i, j) for i in range(3) for j in range(3) if ways[i][j]} == {(0, 1), (1, 2), (2, 0)}


@pytest.mark.parametrize("salt", ["m/b", "m/split2", "n/split", "m/spli", "m/split "])
@pytest.mark.parametrize("weights", [{"3": 90, "4": 10}, {"a": 1, "b": 1, "c": 2}])
def test_experiments_are_independent(weights: Mapping[str, float], salt: str) -> None:
    table = contingency(split_of(weights), split_of(weights, salt), KEYS)
    assert chi_square(table) < CHI_SQUARE[(len(weights) - 1) ** 2], table


PROGRAM = """
import json
from tests.support.splits import split_of
split = split_of({"3": 60, "4": 30, "x": 10}, "fraud/exp", {b"user-7": "x"})
print(json.dumps([split.choose(b"user-%d" % i) for i in range(200)]))
"""


def test_every_process_comes_to_the_same() -> None:
    found = {subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True,
                            env=os.environ | {"PYTHONHASHSEED": seed}).stdout for seed in ("1", "2")}
    split = split_of({"3": 60, "4": 30, "x": 10}, "fraud/exp", {b"user-7": "x"})
    assert [json.loads(text) for text in found] == [[split.choose(b"user-%d" % i) for i in range(200)]]


def test_keys_go_where_they_have_gone_ever_since() -> None:
    """A change here moves every user of every experiment."""
    split = split_of({"3": 60, "4": 30, "x": 10}, "fraud/exp")
    assert "".join(str(split.choose(b"user-%d" % i)) for i in range(40)) == PINNED
    assert hash_of(b"infer-routing-key") == PINNED_HASH
