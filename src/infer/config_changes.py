"""What a server that runs does with settings that were read again: pure. Any thread."""

from __future__ import annotations

from typing import Any, NamedTuple

from infer.config import Settings, flag_of


class Change(NamedTuple):
    """One setting that has another value."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{flag_of(self.name)}: {shown(self.old)} -> {shown(self.new)}"


class Changes(NamedTuple):
    """Those that apply to a server that runs, and those that it takes up at its next start."""

    live: tuple[Change, ...]
    restart: tuple[Change, ...]


def changes(old: Settings, new: Settings) -> Changes:
    """The settings that differ, in the order of their declaration."""
    found = [Change(name, getattr(old, name), getattr(new, name)) for name in Settings.model_fields
             if getattr(old, name) != getattr(new, name)]
    return Changes(tuple(each for each in found if is_live(each.name)),
                   tuple(each for each in found if not is_live(each.name)))


def merged(old: Settings, new: Settings) -> Settings:
    """What holds once the live changes are applied."""
    return old.model_copy(update={change.name: change.new for change in changes(old, new).live})


def is_live(name: str) -> bool:
    """Whether a change of the setting applies without a restart."""
    extra: Any = Settings.model_fields[name].json_schema_extra
    return bool(extra["live"])


def shown(value: object) -> str:
    """A value as a person reads it."""
    if value is None:
        return "unset"
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
