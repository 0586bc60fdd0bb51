"""Which model files there are under the paths to serve. Reads directories, never a model; any thread.

Accepted are a bare `x.onnx`, a directory with one, a model directory `<version>/model.onnx`, a single version
directory, and a repository `<name>/<version>/model.onnx` beside whatever else lies there. Of each model the highest
version counts.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infer.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
VERSION = re.compile(r"[1-9][0-9]{0,17}")
# What looks like a version to a person: v1, 01, 1.0.
_NEARLY_VERSION = re.compile(r"v?[0-9][0-9.]*")
_NAME_RULE = "1 to 128 of A-Z a-z 0-9 _ . -"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
BARE_VERSION = "1"


@dataclass(frozen=True)
class ModelSource:
    """One model version to load."""

    name: str
    version: str
    path: Path
    warnings: tuple[str, ...] = ()      # what was left aside beside it, and why


@dataclass
class _Findings:
    """What a scan has met so far."""

    sources: list[ModelSource] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def scan(paths: Sequence[Path], name: str | None = None) -> list[ModelSource]:
    """The models under `paths`, by name. `name` renames the only one.

    Raises ConfigError with every problem, each with its path, what was expected, what was found and what to do.
    """
    found = _Findings()
    if not paths:
        found.problems.append("no path to serve was given; name a model.onnx, its directory or a repository")
    for path in paths:
        try:
            _scan_path(path, found, name)
        except OSError as error:
            found.problems.append(f"{error.filename or path}: {_unreadable(error)}")
    if name is not None:
        if len(found.sources) == 1:
            only = found.sources[0]
            found.sources = [ModelSource(name, only.version, only.path, only.warnings)]
        elif len(found.sources) > 1:
            named = ", ".join(source.name for source in found.sources)
            found.problems.append(f"--name {name} needs exactly one model, found {len(found.sources)}: {named}")
    _check_duplicates(found)
    if found.problems:
        count = "one problem" if len(found.problems) == 1 else f"{len(found.problems)} problems"
        raise ConfigError("\n  ".join([f"{count} with the models to serve:", *found.problems]))
    return sorted(found.sources, key=lambda source: source.name)


def _check_duplicates(found: _Findings) -> None:
    places: dict[str, list[ModelSource]] = {}
    for source in found.sources:
        places.setdefault(source.name, []).append(source)
    for name, sources in places.items():
        if len(sources) > 1:
            listed = " and ".join(str(source.path) for source in sources)
            found.problems.append(f"model {name!r} is found {len(sources)} times, at {listed}; a name is served once: "
                                  "rename one, or serve them from one repository as versions")


def _scan_path(path: Path, found: _Findings, name: str | None) -> None:
    if not path.exists():
        dangling = " (a symbolic link to nothing)" if path.is_symlink() else ""
        found.problems.append(f"{path}: does not exist{dangling}; expected a model.onnx, its directory or a repository")
    elif path.is_dir():
        _scan_directory(path, found, name)
    elif path.suffix.lower() != ".onnx":
        found.problems.append(f"{path}: is not an .onnx file; expected a model.onnx, its directory or a repository: "
                              "export the model to ONNX, or name what holds it")
    else:
        _add(found, path, name or path.stem, BARE_VERSION)


def _scan_directory(path: Path, found: _Findings, name: str | None) -> None:
    entries = _entries(path)
    files = _onnx_files(entries)
    versions, warnings = _versions(entries)
    models = [entry for entry in entries if entry.is_dir() and _versions(_entries(entry))[0]]
    if models and not any(_onnx_files(_entries(version)) for version in versions):
        versions = []           # a directory beside models that only happens to be called like a version
    if files and (versions or models):
        beside = (versions or models)[0].name
        found.problems.append(f"{path}: holds {files[0].name} beside {beside}/; expected either one .onnx or version "
                              "directories: move the file into <name>/<version>/model.onnx, or name it as the path")
    elif len(files) > 1:
        listed = ", ".join(file.name for file in files)
        found.problems.append(f"{path}: expected one .onnx, found {len(files)}: {listed}; name one as the path, or "
                              "move each into <name>/1/model.onnx")
    elif files:
        _add_directory(path, files[0], found, name)
    elif versions:
        _add_model(path, name or _real_name(path), found, versions, warnings)
    elif models:
        _scan_repository(models, entries, found)
    else:
        found.problems.append(_nothing_found(path, entries))


def _add_directory(path: Path, file: Path, found: _Findings, name: str | None) -> None:
    """A directory with one .onnx: a version directory if it is called like one and its file model.onnx."""
    directory = _real_name(path)
    if file.name != "model.onnx":
        _add(found, file, name or file.stem, BARE_VERSION)
    elif VERSION.fullmatch(directory):
        _add(found, file, name or _real_name(path.resolve().parent), directory)
    else:
        _add(found, file, name or directory, BARE_VERSION)


def _scan_repository(models: Sequence[Path], entries: Sequence[Path], found: _Findings) -> None:
    aside = []
    for entry in entries:
        if entry not in models and entry.is_dir():
            files = _onnx_files(_entries(entry))
            near = [child.name for child in _entries(entry) if _looks_like_version(child)]
            if files:
                found.problems.append(f"{entry}: holds {files[0].name} without a version directory; move it to "
                                      f"{entry / '1' / 'model.onnx'}")
            elif near:
                found.problems.append(f"{entry}: {_no_version(near)}")
    for model in models:
        if not NAME.fullmatch(model.name):
            aside.append(f"{model}: left aside, a model's name is {_NAME_RULE}")
            continue
        versions, warnings = _versions(_entries(model))
        _add_model(model, model.name, found, versions, warnings)
    if aside and found.sources:
        last = found.sources[-1]
        found.sources[-1] = ModelSource(last.name, last.version, last.path, (*last.warnings, *aside))
    elif aside:
        found.problems += aside


def _add_model(path: Path, name: str, found: _Findings, versions: Sequence[Path], warnings: list[str]) -> None:
    """The highest version that holds a model file."""
    for version in sorted(versions, key=lambda directory: int(directory.name), reverse=True):
        files = _onnx_files(_entries(version))
        chosen = [file for file in files if file.name == "model.onnx"] or files
        if len(chosen) == 1:
            _add(found, chosen[0], name, version.name, warnings)
            return
        if chosen:
            listed = ", ".join(file.name for file in chosen)
            found.problems.append(f"{version}: expected model.onnx, found {len(chosen)} others: {listed}; rename one "
                                  "to model.onnx")
            return
        warnings = [*warnings, f"{version}: left aside, it holds no model.onnx"]
    deep = [file for version in versions for file in sorted(version.glob("*/*.onnx"))]
    where = f", but {deep[0]} lies one level deeper; move it up" if deep else "; put the model there"
    found.problems.append(f"{versions[0]}: expected model.onnx in it, found none{where}")


def _nothing_found(path: Path, entries: Sequence[Path]) -> str:
    """Why there is no model in a directory, as far as it can be seen."""
    near = [entry.name for entry in entries if _looks_like_version(entry)]
    if near:
        return f"{path}: {_no_version(near)}"
    loose = [entry for entry in entries if entry.is_dir() and _onnx_files(_entries(entry))]
    if loose:
        file = _onnx_files(_entries(loose[0]))[0]
        return (f"{path}: expected <name>/<version>/model.onnx, found {loose[0].name}/{file.name} without a version; "
                f"move it to {loose[0] / '1' / 'model.onnx'}, or serve {loose[0]}")
    for entry in entries:
        if not entry.is_dir():
            continue
        for child in _entries(entry):
            if child.is_dir() and _versions(_entries(child))[0]:
                return f"{path}: the models lie one level deeper; serve {entry}"
            if child.is_dir() and any(_looks_like_version(part) for part in _entries(child)):
                return f"{path}: the models lie one level deeper, in {entry}, and their versions are not whole numbers"
    held = ", ".join(entry.name for entry in entries[:5]) or "nothing"
    return (f"{path}: no .onnx file found, it holds {held}; expected model.onnx, <version>/model.onnx or "
            "<name>/<version>/model.onnx")


def _no_version(near: Sequence[str]) -> str:
    return (f"expected a version directory, found {', '.join(near)}; a version is a whole number from 1 without zeros "
            f"in front: rename {near[0]} to 1")


def _add(found: _Findings, path: Path, name: str, version: str, warnings: Sequence[str] = ()) -> None:
    problem = _file_problem(path)
    if problem:
        found.problems.append(f"{path}: {problem}")
    elif not NAME.fullmatch(name):
        found.problems.append(f"{path}: {name!r} cannot be a model's name, expected {_NAME_RULE}; rename it, or give "
                              "one with --name")
    else:
        found.sources.append(ModelSource(name, version, path, tuple(warnings)))


def _file_problem(path: Path) -> str | None:
    """What is wrong with a model file that its first bytes tell."""
    if not path.exists():
        return "is a symbolic link to nothing"
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_size == 0:
        return "is empty; the copy or the export was cut short, write it again"
    try:
        with path.open("rb") as file:
            head = file.read(len(_LFS_POINTER))
    except OSError as error:
        return _unreadable(error)
    if head == _LFS_POINTER:
        return "is a Git LFS pointer, not the model; run: git lfs pull"
    return None


def _unreadable(error: OSError) -> str:
    advice = "; let the user that serves read it" if isinstance(error, PermissionError) else ""
    return f"cannot be read: {error.strerror}{advice}"


def _entries(path: Path) -> list[Path]:
    """What a directory holds, by name, hidden entries left out."""
    with os.scandir(path) as entries:
        return sorted((path / entry.name for entry in entries if not entry.name.startswith(".")), key=lambda p: p.name)


def _onnx_files(entries: Sequence[Path]) -> list[Path]:
    return [entry for entry in entries if entry.suffix.lower() == ".onnx" and not entry.is_dir()]


def _looks_like_version(entry: Path) -> bool:
    return (entry.is_dir() and _NEARLY_VERSION.fullmatch(entry.name) is not None
            and VERSION.fullmatch(entry.name) is None and bool(_onnx_files(_entries(entry))))


def _versions(entries: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Version directories among the entries, and a warning for each that only looks like one."""
    versions = [entry for entry in entries if VERSION.fullmatch(entry.name) and entry.is_dir()]
    warnings = [f"{entry}: left aside, a version is a whole number from 1 without zeros in front"
                for entry in entries if _looks_like_version(entry)]
    return versions, warnings


def _real_name(path: Path) -> str:
    """A directory's own name, also where it was written as `.` or `..`."""
    return path.resolve().name
