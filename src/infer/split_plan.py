"""How a model's traffic is to be divided, however it was asked: plain, immutable, validated. Any thread.

A plan names versions and labels that may not be served, now or ever: what it comes to is `traffic.routes`' to say. What
cannot be a plan at all raises InvalidArgument, whose text says what is wrong of which part.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infer._core.variants import ARMS_MAX, RULES_MAX
from infer.errors import InvalidArgument

DEFAULT_NAME = "split"
DEFAULT_KEY = "routing_key"
KEY_BYTES = 1024
# Far less would have no inverse, and count as much as none.
WEIGHT_LEAST, WEIGHT_MOST = 1e-9, 1e9
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_PLACE = re.compile(r"(?:(?P<model>[A-Za-z0-9_.-]{1,128}):)?(?P<version>[A-Za-z0-9_.-]{1,128})")
_PARAMETER = re.compile(r"[!-~]{1,128}")


def _ensure(good: bool, text: str) -> None:
    if not good:
        raise InvalidArgument(text)


@dataclass(frozen=True)
class ArmPlan:
    """A variant: its name in replies and metrics, what it leads to, and its weight beside the others."""

    name: str
    weight: float
    version: str                # a number or a label
    model: str = ""             # "": the one whose traffic is divided

    def __post_init__(self) -> None:
        _ensure(bool(_NAME.fullmatch(self.name)),
                f"variant {self.name!r}: expected a name of 1 to 128 of A-Z a-z 0-9 _ . : -")
        _ensure(bool(_PLACE.fullmatch(self.place)),
                f"variant {self.name!r}: expected a version, a label, or another model's as MODEL:VERSION, got "
                f"{self.place!r}")
        _ensure(isinstance(self.weight, (int, float)) and not isinstance(self.weight, bool)
                and math.isfinite(self.weight) and (self.weight == 0 or WEIGHT_LEAST <= self.weight <= WEIGHT_MOST),
                f"variant {self.name!r}: expected a weight of 0, or of {WEIGHT_LEAST:g} to {WEIGHT_MOST:g}, got "
                f"{self.weight!r}")

    @property
    def place(self) -> str:
        """As it is written: VERSION or MODEL:VERSION."""
        return f"{self.model}:{self.version}" if self.model else self.version


@dataclass(frozen=True)
class SplitPlan:
    """A model's requests that name no version, divided over `arms` by weight; `rules`: the arm of a routing key,
    whatever the weights are. `name` salts the division: another name divides the same keys anew."""

    arms: tuple[ArmPlan, ...]
    name: str = DEFAULT_NAME
    key: str = DEFAULT_KEY      # the request's parameter with the routing key, where no metadata has it
    rules: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        _ensure(bool(_NAME.fullmatch(self.name)),
                f"split {self.name!r}: expected a name of 1 to 128 of A-Z a-z 0-9 _ . : -")
        _ensure(bool(_PARAMETER.fullmatch(self.key)),
                f"split {self.name!r}: key: expected a parameter's name of 1 to 128 printable ASCII characters, got "
                f"{self.key!r}")
        _ensure(0 < len(names) <= ARMS_MAX, f"split {self.name!r}: expected 1 to {ARMS_MAX} variants, got {len(names)}")
        for name in names:
            _ensure(names.count(name) == 1, f"split {self.name!r}: variant {name!r} is named twice")
        _ensure(any(arm.weight > 0 for arm in self.arms),
                f"split {self.name!r}: every weight is 0; give one variant a weight")
        _ensure(len(self.rules) <= RULES_MAX,
                f"split {self.name!r}: expected at most {RULES_MAX} rules, got {len(self.rules)}")
        for key, arm in self.rules.items():
            _ensure(arm in names, f"split {self.name!r}: rule {key!r} leads to {arm!r}, which is none of its variants: "
                                  f"{', '.join(names)}")
            _ensure(0 < len(key.encode()) <= KEY_BYTES,
                    f"split {self.name!r}: rule {key[:64]!r}: expected a key of 1 to {KEY_BYTES} bytes")

    def share(self, arm: ArmPlan) -> float:
        """Of the requests that no rule sends elsewhere."""
        return arm.weight / sum(each.weight for each in self.arms)

    def to_record(self) -> dict[str, Any]:
        """Plain, for the store."""
        return {"name": self.name, "key": self.key, "rules": dict(self.rules),
                "arms": [{"name": arm.name, "weight": arm.weight, "model": arm.model, "version": arm.version}
                         for arm in self.arms]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SplitPlan:
        """Raises InvalidArgument for what is no record of one."""
        try:
            return cls(tuple(ArmPlan(**arm) for arm in record["arms"]), record["name"], record["key"],
                       dict(record["rules"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(f"the record of a split is damaged: {error!r}") from None

    def __str__(self) -> str:
        told = ", ".join(f"{arm.name}{'' if arm.name == arm.place else f' ({arm.place})'} {100 * self.share(arm):.4g}%"
                         for arm in self.arms)
        return f"{self.name!r}: {told}" + (f"; {len(self.rules)} rules" if self.rules else "")


def parse_arm(text: str) -> ArmPlan:
    """`[NAME@][MODEL:]VERSION=WEIGHT`; without a NAME its variant is named as what it leads to."""
    place, equals, weight = text.strip().rpartition("=")
    name, _, target = place.rpartition("@")
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    _ensure(bool(equals) and math.isfinite(number),
            f"variant {text.strip()!r}: expected [NAME@][MODEL:]VERSION=WEIGHT, such as 4=10, new@4=10 or other:1=5")
    return arm_of(name or target, target, number)


def arm_of(name: str, place: str, weight: float) -> ArmPlan:
    """`place`: VERSION or MODEL:VERSION."""
    model, _, version = place.rpartition(":")
    return ArmPlan(name, weight, version, model)


def parse_arms(text: str) -> tuple[ArmPlan, ...]:
    """Several, separated by commas."""
    return tuple(parse_arm(each) for each in text.split(",") if each.strip())


def parse_rules(written: Iterable[str]) -> dict[str, str]:
    """Each `KEY=ARM`; the last `=` counts."""
    rules: dict[str, str] = {}
    for text in written:
        key, equals, arm = text.rpartition("=")
        _ensure(bool(equals) and bool(key), f"rule {text!r}: expected KEY=VARIANT, such as alice=4")
        _ensure(key not in rules, f"rule {key!r} is given twice")
        rules[key] = arm
    return rules


def split_of_table(table: object) -> SplitPlan:
    """Of a table of the settings: `to` has a weight by what parse_arm has before the `=`. Raises InvalidArgument."""
    to = table.get("to") if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping) or not isinstance(to, Mapping):
        raise InvalidArgument('expected a table with the weights of versions: { to = { "3" = 90, "4" = 10 } }')
    for name in table:
        _ensure(name in _KEYS, f"{name!r} is nothing that a split has; expected {', '.join(_KEYS)}")
    texts = {name: table[name] for name in ("name", "key") if name in table}
    for name, value in texts.items():
        _ensure(isinstance(value, str), f"{name}: expected text, got {value!r}")
    rules = table.get("rules", {})
    _ensure(isinstance(rules, Mapping) and all(isinstance(arm, str) for arm in rules.values()),
            f'rules: expected the variant of each key, {{ alice = "4" }}, got {rules!r}')
    arms = []
    for place, weight in to.items():
        name, _, target = place.rpartition("@")
        arms.append(arm_of(name or target, target, weight))
    return SplitPlan(tuple(arms), rules=dict(rules), **texts)


_KEYS = ("to", "name", "key", "rules")
