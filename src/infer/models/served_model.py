"""One model under the manager: what is wanted of it, its state table, its labels. Loop thread, no I/O.

`advance` brings the table to what is wanted and names the next step; the manager carries the steps out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from infer._core.router import ModelRoute
from infer.models.aspiration import aspired_keys
from infer.models.harness import Incarnation, Key, State, Table
from infer.models.labels import STABLE, Labels, moved
from infer.models.loading import Event, Kind
from infer.models.retention import removable
from infer.models.routes import ModelView, route_of
from infer.models.settings import LIVE_FIELDS, ModelSettings, changed_fields, reload_needed
from infer.models.snapshot import ModelSeen, VersionFiles
from infer.models.transition import Step, VersionStatus, next_step
from infer.models.version_policy import aspired

# Those edits that the manager itself puts into force; a loaded version does not know of them.
_OF_MANAGER = frozenset({"policy", "labels", "availability_preserving", "keep_versions", "keep_age_s"})
_OF_ENTRY = LIVE_FIELDS - _OF_MANAGER


class ServedModel:
    """`seen` is what is wanted, None while the model shall not be served."""

    def __init__(self, name: str, held: Mapping[str, int], tell: Callable[[Event], None]) -> None:
        self.name = name
        self.table = Table()
        self.labels = Labels(dict(held), {})
        self.seen: ModelSeen | None = None
        self.wanted_labels: dict[str, int] = {}
        self.aspired: dict[Key, VersionFiles | None] = {}
        self.leaving: dict[int, str] = {}   # versions whose directories are being deleted, and their fingerprints
        self.together = False               # nothing new is published before all of it is loaded
        self.refusal = ""
        self.failure = ""
        self.who = "repository"
        self._tell = tell
        self._settings: ModelSettings | None = None     # those wanted last
        self._generation = 0
        self._generations = 0

    def want(self, seen: ModelSeen | None, labels: dict[str, int], refusal: str, who: str | None = None) -> None:
        """Takes in what shall be; `who` asked for it, where somebody did."""
        if seen is not self.seen or labels != self.wanted_labels:
            self.who = who or "repository"
        old, self.seen, self.wanted_labels = self.seen, seen, labels
        if refusal and refusal != self.refusal:
            self.tell("model", None, "refused", refusal)
        self.refusal = refusal
        if seen is None or seen.settings == self._settings:
            return
        if self._settings is not None:
            anew = reload_needed(self._settings, seen.settings)
            fields = changed_fields(self._settings, seen.settings)
            if fields and old is not None:
                self.tell("settings", None, "reload" if anew else "applied", ", ".join(sorted(fields)))
            if anew:
                self._generation = self._generation_of(seen.settings)
        self._settings = seen.settings

    def _generation_of(self, settings: ModelSettings) -> int:
        """That of rows which were loaded under such settings, so that an edit taken back finds them; else a new one."""
        for row in self.table.current.values():
            if not reload_needed(row.settings, settings):
                return row.key.generation
        self._generations += 1
        return self._generations

    def advance(self, now_ns: int, may_load: bool) -> Step | None:
        """The next step. Labels move and rows come by the way."""
        ready = self.table.ready()
        if self.seen is None:
            self.aspired = {}
            self.labels = Labels(self.labels.held, {})
        else:
            self._move_labels(ready)
            self.aspired = aspired_keys(
                self.seen, generation=self._generation, ready={version: row.key for version, row in ready.items()},
                wanted=self.wanted_labels, held=self.labels.held, leaving=self.leaving)
            for key, files in self.aspired.items():
                if key not in self.table.current and files is not None:
                    self.table.add(Incarnation(key, files, self.seen.settings))
        rows = [VersionStatus(row.key, row.state, row.key in self.aspired, row.retry_at_ns)
                for row in self.table.current.values()]
        rows += [VersionStatus(row.key, row.state, False) for row in self.table.draining]
        return next_step(rows, availability=self.seen is None or self.seen.settings.availability_preserving,
                         may_load=may_load, may_publish=not self.together, now_ns=now_ns,
                         first=self.wanted_labels.get(STABLE))

    def _move_labels(self, ready: Mapping[int, Incarnation]) -> None:
        before, self.labels = self.labels, moved(self.wanted_labels, ready, self.labels.held)
        for label, version in self.labels.held.items():
            if before.held.get(label) != version:
                self.tell("label", version, "moved", label)
        for label, version in self.labels.deferred.items():
            if before.deferred.get(label) != version:
                self.tell("label", version, "deferred", label)
        for label in before.held.keys() - self.labels.held.keys():
            self.tell("label", before.held[label], "removed", label)

    def edits(self) -> list[Incarnation]:
        """Loaded rows that an edit of the settings has to be applied to; every row then has the wanted settings."""
        edited: list[Incarnation] = []
        if self.seen is None:
            return edited
        for row in self.table.current.values():
            if row.settings is self.seen.settings or row.key.generation != self._generation:
                continue
            if row.state is State.LOADING:
                continue            # told once it is loaded
            if row.entry is not None and changed_fields(row.settings, self.seen.settings) & _OF_ENTRY:
                edited.append(row)
            row.settings = self.seen.settings
        return edited

    def aspired_rows(self) -> list[Incarnation]:
        return [row for key, row in self.table.current.items() if key in self.aspired]

    def untried(self) -> int:
        return sum(row.key in self.aspired and not row.reason and row.state is not State.READY
                   for row in self.table.current.values())

    def take_removable(self, seen: ModelSeen, ages_s: Mapping[int, float]) -> tuple[int, ...]:
        """Versions whose directories are to be deleted; they are not loaded any more. `seen`: in the repository."""
        whole = {version for version, files in seen.versions.items() if files.whole}
        own = {version: age for version, age in ages_s.items() if version in whole and seen.versions[version].alone}
        protected = {*aspired(seen.settings.policy, whole), *(row.version for row in self.table),
                     *(key.version for key in self.aspired), *self.labels.held.values(), *self.wanted_labels.values()}
        chosen = removable(seen.settings, own, protected)
        self.leaving.update((version, seen.versions[version].fingerprint) for version in chosen)
        return chosen

    def left(self, seen: ModelSeen | None) -> None:
        """Forgets versions that are deleted, or written anew since."""
        versions = seen.versions if seen is not None else {}
        self.leaving = {version: fingerprint for version, fingerprint in self.leaving.items() if version in versions
                        and (not versions[version].whole or versions[version].fingerprint == fingerprint)}

    def route(self) -> ModelRoute:
        return route_of(ModelView(self.name, self.table, self.labels, self.seen, self.refusal, self.failure))

    def tell(self, kind: Kind, version: int | None, outcome: str, detail: str = "") -> None:
        self._tell(Event(kind, self.name, version, outcome, self.who, detail))
