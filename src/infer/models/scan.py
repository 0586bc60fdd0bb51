"""Which models there are under a root, by how its directories are laid out. Reads names, never a file; one thread.

Accepted are a bare `x.onnx`, a directory with one, a model directory `<version>/model.onnx`, a single version
directory, and a repository `<name>/<version>/model.onnx` beside whatever else lies there. In place of model.onnx there
may be a directory of that name with the file and its data in it, as Triton has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infer.config import MODEL_NAME, MODEL_VERSION
from infer.models.listing import Entry, Listing, listed, unreadable
from infer.models.problems import Problem, error, warning

CONFIG_FILE = "config.pbtxt"
BARE_VERSION = 1
NAME_RULE = "1 to 128 of A-Z a-z 0-9 _ . -"
VERSION_RULE = "a version is a whole number from 1 without zeros in front"
LAYOUTS = "a model.onnx, its directory or a repository"
# What looks like a version to a person: v1, 01, 1.0.
_NEARLY_VERSION = re.compile(r"v?[0-9][0-9.]*")
# Names shown of a directory that holds something else.
_SHOWN = 5


@dataclass(frozen=True)
class Candidate:
    """A model by its place. Its versions' directories have no link below the root; a bare file has one version."""

    name: str
    base: Path | None                                       # where config.pbtxt would be
    versions: Mapping[int, Path] = field(default_factory=dict)
    file: Entry | None = None                               # the only file that counts in its directory
    staged: Sequence[Path] = ()                             # other directories beside the versions


@dataclass
class Scan:
    """What a look at one root has found."""

    models: list[Candidate] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unreadable: set[Path] = field(default_factory=set)      # directories that are there, or were, and say nothing


def scan_root(listing: Listing, name: str | None = None) -> Scan:
    """The models under the listing's root. `name` renames the only one. Never raises for what is there."""
    found = Scan()
    root = listing.root
    try:
        if not root.exists():
            found.unreadable.add(root)
            dangling = " (a symbolic link to nothing)" if root.is_symlink() else ""
            found.problems.append(error(str(root), "", "E200", cause=f"does not exist{dangling}", expected=LAYOUTS,
                                        fix="correct the path; if it is mounted, it is looked for again"))
        elif root.is_dir():
            _Directory(listing, root, found, name).scan()
        elif root.suffix.lower() != ".onnx":
            found.problems.append(error(str(root), "", "E202", cause="is not an .onnx file", expected=LAYOUTS,
                                        fix="export the model to ONNX, or name what holds it"))
        else:
            entry = Entry(root.name, root, root, root.stat())
            _add(found, Candidate(name or root.stem, None, {BARE_VERSION: root.parent}, entry), root)
    except OSError as problem:
        found.unreadable.add(root)
        found.problems.append(error(str(problem.filename or root), "", "E200", cause=unreadable(problem),
                                    fix="see that it can be read"))
    return found


def _add(found: Scan, model: Candidate, place: Path) -> None:
    if MODEL_NAME.fullmatch(model.name):
        found.models.append(model)
    else:
        found.problems.append(error(str(place), "name", "E206", cause=f"{model.name!r} cannot be a model's name",
                                    expected=NAME_RULE, fix="rename it, or give a name with --name"))


class _Directory:
    """A root that is a directory, of whichever layout."""

    def __init__(self, listing: Listing, path: Path, found: Scan, name: str | None) -> None:
        self.listing, self.path, self.found, self.name = listing, path, found, name

    def entries(self, entry: Entry) -> tuple[Entry, ...]:
        """Of a directory below; none where it cannot be read, which is a problem of that one alone."""
        try:
            return self.listing.entries(entry.real)
        except OSError as problem:
            if entry.real not in self.found.unreadable:
                self.found.unreadable.add(entry.real)
                self.found.problems.append(error(str(entry.path), "", "E200", cause=unreadable(problem),
                                                 fix="see that it can be read"))
            return ()

    def scan(self) -> None:
        path, problems = self.path, self.found.problems
        entries = self.listing.entries(path)
        files = self.model_files(entries)
        versions = version_entries(entries)
        models = [entry for entry in entries if entry.is_dir and version_entries(self.entries(entry))]
        if models and not any(self.model_files(self.entries(version)) for version in versions):
            versions = []           # a directory beside models that only happens to be called like a version
        if files and (versions or models):
            beside = (versions or models)[0].name
            problems += [error(
                str(file.path), "", "E204", expected="either one .onnx or version directories",
                got=f"{file.name} beside {beside}/",
                fix="move the file into <name>/<version>/model.onnx, or name it as the path") for file in files]
            files = []
        if versions:
            self.add_model(self.name or real_name(path), path, entries)
        elif models:
            self.scan_repository(models, entries)
        elif len(files) > 1:
            problems.append(error(str(path), "", "E204", expected="one .onnx", got=listed(files),
                                  fix="name one as the path, or move each into <name>/1/model.onnx"))
        elif files:
            self.add_directory(files[0])
        else:
            problems.append(self.nothing_found(entries))

    def model_files(self, entries: Iterable[Entry]) -> list[Entry]:
        """Files called *.onnx, and directories of that name with such a file in them."""
        return [entry for entry in entries if entry.is_model_file or self.is_model_directory(entry)]

    def is_model_directory(self, entry: Entry) -> bool:
        return (entry.is_dir and entry.name.lower().endswith(".onnx")
                and any(inner.is_model_file for inner in self.entries(entry)))

    def add_directory(self, file: Entry) -> None:
        """A directory with one .onnx: a version directory if it is called like one and its file model.onnx."""
        directory, path = real_name(self.path), self.path
        if file.name != "model.onnx":
            stem = file.name[:-len(".onnx")]
            model = Candidate(self.name or stem, path, {BARE_VERSION: path}, file)
        elif MODEL_VERSION.fullmatch(directory):
            model = Candidate(self.name or path.resolve().parent.name, None, {int(directory): path})
        else:
            model = Candidate(self.name or directory.removesuffix(".onnx"), path, {BARE_VERSION: path}, file)
        _add(self.found, model, file.path)

    def scan_repository(self, models: Sequence[Entry], entries: Sequence[Entry]) -> None:
        problems = self.found.problems
        names = {model.name for model in models}
        for entry in entries:
            if entry.name in names:
                self.add_named(entry)
            elif entry.is_dir:
                problems += self.without_version(entry)
            elif entry.status is None:
                problems.append(error(str(entry.path), "", "E208" if "leads out" in entry.fault else "E200",
                                      cause=entry.fault, fix="copy what it stands for into the repository"))

    def add_named(self, entry: Entry) -> None:
        if MODEL_NAME.fullmatch(entry.name):
            self.add_model(self.name or entry.name, entry.real, self.entries(entry))
        else:
            self.found.problems.append(error(
                str(entry.path), "name", "E206", cause="left aside", expected=f"a name of {NAME_RULE}",
                got=repr(entry.name), fix="rename the directory"))

    def without_version(self, entry: Entry) -> list[Problem]:
        """What is wrong with a directory beside models that has no version, if it was meant as one."""
        inner = self.entries(entry)
        files = self.model_files(inner)
        near = [each for each in inner if self.looks_like_version(each)]
        config = any(each.name == CONFIG_FILE for each in inner)
        if files:
            return [error(str(entry.path), files[0].name, "E205", cause="there is no version directory around it",
                          fix=f"move it to {entry.path / '1' / 'model.onnx'}")]
        if near:
            return [no_version(entry.path, near)]
        if config:
            return [error(str(entry.path), "", "E205", expected="a version directory with model.onnx",
                          got=f"{CONFIG_FILE} alone", fix=f"put the model at {entry.path / '1' / 'model.onnx'}")]
        return []

    def add_model(self, name: str, base: Path, entries: Sequence[Entry]) -> None:
        versions = {int(entry.name): entry.real for entry in version_entries(entries)}
        staged = [entry.real for entry in self.listing.entries(base, hidden=True)
                  if entry.is_dir and not MODEL_VERSION.fullmatch(entry.name)]
        for entry in entries:
            if self.looks_like_version(entry):
                self.found.problems.append(warning(str(entry.path), "version", "W201", cause="left aside",
                                                   expected=VERSION_RULE, got=entry.name,
                                                   fix=f"rename it to {nearest_version(entry.name)}"))
            elif entry.status is None and MODEL_VERSION.fullmatch(entry.name):
                self.found.problems.append(error(str(entry.path), "version", "E208", cause=entry.fault,
                                                 fix="copy what it stands for into the repository"))
        _add(self.found, Candidate(name, base, versions, staged=staged), base)

    def looks_like_version(self, entry: Entry) -> bool:
        return (entry.is_dir and _NEARLY_VERSION.fullmatch(entry.name) is not None
                and MODEL_VERSION.fullmatch(entry.name) is None and bool(self.model_files(self.entries(entry))))

    def nothing_found(self, entries: Sequence[Entry]) -> Problem:
        """Why there is no model in a directory, as far as it can be seen."""
        path = str(self.path)
        near = [entry for entry in entries if self.looks_like_version(entry)]
        if near:
            return no_version(self.path, near)
        directories = [entry for entry in entries if entry.is_dir]
        for entry in directories:
            files = self.model_files(self.entries(entry))
            if files:
                return error(path, f"{entry.name}/{files[0].name}", "E205", expected="<name>/<version>/model.onnx",
                             got=f"{entry.name}/{files[0].name} without a version",
                             fix=f"move it to {entry.path / '1' / 'model.onnx'}, or serve {entry.path}")
        for entry in directories:
            for child in self.entries(entry):
                if child.is_dir and version_entries(self.entries(child)):
                    return error(path, "", "E201", cause="the models lie one level deeper", got=f"{entry.name}/",
                                 fix=f"serve {entry.path}")
                if child.is_dir and any(self.looks_like_version(part) for part in self.entries(child)):
                    return error(path, "", "E201", cause=f"the models lie one level deeper, in {entry.path}, and "
                                 "their versions are not whole numbers", fix=f"rename them, and serve {entry.path}")
        held = ", ".join(entry.name for entry in entries[:_SHOWN]) or "nothing"
        return error(path, "", "E201", cause="no .onnx file found",
                     expected="model.onnx, <version>/model.onnx or <name>/<version>/model.onnx", got=held,
                     fix="put a model there, or name the directory that holds it")


def version_entries(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.is_dir and MODEL_VERSION.fullmatch(entry.name)]


def no_version(path: Path, near: Sequence[Entry]) -> Problem:
    return error(str(path), "version", "E205", cause=VERSION_RULE, expected="a version directory",
                 got=", ".join(entry.name for entry in near),
                 fix=f"rename {near[0].name} to {nearest_version(near[0].name)}")


def nearest_version(name: str) -> str:
    """The version that was probably meant by v1, 01 or 1.0."""
    whole = re.sub(r"(\.0*)*$", "", name.removeprefix("v")).replace(".", "").lstrip("0")
    return whole if MODEL_VERSION.fullmatch(whole) else "1"


def real_name(path: Path) -> str:
    """A directory's own name, also where it was written as `.` or `..`."""
    return path.name if path.name not in ("", "..") else path.resolve().name
