"""What to do next with the versions of one model: one step at a time, decided from its state table alone. Pure.

Availability-preserving, the default: load, publish, then drain what is not aspired any more. What is ready stays until
a better one is: an old incarnation until its own successor is, the last ready version until another is, the version
that calls get by default until the one that is to get them is. So a load that fails takes nothing away.

Resource-preserving: what is not aspired is drained first, and nothing is loaded before it has ended; so never more
versions hold memory than are aspired.

Both follow the order of TensorFlow Serving's aspired-versions policies, and differ from them where a version is loaded
anew under its own number, which those do not know.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple

from infer.models.harness import HOLDING, Key, State

Action = Literal["load", "publish", "drain", "forget"]


@dataclass(frozen=True)
class VersionStatus:
    """One row, as much as a decision needs."""

    key: Key
    state: State
    aspired: bool
    retry_at_ns: int = 0


class Step(NamedTuple):
    action: Action
    key: Key


def next_step(table: Collection[VersionStatus], *, availability: bool, may_load: bool, now_ns: int,
              may_publish: bool = True, first: int | None = None) -> Step | None:
    """The one next step, or None where there is nothing to do now.

    `may_load`: whether a loader is free. `may_publish`: whether what is loaded waits for nothing else. `first`: a
    version that is loaded before the others.
    """
    settled = _unwanted(table) or (_finished(table) if may_publish else None)
    if settled is not None:
        return settled
    drained = _superseded(table) if availability else _lowest(table, State.READY)
    if drained is not None:
        return Step("drain", drained)
    if may_load and (availability or _has_room(table)):
        return _load(table, now_ns, first)
    return None


def _unwanted(table: Collection[VersionStatus]) -> Step | None:
    """Rows that hold nothing that calls could reach end at once."""
    for row in table:
        if not row.aspired and row.state in (State.NEW, State.FAILED):
            return Step("forget", row.key)
        if not row.aspired and row.state is State.LOADED:
            return Step("drain", row.key)
    return None


def _finished(table: Collection[VersionStatus]) -> Step | None:
    for row in table:
        if row.aspired and row.state is State.LOADED:
            return Step("publish", row.key)
    return None


def _lowest(table: Collection[VersionStatus], state: State) -> Key | None:
    return min((row.key for row in table if not row.aspired and row.state is state), default=None)


def _superseded(table: Collection[VersionStatus]) -> Key | None:
    """A ready row that is not aspired and that nothing waits to be better than."""
    aspired = {row.key.version for row in table if row.aspired}
    ready = {row.key.version for row in table if row.aspired and row.state is State.READY}
    highest_ready = max(ready, default=0)
    best_is_ready = max(aspired, default=0) == highest_ready
    for row in sorted(table, key=lambda row: row.key):
        if row.aspired or row.state is not State.READY:
            continue
        replaced_later = row.key.version in aspired - ready
        is_default = not best_is_ready and row.key.version > highest_ready
        if not replaced_later and not is_default:
            return row.key
    return None


def _has_room(table: Collection[VersionStatus]) -> bool:
    return not any(row.state in HOLDING and not row.aspired for row in table)


def _load(table: Collection[VersionStatus], now_ns: int, first: int | None) -> Step | None:
    """What was never tried, highest first; then what failed and is due."""
    new = [row.key for row in table if row.aspired and row.state is State.NEW]
    due = [row.key for row in table if row.aspired and row.state is State.FAILED and row.retry_at_ns <= now_ns]
    for keys in (new, due):
        if keys:
            return Step("load", max(keys, key=lambda key: (key.version == first, key)))
    return None
