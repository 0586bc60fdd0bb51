"""What the manager asks of a loader, how much at once and when again, and what it tells of what came of it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from infer.errors import InferError
from infer.models.settings import ModelSettings
from infer.models.snapshot import VersionFiles


@dataclass(frozen=True)
class LoadSpec:
    """One load of one version. `serial` tells it from every other load of this process."""

    name: str
    version: int
    files: VersionFiles
    settings: ModelSettings
    serial: int


Loaded = Callable[[LoadSpec, Any], None]    # with a VersionEntry, or an InferError that says why there is none


class Loader(Protocol):
    """Loads and unloads versions. Its methods are called on the loop thread, return at once and do not raise; so are
    the callbacks, each exactly once, which may happen before the method returns."""

    def load(self, spec: LoadSpec, done: Loaded) -> None:
        """Loads and warms, off the loop."""

    def close(self, entry: Any, done: Callable[[], None]) -> None:
        """Takes no more calls for it; `done` once its last call has ended and its memory is given back."""

    def apply(self, entry: Any, settings: ModelSettings) -> None:
        """Puts an edit that needs no reload into force on a loaded version."""


Kind = Literal["load", "unload", "label", "settings", "model", "remove"]


@dataclass(frozen=True)
class Event:
    """Something that changed, for the audit log, the log and metrics."""

    kind: Kind
    model: str
    version: int | None
    outcome: str            # load: ok, failed; unload: draining, ok; label: moved, deferred, removed;
                            # settings: applied, reload; model: refused; remove, of a directory: ok, failed
    who: str                # who asked; "repository" for what the files ask
    detail: str = ""


@dataclass(frozen=True)
class Bounds:
    loading: int = 2            # loads under way at once
    asks: int = 64              # calls that wait for a load, all models together
    labels: int = 64            # labels of one model that were set at run time


@dataclass(frozen=True)
class Backoff:
    """When a load that failed is tried again: after a time that doubles from `first_ns` up to `longest_ns`."""

    first_ns: int = 1_000_000_000
    longest_ns: int = 300_000_000_000
    jitter: Callable[[], float] = lambda: 1.0      # of [0, 1]: how much of the time's second half is waited

    def delay_ns(self, attempts: int) -> int:
        """After that many failures in a row, at least one."""
        full = min(self.longest_ns, self.first_ns << min(attempts - 1, 62))
        return full // 2 + int(full // 2 * self.jitter())


def refusal_of(result: Any) -> InferError | None:
    """The error of a load that failed."""
    return result if isinstance(result, InferError) else None
