"""What a version has to do before its first call in a rollout: plain, immutable, validated. Any thread."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from infer.errors import InvalidArgument

KINDS = ("latency", "replay", "differs", "apart")
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_./-]{0,254}")
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s)")
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def _ensure(good: bool, text: str) -> None:
    if not good:
        raise InvalidArgument(text)


def _is_share(value: object, most: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most


@dataclass(frozen=True)
class GatePlan:
    """Golden outputs are held against whatever is said here."""

    latency_ms: float = 0.0     # at most so long takes the 95th percentile of its runs; 0: however long
    replay: str = ""            # a file below the directory of captured calls; "": none
    differs: float = 0.0        # share of its calls that may be answered otherwise
    apart: float = 0.0          # how far from the captured ones any answer may be; 0: however far

    def __post_init__(self) -> None:
        _ensure(_is_share(self.latency_ms, 1e6), f"gate latency: expected up to 1000s, got {self.latency_ms!r} ms")
        _ensure(isinstance(self.replay, str) and (not self.replay or _FILE.fullmatch(self.replay) is not None)
                and ".." not in self.replay.split("/"),
                f"gate replay: expected the name of a file below --capture-dir, got {self.replay!r}")
        _ensure(_is_share(self.differs, 1), f"gate differs: expected a share from 0 to 1, got {self.differs!r}")
        _ensure(_is_share(self.apart, 1e12), f"gate apart: expected a number from 0, got {self.apart!r}")
        _ensure(bool(self.replay) or not (self.differs or self.apart),
                "gates differs and apart are about a file of captured calls: name it with replay=FILE")


def parse_gates(written: Iterable[str]) -> GatePlan:
    """Each `latency=5ms`, `replay=FILE`, `differs=SHARE` or `apart=X`. Raises InvalidArgument."""
    said: dict[str, str] = {}
    for text in written:
        kind, _, value = text.partition("=")
        _ensure(kind in KINDS and bool(value), f"gate {text!r}: expected latency=5ms, replay=FILE, differs=0.01 or "
                                               "apart=0.1")
        _ensure(kind not in said, f"gate {kind} is given twice")
        said[kind] = value
    latency = _TIME.fullmatch(said.get("latency", "0ms"))
    _ensure(latency is not None, f"gate latency={said.get('latency')}: expected a time such as 5ms, 800us or 1.5s")
    assert latency is not None
    try:
        differs, apart = (float(said.get(kind, "0")) for kind in ("differs", "apart"))
    except ValueError:
        raise InvalidArgument("gates differs and apart: expected numbers, such as differs=0.01") from None
    _ensure(math.isfinite(differs) and math.isfinite(apart), "gates differs and apart: expected finite numbers")
    return GatePlan(float(latency[1]) * _MS[latency[2]], said.get("replay", ""), differs, apart)
