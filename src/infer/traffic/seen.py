"""What a look sees of each version since the look before. Plain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from infer.traffic.outcomes import Sums


@dataclass(frozen=True)
class Copies:
    """What a shadow has compared."""

    compared: int = 0
    differing: int = 0
    vectors: int = 0        # along the last dimension of outputs
    others: int = 0         # of these, whose largest element is another one

    def __sub__(self, other: Copies) -> Copies:
        return Copies(*(mine - its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Seen:
    """Of one arm, since the look before."""

    calls: int = 0
    errors: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)    # calls by the smallest ns of their bucket
    outputs: Mapping[str, Mapping[int, int]] = field(default_factory=dict)  # values by output and number of their bin
    clump: float = 1.0                                          # calls that shared a batch
    copies: Copies = Copies()                                   # of a shadow of it
    outcomes: Mapping[str, Sums] = field(default_factory=dict)  # that clients have reported, by metric
