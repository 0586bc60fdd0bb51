"""When a version directory is whole. Pure: looks at its files in, a verdict out; time comes with the look.

A version is whole once
- two looks at least saw the same files, sizes and times, and none of them has changed for the settle time; or
- it was renamed to where it is: an earlier look saw this very directory under another name, with the same files; or
- it holds the marker `_READY`, and the marker is newer than every file (a marker that was copied along with its files
  is older than one of them, and says nothing).
Whatever changes a file begins it anew. Times of files are compared with each other only, never with a clock of ours:
a file server's clock may be another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

MARKER = "_READY"
SETTLE_NS = 2_000_000_000


class Stamp(NamedTuple):
    """What tells that a file has changed, short of reading it."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @property
    def newest_ns(self) -> int:
        return max(self.mtime_ns, self.ctime_ns)


@dataclass(frozen=True)
class Look:
    """One look at a version's files, at a monotonic time."""

    at_ns: int
    files: Mapping[str, Stamp]          # by path inside the directory; without the marker
    marker: Stamp | None = None
    identity: tuple[int, int] = (0, 0)  # device and inode of the directory


@dataclass(frozen=True)
class Watch:
    """What is known of a version after its latest look."""

    look: Look
    since_ns: int       # when these files were first seen as they are
    whole: bool


def follow(before: Watch | None, look: Look, settle_ns: int = SETTLE_NS, renamed: bool = False) -> Watch:
    """The watch after one more look. `before` is that of the look before it at the same directory, under another name
    where it was `renamed`; None: never seen."""
    if before is None or before.look.files != look.files or before.look.identity != look.identity:
        return Watch(look, look.at_ns, marked(look))
    settled = look.at_ns > before.look.at_ns and look.at_ns - before.since_ns >= settle_ns
    return Watch(look, before.since_ns, before.whole or settled or renamed or marked(look))


def marked(look: Look) -> bool:
    """Whether the marker speaks for all files: a file with its very time may have been written after it."""
    marker = look.marker
    return marker is not None and bool(look.files) and all(
        marker.ctime_ns > stamp.newest_ns for stamp in look.files.values())


def whole_at_start(changed_ns: Mapping[int, int], now_ns: int, settle_ns: int = SETTLE_NS) -> frozenset[int]:
    """Versions of a model that count as whole at the very first look, by when each last changed.

    Those that have not changed for the settle time; if none of them is that old then all, since the operator who
    starts a server on files just written means them. A settle time of 0 says that nobody will look again. Wall-clock
    times: here alone there is no earlier look to go by.
    """
    if settle_ns == 0:
        return frozenset(changed_ns)
    old = frozenset(version for version, changed in changed_ns.items() if now_ns - changed >= settle_ns)
    return old or frozenset(changed_ns)


def fingerprint(files: Mapping[str, Stamp]) -> str:
    """One name for these files as they are; another one as soon as a size or a time differs."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(files):
        digest.update(f"{path}\0{'.'.join(map(str, files[path]))}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
