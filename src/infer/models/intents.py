"""What shall be served, as the mode of control decides it: the only place where the modes differ. Loop thread, no I/O.

`watch` follows what each look at the repositories finds. `none` takes each model as it first was whole, of the models
of the first look that found any. `explicit` takes a model when it is asked for, as it then is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from infer.errors import FailedPrecondition, InferError, NotFound
from infer.models.snapshot import ModelSeen, Snapshot
from infer.models.version_policy import aspired

Mode = Literal["none", "explicit", "watch"]
# The model as it is to be loaded under an override, from the override's own text. Raises InferError.
Overlay = Callable[[ModelSeen, str], ModelSeen]

# What is wanted of a model, and whether later looks leave that as it is.
Standing = tuple[ModelSeen | None, bool]

ALL = "*"


@dataclass
class Record:
    """What was decided at run time and holds over a restart."""

    labels: dict[str, dict[str, int]] = field(default_factory=dict)     # set at run time, by model
    held: dict[str, dict[str, int]] = field(default_factory=dict)       # where every label points, by model
    loaded: dict[str, str] = field(default_factory=dict)                # models that were asked for; their override
    unloaded: set[str] = field(default_factory=set)                     # models that were asked away

    def to_record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"labels": {name: dict(labels) for name, labels in sorted(self.labels.items()) if labels},
                "held": {name: dict(held) for name, held in sorted(self.held.items()) if held},
                "loaded": dict(sorted(self.loaded.items())), "unloaded": sorted(self.unloaded)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Record:
        return cls(
            labels={name: dict(labels) for name, labels in record.get("labels", {}).items()},
            held={name: dict(held) for name, held in record.get("held", {}).items()},
            loaded=dict(record.get("loaded", {})), unloaded=set(record.get("unloaded", ())))


def no_overlay(seen: ModelSeen, override: str) -> ModelSeen:
    raise FailedPrecondition(f"model {seen.settings.name!r}: this server takes no configuration with a load")


class Intents:
    """`wanted` is what shall be served, by name; `seen` what the repositories hold."""

    def __init__(self, mode: Mode, start: Collection[str] = (), record: Record | None = None,
                 overlay: Overlay = no_overlay) -> None:
        self.mode = mode
        self.record = record or Record()
        self.seen: dict[str, ModelSeen] = {}
        self.wanted: dict[str, ModelSeen] = {}
        self.refusals: dict[str, str] = {}
        self._overlay = overlay
        self._start = set(start)            # names, or ALL until the first look that finds a model
        self._first: frozenset[str] | None = None
        self._last: Snapshot | None = None
        self._refused: frozenset[str] = frozenset()     # by what is written; `refusals` has overrides of the start too
        self._pinned: set[str] = set()      # of `wanted`: what later looks do not change

    def observe(self, snapshot: Snapshot) -> list[str]:
        """Takes a look in; the names of the models for which anything is different now."""
        if snapshot is self._last:
            return []
        self._last = snapshot
        found = dict(snapshot.models)
        if not snapshot.complete:
            found = {**self.seen, **found}
        if self._first is None and found:
            self._first = frozenset(found)
        before = {name: (self.wanted.get(name), self.seen.get(name), self.refusals.get(name))
                  for name in {*self.seen, *self.wanted, *found, *self.refusals}}
        # One that is refused is as it was when it was not.
        self.refusals = {name: model.refusal for name, model in found.items() if model.refusal}
        self._refused = frozenset(self.refusals)
        self.seen = {name: self.seen.get(name, model) if model.refusal else model for name, model in found.items()}
        if self.mode == "watch":
            self.wanted = {name: model for name, model in self.seen.items() if not model.refusal}
        else:
            self._pin()
        return sorted(name for name, was in before.items()
                      if was != (self.wanted.get(name), self.seen.get(name), self.refusals.get(name)))

    def _pin(self) -> None:
        if ALL in self._start and self._first is not None:
            self._start = (self._start - {ALL}) | self._first
        for name, model in self.seen.items():
            if name in self._pinned or model.refusal or not self._at_start(name):
                continue
            try:
                self.wanted[name] = self._overlaid(model, self.record.loaded.get(name, ""))
            except InferError as error:
                self.refusals[name] = error.message
                continue
            whole = [version for version, files in model.versions.items() if files.whole]
            if aspired(self.wanted[name].settings.policy, whole):
                self._pinned.add(name)
        for name in self.wanted.keys() - self.seen.keys() - self._pinned:
            del self.wanted[name]

    def _at_start(self, name: str) -> bool:
        if self.mode == "none":
            return self._first is not None and name in self._first
        return name in self.record.loaded or (name in self._start and name not in self.record.unloaded)

    def _overlaid(self, model: ModelSeen, override: str) -> ModelSeen:
        return self._overlay(model, override) if override else model

    @property
    def missing(self) -> set[str]:
        """Models that are to be loaded at the start and were not found."""
        if self.mode != "explicit":
            return set()
        return ((self._start - self.record.unloaded) | self.record.loaded.keys()) - {ALL} - self.seen.keys()

    def require_control(self) -> None:
        if self.mode != "explicit":
            raise FailedPrecondition(
                f"models are not loaded and unloaded by request: model control is {self.mode!r}; start the server "
                "with --model-control-mode explicit")

    def require_known(self, name: str) -> None:
        if name not in self.seen and name not in self.wanted:
            raise NotFound(f"unknown model {name!r}: it is in none of the repositories; check its name, or copy it "
                           "there")

    def load(self, name: str, override: str) -> ModelSeen:
        """Wants the model as it is now, or raises InferError."""
        self.require_known(name)
        if name in self._refused and name in self.seen:
            raise FailedPrecondition(self.refusals[name])
        if name not in self.seen:
            raise NotFound(f"model {name!r} serves from memory and is in none of the repositories any more; copy it "
                           "there to load it again")
        model = self._overlaid(self.seen[name], override)
        if not model.versions:
            raise NotFound(f"model {name!r} has no version directory; copy a version into the repository")
        self.refusals.pop(name, None)
        self.wanted[name] = model
        self._pinned.add(name)
        return self.wanted[name]

    def standing(self, name: str) -> Standing:
        return self.wanted.get(name), name in self._pinned

    def take_back(self, name: str, before: Standing) -> None:
        """A load that was asked for has failed: what was wanted before it is wanted again."""
        self.wanted.pop(name, None)
        self._pinned.discard(name)
        if before[0] is not None:
            self.wanted[name] = before[0]
        if before[1]:
            self._pinned.add(name)

    def loaded(self, name: str, override: str) -> None:
        """A load that was asked for has succeeded."""
        self.record.loaded[name] = override
        self.record.unloaded.discard(name)

    def unload(self, name: str) -> None:
        self.wanted.pop(name, None)
        self._pinned.discard(name)
        self.record.loaded.pop(name, None)
        self.record.unloaded.add(name)

    def labels_of(self, name: str) -> dict[str, int]:
        """Labels as they shall point: those of run time over those of the settings."""
        model = self.wanted.get(name)
        return {**(model.settings.labels if model else {}), **self.record.labels.get(name, {})}
