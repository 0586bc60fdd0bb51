"""A measured figure beside the bar that it is held against, and the table of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """One figure; `limit` belongs to what is allowed."""

    name: str
    value: float
    limit: float
    at_most: bool = False
    unit: str = ""
    applies: bool = True
    """False where the bar is meant for another machine or setting: it is then shown and not judged."""

    @property
    def met(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    @property
    def verdict(self) -> str:
        if not self.applies:
            return "does not apply"
        return "met" if self.met else "MISSED"

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def tail_limit(alone_ms: float) -> float:
    """What the p99 of a well-behaved client may be beside those that are not."""
    return max(1.2 * alone_ms, alone_ms + 0.5)


def number(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f}{unit and ' ' + unit}"


def print_bars(bars: Sequence[Bar]) -> None:
    """One line each: name, value, bar, verdict."""
    width = max((len(bar.name) for bar in bars), default=0)
    for bar in bars:
        limit = f"{'<=' if bar.at_most else '>='} {number(bar.limit, bar.unit)}"
        print(f"{bar.name:{width}}  {number(bar.value, bar.unit):>16}  {limit:>18}  {bar.verdict}", flush=True)
