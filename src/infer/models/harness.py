"""The state table of one model's versions, each from its files to its end. No I/O, no time of its own; the loop thread.

NEW -> LOADING -> LOADED -> READY -> DRAINING -> gone; LOADING -> FAILED -> LOADING; LOADED -> DRAINING where nobody
wants it any more; NEW and FAILED -> gone. A move that is not one of these raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from infer.models.settings import ModelSettings
from infer.models.snapshot import VersionFiles


class State(Enum):
    NEW = "new"                 # waits to be loaded
    LOADING = "loading"
    LOADED = "loaded"           # warm, not published
    READY = "ready"             # published: calls reach it
    DRAINING = "draining"       # takes no calls; its last ones end, then its memory is given back
    FAILED = "failed"           # holds nothing; loaded again when its time has come


# What takes memory or is about to.
HOLDING = frozenset({State.LOADING, State.LOADED, State.READY, State.DRAINING})
_LEGAL = frozenset({
    (State.NEW, State.LOADING), (State.LOADING, State.LOADED), (State.LOADING, State.FAILED),
    (State.LOADED, State.READY), (State.LOADED, State.DRAINING), (State.READY, State.DRAINING),
    (State.FAILED, State.LOADING),
})
_ENDS = frozenset({State.NEW, State.FAILED, State.DRAINING})


class Key(NamedTuple):
    """An incarnation of a version: other files, or settings that ask for a reload, make another one of its number."""

    version: int
    fingerprint: str
    generation: int = 0         # of the model's settings


@dataclass
class Incarnation:
    """One row of the table."""

    key: Key
    files: VersionFiles
    settings: ModelSettings     # that it is loaded under; edits that need no reload are applied to it
    state: State = State.NEW
    entry: Any = None           # the VersionEntry, from LOADED until it has drained
    reason: str = ""            # of the last failed load; stays until a load succeeds
    attempts: int = 0           # failed loads in a row
    retry_at_ns: int = 0

    @property
    def version(self) -> int:
        return self.key.version

    def move(self, state: State) -> None:
        if (self.state, state) not in _LEGAL:
            raise ValueError(f"{self.settings.name!r} version {self.version} cannot go from {self.state.value} to "
                             f"{state.value}")
        self.state = state

    def loaded(self, entry: Any) -> None:
        self.move(State.LOADED)
        self.entry, self.reason, self.attempts = entry, "", 0

    def failed(self, reason: str, retry_at_ns: int) -> None:
        self.move(State.FAILED)
        self.reason, self.retry_at_ns = reason, retry_at_ns
        self.attempts += 1


class Table:
    """The incarnations of one model. Those that drain have left their place to a next one of the same key."""

    def __init__(self) -> None:
        self.current: dict[Key, Incarnation] = {}
        self.draining: list[Incarnation] = []

    def __iter__(self) -> Iterator[Incarnation]:
        yield from self.current.values()
        yield from self.draining

    def __bool__(self) -> bool:
        return bool(self.current or self.draining)

    def add(self, row: Incarnation) -> None:
        if row.key in self.current:
            raise ValueError(f"{row.settings.name!r} version {row.version} is there already")
        self.current[row.key] = row

    def drain(self, key: Key) -> Incarnation:
        row = self.current[key]
        row.move(State.DRAINING)
        self.draining.append(self.current.pop(key))
        return row

    def forget(self, row: Incarnation) -> None:
        """The row's end: it holds nothing any more."""
        if row.state not in _ENDS:
            raise ValueError(f"{row.settings.name!r} version {row.version} cannot be forgotten while "
                             f"{row.state.value}")
        if row.state is State.DRAINING:
            self.draining.remove(row)
        else:
            del self.current[row.key]

    def ready(self) -> dict[int, Incarnation]:
        """By version; between two steps of a swap the later incarnation of a version counts."""
        return {row.version: row for row in self.current.values() if row.state is State.READY}
