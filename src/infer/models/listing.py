"""What lies in the directories of a repository, one look at a time; repeated looks cost a `stat` per file.

The names in a directory are read again only when the directory has changed, since names change nothing else. A
directory whose times may yet stand still over a change is read twice before its names are relied on. Links are followed
inside the root (`inside`); one that leads out, leads nowhere or cannot be read is an entry with a fault. One thread.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infer.models.inside import LeadsOut, has_other_names, resolve_inside
from infer.models.settle import MARKER, Look, Stamp

# Of one version, subdirectories included; what has more is not a version but somebody's home.
FILES_MOST = 1000
DEPTH_MOST = 4


@dataclass(frozen=True)
class Entry:
    """A name in a directory and what it stands for; `real` has no link below the root."""

    name: str
    path: Path
    real: Path
    status: os.stat_result | None
    fault: str = ""             # why it stands for nothing

    @property
    def is_dir(self) -> bool:
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        return self.status is not None and stat.S_ISREG(self.status.st_mode)

    @property
    def is_model_file(self) -> bool:
        """By its name; what stands for nothing may have been one."""
        return self.name.lower().endswith(".onnx") and not self.is_dir

    @property
    def stamp(self) -> Stamp:
        """Of a file that stands for nothing: one that no file has."""
        return Stamp(-1, 0, 0) if self.status is None else stamp_of(self.status)


def stamp_of(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass
class _Names:
    signature: tuple[int, int, int, int]
    paths: tuple[tuple[Path, bool], ...]    # by name, and whether it is a link
    relied_on: bool = False


class TooMany(Exception):
    """A version with more files than one may have; says where."""


class Listing:
    """The directories of one root. `fresh` begins a look: within it every directory is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[Path, _Names] = {}
        self._seen: dict[Path, tuple[Entry, ...]] = {}

    def fresh(self) -> None:
        gone = self._names.keys() - self._seen.keys()
        for path in gone:
            del self._names[path]
        self._seen = {}

    def entries(self, directory: Path, hidden: bool = False) -> tuple[Entry, ...]:
        """By name; `directory` begins with the root and has no link below it. Raises OSError if it cannot be read."""
        entries = self._seen.get(directory)
        if entries is None:
            entries = tuple(self._entry(path, link) for path, link in self._paths_in(directory))
            self._seen[directory] = entries
        return entries if hidden else tuple(entry for entry in entries if not entry.name.startswith("."))

    def _paths_in(self, directory: Path) -> tuple[tuple[Path, bool], ...]:
        status = os.stat(directory)
        signature = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        known = self._names.get(directory)
        if known is not None and known.relied_on and known.signature == signature:
            return known.paths
        with os.scandir(directory) as found:
            names = sorted((each.name, each.is_symlink()) for each in found)
        paths = tuple((directory / name, link) for name, link in names)
        self._names[directory] = _Names(signature, paths, known is not None and known.signature == signature)
        return paths

    def _entry(self, path: Path, link: bool) -> Entry:
        real = path
        try:
            if link:
                real = resolve_inside(self.root, path)
            return Entry(path.name, path, real, os.lstat(real))
        except LeadsOut:
            return Entry(path.name, path, path, None, f"is a symbolic link that leads out of {self.root}")
        except OSError as error:
            said = "is a symbolic link to nothing" if error.errno == errno.ENOENT else unreadable(error)
            return Entry(path.name, path, path, None, said)

    def look(self, directory: Path, now_ns: int) -> Look:
        """The files of a version, its subdirectories' included. Raises TooMany, or OSError."""
        status = os.stat(directory)
        files: dict[str, Stamp] = {}
        marker = None
        for path, entry in self.walk(directory):
            if path == MARKER:
                marker = entry.stamp
            else:
                files[path] = entry.stamp
        return Look(now_ns, files, marker, (status.st_dev, status.st_ino))

    def walk(self, directory: Path, depth: int = DEPTH_MOST) -> Iterator[tuple[str, Entry]]:
        """Every file below a version's directory, by its path in it; hidden ones too, since they may be its data."""
        count = 0
        visited = {directory}
        pending = [(directory, "", depth)]
        while pending:
            at, above, left = pending.pop()
            if left == 0:
                raise TooMany(f"{directory} has directories more than {depth} deep")
            for entry in self.entries(at, hidden=True):
                count += 1
                if count > FILES_MOST:
                    raise TooMany(f"{directory} holds more than {FILES_MOST} files")
                if not entry.is_dir:
                    yield above + entry.name, entry
                elif entry.real not in visited:
                    visited.add(entry.real)
                    pending.append((entry.real, f"{above}{entry.name}/", left - 1))


def unreadable(error: OSError) -> str:
    advice = "; let the user that serves read it" if isinstance(error, PermissionError) else ""
    return f"cannot be read: {error.strerror}{advice}"


def file_fault(entry: Entry, root: Path) -> str:
    """What speaks against opening a file, before a byte of it is read; "" for nothing."""
    if entry.status is None:
        return entry.fault
    if not entry.is_file:
        return "is not a regular file"
    if has_other_names(entry.status):
        return (f"has {entry.status.st_nlink} names (hard links), so it may belong outside of {root}; copy it: "
                "cp FILE FILE.copy && mv FILE.copy FILE")
    return ""


def listed(entries: Sequence[Entry]) -> str:
    return f"{len(entries)}: " + ", ".join(entry.name for entry in entries)
