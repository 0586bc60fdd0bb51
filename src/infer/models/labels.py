"""Names for versions of a model: where each label points, and which version answers calls that name none. Pure.

A label moves only to a version that is ready; named for another it is deferred and stays where it is. It remembers its
version while that is not ready, over a restart too, so that it points there again and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

# The label whose version answers calls that name none.
STABLE = "stable"
# No label may be taken for a version, nor go beyond what a call carries.
LABEL = re.compile(r"(?!-?[0-9]+\Z)[A-Za-z0-9_.-]{1,128}")


@dataclass(frozen=True)
class Labels:
    """Where the labels of one model point."""

    held: Mapping[str, int]         # every label that was ever set and is still wanted; its version may be unready
    deferred: Mapping[str, int]     # what is wanted of those that could not move

    def effective(self, ready: Collection[int]) -> dict[str, int]:
        """The labels that can be called by."""
        return {label: version for label, version in self.held.items() if version in ready}


def moved(wanted: Mapping[str, int], ready: Collection[int], held: Mapping[str, int]) -> Labels:
    """Every wanted label at its version if that is ready, else where it was; labels no longer wanted are gone."""
    now: dict[str, int] = {}
    deferred: dict[str, int] = {}
    for label, version in wanted.items():
        if version in ready:
            now[label] = version
            continue
        if label in held:
            now[label] = held[label]
        if now.get(label) != version:
            deferred[label] = version
    return Labels(now, deferred)


def default_version(held: Mapping[str, int], ready: Collection[int]) -> int | None:
    """The version that answers calls without one: that of `stable` once it was set, else the highest ready.

    A `stable` that was set and whose version is not ready leaves none: calls for it must not fall to a canary.
    """
    if STABLE in held:
        return held[STABLE] if held[STABLE] in ready else None
    return max(ready, default=None)
