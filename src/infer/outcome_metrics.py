"""What outcomes are of: metrics of what became of a reply, as clients report it. Plain, validated. Any thread."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from infer.errors import InvalidArgument

Kind = Literal["rate", "mean"]
Better = Literal["higher", "lower"]

MAX_METRICS = 16
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FORM = "expected NAME:rate or NAME:mean, then :higher or :lower and :MIN..MAX as it needs, such as spend:mean:0..500"


def _ensure(good: bool, text: str) -> None:
    if not good:
        raise InvalidArgument(text)


@dataclass(frozen=True)
class Metric:
    """A `rate` is of outcomes that are 0 or 1, a `mean` of such from `low` to `high`: its tests hold at all times since
    it has bounds."""

    name: str
    kind: Kind = "rate"
    better: Better = "higher"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _ensure(bool(_NAME.fullmatch(self.name)),
                f"metric {self.name!r}: expected a name of 1 to 64 of A-Z a-z 0-9 _ . -")
        _ensure(self.kind in get_args(Kind), f"metric {self.name!r}: expected rate or mean, got {self.kind!r}")
        _ensure(self.better in get_args(Better), f"metric {self.name!r}: expected higher or lower, got {self.better!r}")
        _ensure(all(isinstance(each, (int, float)) and abs(each) <= 1e15 for each in (self.low, self.high))
                and self.low < self.high,
                f"metric {self.name!r}: expected bounds MIN..MAX of -1e15 to 1e15 that rise, got "
                f"{self.low!r}..{self.high!r}")
        _ensure(self.kind == "mean" or (self.low, self.high) == (0, 1),
                f"metric {self.name!r}: a rate is of outcomes that are 0 or 1; for others say mean")

    def unit_of(self, value: float) -> float:
        """An outcome on the scale of 0 to 1 that sums are kept in. Raises InvalidArgument."""
        # Not so for one that is no number.
        if not self.low <= value <= self.high:
            raise InvalidArgument(f"metric {self.name!r}: expected a value from {self.low:g} to {self.high:g}, got "
                                  f"{value!r}")
        if self.kind == "rate" and 0.0 < value < 1.0:
            raise InvalidArgument(f"metric {self.name!r} is a rate: expected 0 or 1, got {value!r}")
        return (value - self.low) / (self.high - self.low)

    def value_of(self, unit: float) -> float:
        """From that scale to its own."""
        return self.low + unit * (self.high - self.low)

    def __str__(self) -> str:
        bounds = f":{self.low:g}..{self.high:g}" if self.kind == "mean" else ""
        return f"{self.name}:{self.kind}:{self.better}{bounds}"

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Metric:
        return cls(**record)


class Outcome(NamedTuple):
    """What became of one reply by one metric. One of `request_id` and `routing_key` is not empty."""

    model: str
    metric: str
    value: float
    request_id: str = ""
    routing_key: str = ""


def parse_metric(text: str) -> Metric:
    """NAME:rate|mean[:higher|lower][:MIN..MAX]. Raises InvalidArgument."""
    name, *parts = text.strip().split(":")
    said: dict[str, Any] = {}
    for part in parts:
        if part in get_args(Kind):
            key: str = "kind"
        elif part in get_args(Better):
            key = "better"
        else:
            key = "bounds"
        _ensure(key not in said, f"metric {text!r}: {_FORM}")
        said[key] = part
    _ensure("kind" in said, f"metric {text!r}: {_FORM}")
    bounds = said.pop("bounds", None)
    _ensure(bounds is not None or said["kind"] == "rate",
            f"metric {text!r}: a mean needs the bounds of its outcomes; {_FORM}")
    if bounds is not None:
        low, dots, high = bounds.partition("..")
        try:
            said["low"], said["high"] = float(low), float(high)
        except ValueError:
            dots = ""
        _ensure(bool(dots), f"metric {text!r}: {_FORM}")
    return Metric(name, **said)


def parse_metrics(written: Iterable[str]) -> tuple[Metric, ...]:
    return ensure_metrics(tuple(parse_metric(text) for text in written))


def ensure_metrics(metrics: tuple[Metric, ...]) -> tuple[Metric, ...]:
    """Raises InvalidArgument where there are none, too many, or two of one name."""
    names = [each.name for each in metrics]
    _ensure(0 < len(names) <= MAX_METRICS, f"expected 1 to {MAX_METRICS} metrics, got {len(names)}")
    for name in names:
        _ensure(names.count(name) == 1, f"metric {name!r} is named twice")
    return metrics
