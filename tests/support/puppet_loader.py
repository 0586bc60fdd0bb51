"""A loader whose loads and closes end when the test says so, and snapshots to feed a manager with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infer._core.router import ModelRoute
from infer.errors import InferError, ModelLoadError
from infer.models.loading import LoadSpec
from infer.models.manager import Manager
from infer.models.settings import ModelSettings
from infer.models.snapshot import ModelSeen, Snapshot, VersionFiles


@dataclass(eq=False)
class Entry:
    """What stands for a VersionEntry."""

    spec: LoadSpec
    settings: ModelSettings
    closed: bool = False
    drained: bool = False

    def __repr__(self) -> str:
        return f"{self.spec.name}/{self.spec.version}{self.spec.files.fingerprint}#{self.spec.serial}"


class PuppetLoader:
    """Loads wait in `loads`, closes in `closes`, until they are ended here."""

    def __init__(self) -> None:
        self.loads: list[tuple[LoadSpec, Callable[[LoadSpec, Any], None]]] = []
        self.closes: list[tuple[Entry, Callable[[], None]]] = []
        self.entries: list[Entry] = []
        self.on_load: Callable[[LoadSpec], None] = lambda spec: None

    def load(self, spec: LoadSpec, done: Callable[[LoadSpec, Any], None]) -> None:
        assert all(other.serial != spec.serial for other, _ in self.loads)
        self.loads.append((spec, done))
        self.on_load(spec)

    def close(self, entry: Entry, done: Callable[[], None]) -> None:
        assert not entry.closed, f"{entry} is closed twice"
        entry.closed = True
        self.closes.append((entry, done))

    def apply(self, entry: Entry, settings: ModelSettings) -> None:
        assert not entry.closed
        entry.settings = settings

    def end_load(self, index: int = 0, error: InferError | None = None) -> LoadSpec:
        spec, done = self.loads.pop(index)
        if error is not None:
            done(spec, error)
            return spec
        entry = Entry(spec, spec.settings)
        self.entries.append(entry)
        done(spec, entry)
        return spec

    def end_close(self, index: int = 0) -> Entry:
        entry, done = self.closes.pop(index)
        entry.drained = True
        done()
        return entry

    def holding(self, name: str) -> int:
        """Versions of a model that take memory."""
        return (sum(spec.name == name for spec, _ in self.loads)
                + sum(entry.spec.name == name and not entry.drained for entry in self.entries))


def broken(spec: LoadSpec) -> ModelLoadError:
    return ModelLoadError(f"model {spec.name!r} version {spec.version} is broken")


def files(version: int, fingerprint: str = "a", whole: bool = True) -> VersionFiles:
    directory = Path("models") / str(version)
    return VersionFiles(version, directory / "model.onnx", directory, fingerprint, whole)


def seen(name: str, versions: Mapping[int, str] | None = None, refusal: str = "", **settings: Any) -> ModelSeen:
    """`versions`: fingerprints by version; one that begins with ~ is not whole."""
    return ModelSeen(ModelSettings(name, **settings), {
        version: files(version, mark.lstrip("~"), not mark.startswith("~"))
        for version, mark in (versions or {}).items()}, refusal)


def snapshot(*models: ModelSeen, complete: bool = True) -> Snapshot:
    return Snapshot({model.settings.name: model for model in models}, (), complete)


@dataclass
class World:
    """A manager with a puppet loader, what it has published and answered. `good` says which loads succeed in `run`."""

    mode: Any = "watch"
    arguments: dict[str, Any] = field(default_factory=dict)
    good: Callable[[LoadSpec], bool] = lambda spec: True

    def __post_init__(self) -> None:
        self.loader = PuppetLoader()
        self.tables: list[dict[str, ModelRoute]] = []
        self.events: list[Any] = []
        self.records: list[dict[str, Any]] = []
        self.answers: list[InferError | None] = []
        self.due_ns: int | None = None
        self.now_ns = 0
        self.manager = Manager(
            self.loader, self._publish, mode=self.mode, tell=self.events.append,
            **{"keep": self.records.append, **self.arguments})

    def _publish(self, changes: Mapping[str, ModelRoute | None]) -> None:
        self.tables.append({name: route for name, route in {**self.table, **changes}.items() if route is not None})

    @property
    def table(self) -> dict[str, ModelRoute]:
        return self.tables[-1] if self.tables else {}

    def answer(self, result: InferError | None) -> None:
        self.answers.append(result)

    def step(self) -> None:
        self.due_ns = self.manager.step(self.now_ns)

    def observe(self, *models: ModelSeen, complete: bool = True) -> None:
        self.manager.observe(snapshot(*models, complete=complete))
        self.step()

    def run(self) -> None:
        """Ends every load and close, and those that follow, but for retries that are not due."""
        self.step()
        while self.loader.loads or self.loader.closes:
            while self.loader.loads:
                spec = self.loader.loads[0][0]
                self.loader.end_load(error=None if self.good(spec) else broken(spec))
            while self.loader.closes:
                self.loader.end_close()
            self.step()

    def served(self, name: str = "m") -> dict[int, str]:
        """Fingerprints by version of what calls reach."""
        route = self.table.get(name)
        return {} if route is None else {entry.spec.version: entry.spec.files.fingerprint for entry in route.versions}

    def labels(self, name: str = "m") -> dict[str, int]:
        return {label: entry.spec.version for label, entry in self.table[name].labels.items()}

    def told(self, kind: str) -> list[tuple[int | None, str]]:
        return [(event.version, event.outcome) for event in self.events if event.kind == kind]
