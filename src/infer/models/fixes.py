"""What `infer check --fix` does by itself: renames and edits that cannot change what a model answers. One thread.

A directory called v1 becomes 1, a model without a version directory is moved into 1/ with its data, a name in
config.pbtxt becomes the directory's. Nothing is overwritten; where a fix is not possible nothing is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infer.errors import ModelLoadError
from infer.models.contents import MODEL_FILE
from infer.models.external_data import external_files
from infer.models.problems import Problem
from infer.models.scan import nearest_version

_NAME = re.compile(r'(\bname\s*:\s*)("[^"\\]*"|\'[^\'\\]*\')')


@dataclass(frozen=True)
class Fix:
    """What was done, as it is printed."""

    place: str
    done: str


def fix(problems: Sequence[Problem]) -> list[Fix]:
    """Does what can be done, in order. A second pass over the repository shows what is left."""
    done: list[Fix] = []
    for problem in problems:
        fixer = _fixer(problem)
        if fixer is not None:
            done += fixer(problem)
    return done


def _rename_version(problem: Problem) -> Iterator[Fix]:
    """W201 names the directory itself, E205 the model's directory and what was found in it."""
    place = Path(problem.place)
    found = [place] if problem.code == "W201" else [place / name for name in problem.got.split(", ")]
    for directory in found:
        target = directory.with_name(nearest_version(directory.name))
        if directory.is_dir() and not target.exists():
            directory.rename(target)
            yield Fix(str(directory), f"renamed to {target.name}")


def _move_into_version(problem: Problem) -> Iterator[Fix]:
    """A model's file that lies in the model's directory, with what it names as its data."""
    place = Path(problem.place)
    file = place / problem.field
    target = file.parent / "1"
    if not file.is_file() or file.is_symlink() or target.exists():
        return
    try:
        external = external_files(file, file.read_bytes())
    except ModelLoadError:
        return                  # what belongs to it cannot be told
    if any(len(Path(location).parts) != 1 for location in external):
        return
    target.mkdir()
    for location in external:
        (file.parent / location).rename(target / location)
    file.rename(target / MODEL_FILE)
    yield Fix(str(file), f"moved to {target / MODEL_FILE}" + (f", with {', '.join(external)}" if external else ""))


def _rename_in_config(problem: Problem) -> Iterator[Fix]:
    path, _, rest = problem.place.partition(":")
    line = int(rest.partition(":")[0] or 0)
    file = Path(path)
    lines = file.read_text("utf-8").splitlines(keepends=True)
    if not 0 < line <= len(lines):
        return
    directory = file.parent.resolve().name
    edited, count = _NAME.subn(lambda match: f'{match[1]}"{directory}"', lines[line - 1])
    if count == 1:
        lines[line - 1] = edited
        file.write_text("".join(lines), "utf-8")
        yield Fix(problem.place, f"name is {directory!r} now")


def _fixer(problem: Problem) -> Callable[[Problem], Iterator[Fix]] | None:
    if problem.code in ("W201", "E205") and problem.field == "version":
        return _rename_version
    if problem.code == "E205" and problem.field.lower().endswith(".onnx"):
        return _move_into_version
    return _rename_in_config if problem.code == "E108" else None
