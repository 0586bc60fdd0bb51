"""What a version's files hold, as far as it can be told without a runtime: its facts, or why it cannot be loaded.

Read once per change of the files, on the source's thread; parsing runs without the GIL. A file that grows under the
reader is only ever a file that is not whole: nothing is mapped.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infer._core.external_data import external_entries
from infer._core.file_content import FileContent
from infer._core.onnx_facts import onnx_facts
from infer.cores import memory_limit_bytes
from infer.errors import ModelLoadError
from infer.models.external_data import external_files
from infer.models.listing import Entry, Listing, file_fault, listed, unreadable
from infer.models.memory import used_bytes
from infer.models.mlflow import MLMODEL, MlflowModel, read_mlmodel
from infer.models.problems import Problem, error

if TYPE_CHECKING:
    from infer._core.onnx_facts import OnnxFacts

MODEL_FILE = "model.onnx"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# Protobuf's own bound on a message.
FILE_BYTES_MOST = (1 << 31) - 1
# A file up to that is read without asking what memory there is.
LARGE_BYTES = 64 << 20
_LFS_FIX = "run: git lfs pull"


@dataclass(frozen=True)
class Contents:
    """Of one version. With a problem it is not to be loaded; the facts are there where they could be read."""

    file: Path | None = None                # of the model
    facts: OnnxFacts | None = None
    external: Sequence[str] = ()            # files of weights beside it, by location
    total_bytes: int = 0                    # the model file and these
    mlflow: MlflowModel | None = None
    problem: Problem | None = None


def read_contents(listing: Listing, directory: Path, filename: str | None, place: str = "") -> Contents:
    """Of a version directory, which lies under the listing's root. `filename`: what the configuration names, written
    at `place`."""
    try:
        entries = listing.entries(directory)
        mlflow, problem = _mlflow(entries)
        if problem is None:
            named = filename and (filename, "default_model_filename", place or str(directory))
            if mlflow is not None and not named:
                named = mlflow.data, "flavors.onnx.data", str(directory / MLMODEL)
            file, problem = model_file(listing, directory, named or None)
        if problem is not None or file is None:
            return Contents(problem=problem or _no_file(listing, directory))
        return read_file(file, listing.root, mlflow)
    except OSError as failure:
        return Contents(problem=error(str(failure.filename or directory), "", "E200", cause=unreadable(failure),
                                      fix="see that it can be read"))


def read_file(entry: Entry, root: Path | None, mlflow: MlflowModel | None = None) -> Contents:
    """Of a model file. `root` is None for one that the operator named: then its links are his word."""
    place = str(entry.path)
    fault = file_fault(entry, root) if root is not None else "" if entry.is_file else "is not a regular file"
    if fault:
        links = "leads out" in fault or "hard links" in fault
        return Contents(problem=error(place, "", "E208" if links else "E202", cause=fault,
                                      fix="put the model's file there"))
    unfit = _too_large(entry.stamp.size_bytes)
    if unfit:
        return Contents(problem=error(place, "", "E308", cause=unfit[0], fix=unfit[1]))
    # The name that was found, since the model's data lies beside that; the file that was looked at, if it is a link.
    content = FileContent(entry.real)
    if not content:
        return Contents(problem=error(place, "", "E209", cause="is empty: the copy or the export was cut short",
                                      fix="write it again"))
    if content.startswith(LFS_POINTER):
        return Contents(problem=error(place, "", "E203", cause="is a Git LFS pointer, not the model", fix=_LFS_FIX))
    facts = onnx_facts(content)
    if facts is None:
        return Contents(problem=error(
            place, "", "E209", cause="is not an ONNX model, or only a part of one",
            fix="wait for its copy to end; if that was cut short, copy or export the model again"))
    try:
        external = external_files(entry.path, content, root)
    except ModelLoadError as refused:
        return Contents(entry.path, facts, locations(content), mlflow=mlflow,
                        problem=_external_problem(entry.path, refused))
    for location in external:
        with open(entry.path.parent / location, "rb") as data:
            if data.read(len(LFS_POINTER)) == LFS_POINTER:
                return Contents(entry.path, facts, tuple(external), mlflow=mlflow, problem=error(
                    place, location, "E203", cause="is a Git LFS pointer, not the model's data", fix=_LFS_FIX))
    return Contents(entry.path, facts, tuple(external), len(content) + sum(external.values()), mlflow)


def _too_large(size_bytes: int) -> tuple[str, str] | None:
    """Why a file is not even read, and what to do; None where it can be."""
    if size_bytes > FILE_BYTES_MOST:
        return f"has {size_bytes} bytes, and an ONNX file has at most {FILE_BYTES_MOST}", "export its weights beside it"
    if size_bytes > LARGE_BYTES and size_bytes > memory_limit_bytes() - used_bytes():
        return f"has {size_bytes} bytes, more than there is memory left", "raise the container's memory limit"
    return None


def _external_problem(file: Path, refused: ModelLoadError) -> Problem:
    cause, _, fix = refused.message.partition("; ")
    return error(str(file), "external data", "E210", cause=cause.removeprefix("external data "), fix=fix)


def model_file(listing: Listing, directory: Path,
               named: tuple[str, str, str] | None = None) -> tuple[Entry | None, Problem | None]:
    """The model's file in a version directory: the one that is named, by which field and where, else model.onnx, else
    the only .onnx."""
    entries = listing.entries(directory)
    if named is not None:
        return _named_file(listing, directory, *named)
    files = [entry for entry in entries if entry.name.lower().endswith(".onnx")]
    chosen = [entry for entry in files if entry.name == MODEL_FILE] or files
    if len(chosen) > 1:
        return None, error(str(directory), MODEL_FILE, "E204", expected=MODEL_FILE,
                           got=f"others, {listed(chosen)}", fix=f"rename one to {MODEL_FILE}")
    if chosen and chosen[0].is_dir:
        return _inside_directory(listing, chosen[0])
    return (chosen[0] if chosen else None), None


def _inside_directory(listing: Listing, outer: Entry) -> tuple[Entry | None, Problem | None]:
    """The model in a directory that is called like a file, with its data beside it."""
    files = [entry for entry in listing.entries(outer.real) if entry.is_model_file]
    chosen = [entry for entry in files if entry.name in (MODEL_FILE, outer.name)] or files
    if len(chosen) != 1:
        return None, error(str(outer.path), MODEL_FILE, "E204", expected=f"{MODEL_FILE} in it",
                           got=listed(chosen) if chosen else "none", fix=f"put the model at {outer.path / MODEL_FILE}")
    return chosen[0], None


def _named_file(listing: Listing, directory: Path, filename: str, field: str,
                where: str) -> tuple[Entry | None, Problem | None]:
    parts = Path(filename).parts
    if not parts or Path(filename).is_absolute() or ".." in parts:
        return None, error(where, field, "E208", expected="a file in the version's directory",
                           got=repr(filename), fix="name the file alone")
    at, found = directory, None
    for part in parts:
        found = next((entry for entry in listing.entries(at) if entry.name == part), None)
        if found is None:
            held = ", ".join(entry.name for entry in listing.entries(at)[:5]) or "nothing"
            return None, error(where, field, "E201", expected=f"{filename} in {directory}", got=held,
                               fix="put the file there, or correct its name")
        at = found.real
    if found is not None and found.is_dir:
        return _inside_directory(listing, found)
    return found, None


def _no_file(listing: Listing, directory: Path) -> Problem:
    deep = next((file for entry in listing.entries(directory) if entry.is_dir
                 for file in listing.entries(entry.real) if file.is_model_file), None)
    lies = f"{deep.path} lies one level deeper" if deep else ""
    return error(str(directory), MODEL_FILE, "E201", cause=lies, expected=f"{MODEL_FILE} in it", got="none",
                 fix="move it up" if deep else "put the model there")


def _mlflow(entries: Sequence[Entry]) -> tuple[MlflowModel | None, Problem | None]:
    for entry in entries:
        if entry.name == MLMODEL and entry.is_file:
            return read_mlmodel(entry.real)
    return None, None


def locations(content: bytes | FileContent) -> tuple[str, ...]:
    """Where a model says that its data lies, whether it may or not."""
    return tuple(dict.fromkeys(value for entries in external_entries(content) or () for key, value in entries
                               if key == "location"))


def data_beside(file: Path, external: Sequence[str]) -> dict[str, os.stat_result]:
    """What is there of the data of a model that does not have its directory to itself."""
    found = {}
    for location in external:
        with contextlib.suppress(OSError, ValueError):
            found[location] = os.stat(file.parent / location)
    return found
