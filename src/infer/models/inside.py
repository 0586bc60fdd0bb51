"""Paths that stay inside a directory: symbolic links below it are followed by hand, and none leads out.

The directory itself is the operator's word and is left to the kernel, so it may be a link that appears late or one
into another process's files (/proc/<pid>/root), whose text says nothing. What comes back has no link below it, so what
was looked at is what is opened, whatever is swapped meanwhile. Any thread.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

# As the kernel's own bound on links in one path.
LINKS_MOST = 40


class LeadsOut(OSError):
    """A path, or a link on it, leads out of the directory that it must stay in."""


def resolve_inside(root: Path, path: Path) -> Path:
    """`path`, which begins with `root`, with every link below `root` resolved.

    A link to an absolute path is followed where that lies inside the root by the root's own name, or by its real one.
    Raises LeadsOut, or OSError for what does not exist, cannot be read or goes in circles.
    """
    pending = list(reversed(path.relative_to(root).parts))
    resolved: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            if not resolved:
                raise LeadsOut(errno.EXDEV, "leads out", str(path))
            resolved.pop()
            continue
        at = root.joinpath(*resolved, part)
        if not stat.S_ISLNK(os.lstat(at).st_mode):
            resolved.append(part)
            continue
        links += 1
        if links > LINKS_MOST:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = PurePosixPath(os.readlink(at))
        if target.is_absolute():
            resolved.clear()
            target = _below(root, target, path)
        pending += reversed(target.parts)
    return root.joinpath(*resolved)


def _below(root: Path, target: PurePosixPath, path: Path) -> PurePosixPath:
    for name in (os.path.abspath(root), os.path.realpath(root)):
        if target.is_relative_to(name):
            return target.relative_to(name)
    raise LeadsOut(errno.EXDEV, "leads out", str(path))


def has_other_names(status: os.stat_result) -> bool:
    """Whether a file has hard links: it may be another directory's, or a file from anywhere."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink > 1
