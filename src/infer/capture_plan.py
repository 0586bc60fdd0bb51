"""What is asked of a capture: plain, immutable, validated. Any thread."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from infer.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
SUFFIX = ".capture"
MAX_BYTES, PER_SECOND, MAX_MESSAGE_BYTES = 256 << 20, 100, 1 << 20


@dataclass(frozen=True)
class CapturePlan:
    """A fraction of a model's calls, at most so many a second, into a file of its own until that has `max_bytes`.
    `redact`: inputs and outputs whose contents are left out, and `id`. What cannot be a plan raises InvalidArgument."""

    name: str                           # of the file
    fraction: float = 1.0
    per_second: int = PER_SECOND        # 0: as many as come
    max_bytes: int = MAX_BYTES
    max_message_bytes: int = MAX_MESSAGE_BYTES      # calls with more in request and reply are left out
    redact: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidArgument(f"name: expected 1 to 100 of A-Z a-z 0-9 _ . - that do not begin with a dot, got "
                                  f"{self.name!r}")
        if not (math.isfinite(self.fraction) and 0 < self.fraction <= 1):
            raise InvalidArgument(f"fraction: expected a part of all calls, above 0 and at most 1, got {self.fraction}")
        for name, least, most in (("per_second", 0, 1_000_000), ("max_bytes", 1 << 10, 1 << 40),
                                  ("max_message_bytes", 1, 64 << 20)):
            if not least <= getattr(self, name) <= most:
                raise InvalidArgument(f"{name}: expected {least} to {most}, got {getattr(self, name)}")

    @property
    def file(self) -> str:
        return self.name + SUFFIX

    def __str__(self) -> str:
        kept = f", without {', '.join(self.redact)}" if self.redact else ""
        return (f"{100 * self.fraction:.4g}% of calls, at most {self.per_second or 'all'} a second, into {self.file} "
                f"of at most {self.max_bytes} bytes{kept}")
