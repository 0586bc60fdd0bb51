"""What this process may use: cores and memory by its cgroups and affinity, open files; and how cores become threads.

Never asks for the host's own numbers where a container has smaller ones.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Beyond this many threads inside one run, small operators gain less than another batch beside it would.
INTRA_OP_MAX = 4
# Descriptors kept for what is not a connection: libraries, logs, pipes, the listeners.
RESERVED_FILES = 64


class Threads(NamedTuple):
    executors: int      # threads that take batches
    intra_op: int       # threads inside one run, the executor included
    max_running: int    # batches of one model at once


class _Mount(NamedTuple):
    controllers: frozenset[str]     # of version 1; empty for version 2
    root: str                       # the cgroup that is mounted
    point: Path


def available_cores(root: Path = Path("/"), affinity: int | None = None) -> int:
    """Whole cores by the tightest quota of this process's cgroups and its affinity mask; at least 1."""
    cores = len(os.sched_getaffinity(0)) if affinity is None else affinity
    for version, directory in _cgroups(root, "cpu"):
        quota, period = _quota(version, directory)
        if quota > 0 and period > 0:
            cores = min(cores, quota // period)
    return max(1, cores)


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """The tightest memory limit of this process's cgroups, or the machine's memory where it is smaller."""
    limit = _memory_total(root)
    for version, directory in _cgroups(root, "memory"):
        words = _words(directory / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        if words and words[0].isdigit():
            limit = min(limit, int(words[0]))
    return limit


def raise_open_files() -> int:
    """Raises the soft limit of open files to the hard one; returns how many are left for connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, hard - RESERVED_FILES) if hard != resource.RLIM_INFINITY else 1 << 20


def plan_threads(cores: int, executors: int | None = None, intra_op: int | None = None) -> Threads:
    """Executors and the threads inside each.

    At least 2 executors even on one core: the kernel time-slices them, and a long run does not keep another model
    waiting. Up to 2 cores a run has one thread. Beyond that executors x intra-op = cores, with intra-op the largest
    divisor of the cores that is at most INTRA_OP_MAX and not more than the executors: batches side by side come first.
    """
    if intra_op is None:
        if cores <= 2:
            intra_op = 1
        elif executors is None:
            intra_op = max(d for d in range(1, INTRA_OP_MAX + 1) if cores % d == 0 and d * d <= cores)
        else:
            intra_op = max(1, cores // executors)
    if executors is None:
        executors = max(2, cores // intra_op)
    return Threads(executors, intra_op, max(1, min(executors, cores // intra_op)))


def _cgroups(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """(version, directory) of this process's cgroup for `controller` and of each one above it that is visible."""
    mounts = list(_mounts(root))
    for line in _lines(root / "proc/self/cgroup"):
        _, names, path = line.split(":", 2)
        controllers = frozenset(names.split(",")) if names else frozenset[str]()
        if controllers and controller not in controllers:
            continue
        for mount in mounts:
            if bool(mount.controllers) != bool(controllers) or (controllers and controller not in mount.controllers):
                continue
            below = _relative(path, mount.root)
            for depth in range(len(below), -1, -1):
                yield 1 if controllers else 2, mount.point.joinpath(*below[:depth])
            break


def _relative(path: str, mounted: str) -> tuple[str, ...]:
    """Parts of the cgroup `path` below the mounted one; none where it lies outside of what this namespace sees."""
    parts, top = Path(path).parts[1:], Path(mounted).parts[1:]
    if ".." in parts:
        return ()
    if parts[:len(top)] == top:
        return parts[len(top):]
    return ()


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            _, _, _, mounted, point, *_ = fields.split(" ")
            controllers = frozenset(options.split(",")) if kind == "cgroup" else frozenset[str]()
            yield _Mount(controllers, mounted, root / point.lstrip("/"))


def _quota(version: int, directory: Path) -> tuple[int, int]:
    """(quota, period) in microseconds; a quota of 0 is none."""
    if version == 2:
        words = _words(directory / "cpu.max")
    else:
        words = _words(directory / "cpu.cfs_quota_us") + _words(directory / "cpu.cfs_period_us")
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return 0, 0
    return int(words[0]), int(words[1])


def _memory_total(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
