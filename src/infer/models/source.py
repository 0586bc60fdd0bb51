"""What the repositories hold, one look at a time: models, their settings, their versions, and which of those are whole.

`observe` runs on one thread of its own, never on the loop's; what it returns is immutable and is the very same object
as long as nothing has changed. When a version is whole is in `settle`; beyond that a whole version's model file has to
be well-formed to its end with all its data there, so that a copy that stopped for a while, or for good, is not taken
for one. The first of several roots that hold a model of one name has it. What the operator wrote for models outside of
their directories stands over what is written in them; a directory that it names is a root of that one model.

Of a version that was whole and is being written anew the last whole state stays in sight, not to be loaded again,
until the new one is whole; it goes when its directory goes. Models of a root that cannot be read, or is not there for
now, stay in sight in the same way: that is a fault of the mount, not a wish to be rid of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from infer.models.config_pbtxt import read_config
from infer.models.contents import MODEL_FILE, Contents, data_beside, read_contents, read_file
from infer.models.listing import Entry, Listing, TooMany, stamp_of, unreadable
from infer.models.problems import Problem, error, warning
from infer.models.scan import CONFIG_FILE, Candidate, Scan, scan_root
from infer.models.settings import ModelSettings, overlaid
from infer.models.settle import SETTLE_NS, Look, Stamp, Watch, fingerprint, follow, whole_at_start
from infer.models.snapshot import ModelSeen, Snapshot, VersionFiles

# A version that cannot be loaded as it is, of a model that has no other, is handed on after so long without a change:
# the load then fails with the reason. Until then it may be a copy that pauses.
PATIENCE_NS = 60_000_000_000

# Reads a config.pbtxt for the model in a directory of that name.
Parse = Callable[[Path, str], tuple[ModelSettings | None, list[Problem]]]


@dataclass
class _Version:
    """What is remembered of a version between looks."""

    watch: Watch
    name: str                                   # of its fingerprint
    contents: Contents | None = None            # of these very files
    filename: str | None = None                 # that the contents were read for
    last_whole: VersionFiles | None = None
    started: bool = False                       # was there at the first look and counted as whole


@dataclass
class _Config:
    stamp: Stamp
    settings: ModelSettings | None
    problems: list[Problem]


Key = tuple[str, int]


class _Root(NamedTuple):
    path: Path
    name: str | None            # of its only model; None: they have their own
    place: str                  # where that name was written, and as what
    field: str


class _Pass:
    """What one look gathers."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self.models: dict[str, ModelSeen] = {}
        self.problems: list[Problem] = []
        self.root_of: dict[str, Path] = {}
        self.base_of: dict[str, Path] = {}          # resolved
        self.versions: dict[Key, _Version] = {}
        self.staged: dict[tuple[int, int], Watch] = {}
        self.configs: dict[Path, _Config] = {}


class Source:
    """The roots, and what earlier looks have seen of them."""

    def __init__(self, roots: Sequence[Path], name: str | None = None, parse: Parse = read_config, *,
                 written: Mapping[str, ModelSettings] | None = None, settle_ns: int = SETTLE_NS,
                 wall_ns: Callable[[], int] = time.time_ns) -> None:
        self.roots = tuple(roots)
        self._name = name
        self._written = dict(written or {})
        self._parse = parse
        self._settle_ns = settle_ns
        self._wall_ns = wall_ns
        self._listings: dict[Path, Listing] = {}
        self._versions: dict[Key, _Version] = {}
        self._staged: dict[tuple[int, int], Watch] = {}
        self._configs: dict[Path, _Config] = {}
        self._root_of: dict[str, Path] = {}
        self._bare: dict[Path, tuple[Stamp, Contents]] = {}
        self._last: Snapshot | None = None

    def set_written(self, written: Mapping[str, ModelSettings]) -> None:
        """What the operator wrote by now, by model; counts from the next look on. Any thread."""
        self._written = dict(written)

    def observe(self, now_ns: int) -> Snapshot:
        """One look at everything; `now_ns` is monotonic. Never raises for what is there."""
        look = _Pass(now_ns)
        written = self._written
        roots = [_Root(settings.base, name, settings.place_of("base"), "base_path")
                 for name, settings in written.items() if settings.base is not None]
        roots += [_Root(root, self._name, str(root), "--name") for root in self.roots]
        self._listings = {root.path: self._listings.get(root.path) or Listing(root.path) for root in roots}
        for listing in self._listings.values():
            listing.fresh()
        for place in roots:
            root, listing = place.path, self._listings[place.path]
            scan = scan_root(listing, place.name)
            look.problems += scan.problems
            for model in self._unique(scan, place, look):
                settings, refusal = self._settings(model, listing, look)
                if model.name in written:
                    settings = replace(overlaid(settings, written[model.name]), base=model.base)
                versions = self._observe_model(model, settings, listing, look)
                look.models[model.name] = ModelSeen(settings, versions, refusal)
                look.root_of[model.name] = root
                self._observe_staged(model, listing, look)
            self._keep(root, scan, look)
        look.problems += [warning(settings.origin, "", "W103", cause=f"there is no model {name!r}",
                                  fix="copy it into the repository, or remove what is written for it")
                          for name, settings in written.items() if settings.base is None and name not in look.models]
        self._versions, self._staged, self._root_of = look.versions, look.staged, look.root_of
        self._configs = look.configs
        # What has not changed is the same object, so that nobody else has to compare it.
        before = self._last.models if self._last is not None else {}
        models = {name: before[name] if before.get(name) == model else model for name, model in look.models.items()}
        snapshot = Snapshot(models, tuple(look.problems))
        if self._last is None or snapshot != self._last:
            self._last = snapshot
        return self._last

    def _keep(self, root: Path, scan: Scan, look: _Pass) -> None:
        """Models of a root, or in a directory, that cannot be read just now stay as they were seen last."""
        if self._last is None or not scan.unreadable:
            return
        for name, seen in self._last.models.items():
            lost = root in scan.unreadable or seen.settings.base in scan.unreadable
            if lost and self._root_of.get(name) == root and name not in look.models:
                kept = {number: replace(files, whole=False) for number, files in seen.versions.items()}
                look.models[name] = replace(seen, versions=kept)
                look.root_of[name] = root
                look.versions |= {key: known for key, known in self._versions.items() if key[0] == name}

    def _unique(self, scan: Scan, root: _Root, look: _Pass) -> list[Candidate]:
        if root.name is not None and len(scan.models) > 1:
            named = ", ".join(sorted(place_of(model).name for model in scan.models))
            look.problems.append(error(root.place, root.field, "E206", expected="exactly one model",
                                       got=f"{len(scan.models)}: {named}", fix=f"serve one, or leave {root.field} out"))
            return []
        alone: dict[str, Candidate] = {}
        for model in scan.models:
            if model.name in look.base_of and model.base is not None \
                    and model.base.resolve() == look.base_of[model.name]:
                continue            # named by the operator, and in one of the roots too
            if model.name in look.models or model.name in alone:
                look.problems.append(error(
                    str(place_of(model)), "name", "E207", cause=f"model {model.name!r} is found elsewhere already",
                    expected="a name that is found once",
                    fix="rename one, or serve them from one repository as versions"))
            else:
                alone[model.name] = model
                if model.base is not None and root.name is not None:
                    look.base_of[model.name] = model.base.resolve()
        return list(alone.values())

    def _settings(self, model: Candidate, listing: Listing, look: _Pass) -> tuple[ModelSettings, str]:
        """What its config.pbtxt says, parsed again only when that has changed, and why it cannot be served so: then
        the settings are those that were read of it before."""
        bare = ModelSettings(model.name, base=model.base)
        entry = None
        if model.base is not None:
            entry = next((each for each in listing.entries(model.base) if each.name == CONFIG_FILE), None)
        if entry is None:
            return bare, ""
        known = self._configs.get(entry.path)
        if known is None or known.stamp != entry.stamp:
            if entry.is_file:
                settings, found = self._parse(entry.real, model.name)
            else:
                settings, found = None, [error(str(entry.path), "", "E100", cause=entry.fault or "is not a file",
                                               fix="put the file there, or remove it")]
            settings = replace(settings, base=model.base) if settings else known.settings if known else None
            known = _Config(entry.stamp, settings, found)
        look.configs[entry.path] = known
        look.problems += known.problems
        return known.settings or bare, next((str(each) for each in known.problems if each.is_error), "")

    def _observe_model(self, model: Candidate, settings: ModelSettings, listing: Listing,
                       look: _Pass) -> dict[int, VersionFiles]:
        seen: dict[int, _Version] = {}
        lost: dict[int, VersionFiles] = {}
        for number, directory in model.versions.items():
            key = model.name, number
            try:
                seen[number] = self._follow(key, self._look(model, directory, listing, look.now_ns))
            except FileNotFoundError:
                continue
            except (OSError, TooMany) as refused:
                problem = unreadable_version(directory, refused)
                look.problems.append(problem)
                known = self._versions.get(key)
                if known is not None and known.last_whole is not None:
                    look.versions[key] = known
                    lost[number] = replace(known.last_whole, whole=False, fault=str(problem))
        if self._last is None:
            self._start(seen)
        for number, version in seen.items():
            if version.watch.whole and (version.contents is None or version.filename != settings.filename):
                version.contents = self._read(model, model.versions[number], listing, settings)
                version.filename = settings.filename
            if version.watch.whole and version.contents is not None and version.contents.problem is not None:
                look.problems.append(version.contents.problem)
        sound = any(version.watch.whole and version.contents is not None and version.contents.problem is None
                    for version in seen.values())
        root = None if model.file is not None and listing.root == model.file.path else listing.root
        alone = model.file is None or model.file.is_dir
        shown = lost
        for number, version in seen.items():
            directory = model.versions[number]
            files = VersionFiles(number, directory / MODEL_FILE, directory, version.name, False, root, alone)
            shown[number] = self._shown(files, version, sound, look.now_ns)
            look.versions[model.name, number] = version
        return shown

    def _start(self, seen: Mapping[int, _Version]) -> None:
        now_ns = self._wall_ns()
        # One without files may be one to which nothing was copied yet, and says nothing of the others.
        changed = {number: max((stamp.newest_ns for stamp in version.watch.look.files.values()), default=now_ns)
                   for number, version in seen.items()}
        for number in whole_at_start(changed, now_ns, self._settle_ns):
            version = seen[number]
            version.watch = replace(version.watch, whole=True)
            version.started = True

    def _look(self, model: Candidate, directory: Path, listing: Listing, now_ns: int) -> Look:
        file = model.file
        if file is None or file.is_dir:
            return listing.look(directory if file is None else file.real, now_ns)
        files = {file.name: file.stamp}
        for location, status in data_beside(file.path, self._bare_contents(file, listing).external).items():
            files[location] = stamp_of(status)
        return Look(now_ns, files)

    def _bare_contents(self, file: Entry, listing: Listing) -> Contents:
        """Of a file that is alone in counting among what lies beside it: it says itself what belongs to it."""
        known = self._bare.get(file.path)
        if known is None or known[0] != file.stamp:
            known = file.stamp, read_file(file, None if listing.root == file.path else listing.root)
            self._bare[file.path] = known
        return known[1]

    def _follow(self, key: Key, look: Look) -> _Version:
        before = self._versions.get(key)
        watch, renamed = before.watch if before else None, False
        if watch is None and look.identity in self._staged:
            watch, renamed = self._staged[look.identity], True
        now = follow(watch, look, self._settle_ns, renamed)
        name = fingerprint(look.files)
        if before is not None and before.name == name:
            return replace(before, watch=now)
        return _Version(now, name, last_whole=before.last_whole if before else None)

    def _read(self, model: Candidate, directory: Path, listing: Listing, settings: ModelSettings) -> Contents:
        if model.file is None:
            return read_contents(listing, directory, settings.filename, settings.place_of("filename"))
        if model.file.is_dir:
            return read_contents(listing, directory, model.file.name)
        return self._bare_contents(model.file, listing)

    def _shown(self, files: VersionFiles, version: _Version, sound: bool, now_ns: int) -> VersionFiles:
        """A version as the snapshot has it: `files`, or what was whole before."""
        contents = version.contents
        if contents is None or not version.watch.whole:
            return replace(version.last_whole, whole=False) if version.last_whole else files
        files = replace(files, path=contents.file or files.path)
        if contents.problem is None:
            version.last_whole = replace(files, whole=True)
            return version.last_whole
        fault = str(contents.problem)
        if version.last_whole is not None:
            return replace(version.last_whole, whole=False, fault=fault)
        rested = version.started or now_ns - version.watch.since_ns >= PATIENCE_NS
        return replace(files, whole=rested and not sound, fault=fault)

    def _observe_staged(self, model: Candidate, listing: Listing, look: _Pass) -> None:
        """Directories beside the versions, from where one may be renamed to a version."""
        for directory in model.staged:
            try:
                seen = listing.look(directory, look.now_ns)
            except (TooMany, OSError):
                continue        # no version; if it is renamed to one, that is the time to say what is wrong with it
            look.staged[seen.identity] = follow(self._staged.get(seen.identity), seen, self._settle_ns)


def unreadable_version(directory: Path, refused: OSError | TooMany) -> Problem:
    if isinstance(refused, TooMany):
        return error(str(directory), "", "E212", cause=str(refused), fix="keep to the model's own files")
    return error(str(directory), "", "E200", cause=unreadable(refused), fix="see that it can be read")


def place_of(model: Candidate) -> Path:
    return model.file.path if model.file is not None else model.base or next(iter(model.versions.values()))

