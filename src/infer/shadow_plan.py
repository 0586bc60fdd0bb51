"""What is asked of a model's shadow, however it was asked: plain, immutable, validated. Any thread."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from infer.errors import InvalidArgument

_TARGET = re.compile(r"[A-Za-z0-9_.-]{1,128}")
RTOL, ATOL = 1e-5, 1e-8


@dataclass(frozen=True)
class ShadowPlan:
    """`to` has copies of a fraction of what the model's other versions answer. Elements agree where they are no further
    apart than `atol` and `rtol` of the primary's. What cannot be a plan raises InvalidArgument."""

    to: str                     # a version or a label of the model
    fraction: float = 1.0
    rtol: float = RTOL
    atol: float = ATOL

    def __post_init__(self) -> None:
        if not isinstance(self.to, str) or not _TARGET.fullmatch(self.to):
            raise InvalidArgument(f"to: expected a version or a label, got {self.to!r}")
        for name in ("fraction", "rtol", "atol"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise InvalidArgument(f"{name}: expected a number from 0, got {value!r}")
            object.__setattr__(self, name, float(value))
        if not 0 < self.fraction <= 1:
            raise InvalidArgument(f"fraction: expected a part of all requests, above 0 and at most 1, got "
                                  f"{self.fraction!r}")

    def record(self) -> dict[str, Any]:
        """Plain, for the store."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{100 * self.fraction:.4g}% of requests to {self.to}, rtol {self.rtol:g}, atol {self.atol:g}"


def plan_of(fields: object) -> ShadowPlan:
    """Of a table or a record. Raises InvalidArgument."""
    if not isinstance(fields, Mapping) or "to" not in fields:
        raise InvalidArgument('expected a table with the version that has the copies: { to = "4", fraction = 0.1 }')
    known = ShadowPlan.__dataclass_fields__
    for name in fields:
        if name not in known:
            raise InvalidArgument(f"{name!r} is nothing that a shadow has; expected {', '.join(known)}")
    given = dict(fields)
    if isinstance(given["to"], int) and not isinstance(given["to"], bool):
        given["to"] = str(given["to"])
    return ShadowPlan(**given)
