"""Deletes version directories: out of sight in one step, so that no look sees half of one. On the source's thread."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

log = logging.getLogger("infer.models")

# Of a directory that is being deleted, beside the versions; no scan takes a name with a dot for a version.
PREFIX = ".removed-"


def age_s(directory: Path, now_s: float) -> float | None:
    """Seconds since the directory or anything in it changed, by the file system's times; None where it is gone."""
    newest = None
    try:
        newest = directory.stat().st_mtime
        for folder, _, files in os.walk(directory):
            for path in (folder, *(os.path.join(folder, file) for file in files)):
                with contextlib.suppress(FileNotFoundError):
                    newest = max(newest, os.stat(path).st_mtime)
    except OSError:
        return None
    return max(0.0, now_s - newest)


def remove(base: Path, directory: Path) -> None:
    """Takes the directory of a version away from its model's, `base`, and deletes it. Raises OSError while it is still
    there, whole; what of it cannot be deleted then is tried again by `finish_removals`."""
    if directory.parent != base or directory.is_symlink():
        raise OSError(None, f"it is a link to elsewhere, and not a directory in {base}")
    hidden = directory.with_name(f"{PREFIX}{directory.name}")
    if hidden.exists():
        shutil.rmtree(hidden)
    directory.rename(hidden)
    try:
        shutil.rmtree(hidden)
    except OSError as error:
        log.warning("%s is removed, but its files are still in %s: %s", directory, hidden, error.strerror)


def finish_removals(base: Path) -> None:
    """Deletes what earlier removals have left in a model's directory."""
    try:
        for hidden in base.glob(f"{PREFIX}*"):
            shutil.rmtree(hidden)
    except OSError as error:
        # Said as a warning when it was removed.
        log.debug("%s: %s", base, error)
