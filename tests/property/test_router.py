"""RouteTable against a plain model: dictionaries, looked into in the order that a request's answer is decided."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core.model_version import VersionEntry
from infer._core.router import ModelRoute, RouteTable
from infer.errors import InferError

INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, UNAVAILABLE = 3, 5, 9, 14
NAMES = ["m", "mm", "a.b", "x-1", "1", "stable"]
# Numbers and labels that begin alike, and whose joint with a model's name is another joint's as well.
NUMBERS = ["1", "2", "10", "12", "999999999999999999"]
LABELS = ["stable", "canary", "m", "1a", "1.0", "m1", "x", "-", "x" * 128]
NEITHER = ["0", "01", "-1", "1 ", " ", "a/b", "a\0b", "é", "9" * 19, "x" * 129]
KEY = re.compile(r"[1-9][0-9]{0,17}|(?!-?[0-9]+\Z)[A-Za-z0-9_.-]{1,128}")


def version(name: str, number: str) -> VersionEntry:
    return VersionEntry(name, number, None, [], [], batched=True, max_rows=1, gather_rows=1, delay_ns=0,
                        queue_limit_rows=1, max_running=1, properties={})


@dataclass
class Model:
    versions: dict[str, VersionEntry] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    default: str = ""
    unready: dict[str, tuple[int, str]] = field(default_factory=dict)
    reason: tuple[int, str] = (UNAVAILABLE, "")

    def route(self) -> ModelRoute:
        return ModelRoute(list(self.versions.values()),
                          {label: self.versions[number] for label, number in self.labels.items()},
                          self.versions[self.default] if self.default else None, self.unready,
                          None if self.default else self.reason)

    def answer(self, key: str) -> tuple[int, str] | VersionEntry:
        """The entry, or the refusal, whose text is left open where only its code is the model's to say."""
        number = self.default if not key else self.labels.get(key, key)
        if number in self.versions:
            return self.versions[number]
        if not key:
            return self.reason
        if key in self.unready:
            return self.unready[key]
        if not KEY.fullmatch(key):
            return INVALID_ARGUMENT, ""
        return (NOT_FOUND, "") if self.versions or self.unready else self.reason


@st.composite
def models(draw: st.DrawFn, name: str) -> Model:
    ready = draw(st.lists(st.sampled_from(NUMBERS), unique=True))
    others = [number for number in NUMBERS if number not in ready]
    keys = draw(st.lists(st.sampled_from(LABELS), unique=True))
    split = draw(st.integers(0, len(keys))) if ready else 0
    codes = st.sampled_from([UNAVAILABLE, FAILED_PRECONDITION, NOT_FOUND])
    late = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
    return Model(
        versions={number: version(name, number) for number in ready},
        labels={label: draw(st.sampled_from(ready)) for label in keys[:split]},
        default=draw(st.sampled_from([*ready, ""])),
        unready={key: (draw(codes), f"{key} of {name} is late") for key in [*late, *keys[split:]]},
        reason=(draw(codes), f"{name} has no default"))


@st.composite
def repositories(draw: st.DrawFn) -> dict[str, Model]:
    return {name: draw(models(name)) for name in draw(st.lists(st.sampled_from(NAMES), unique=True))}


@given(repositories())
def test_every_name_with_every_version_and_label_is_answered_as_the_model_says(repository: dict[str, Model]) -> None:
    table = RouteTable((name, model.route()) for name, model in repository.items())
    assert table.models() == [(name, list(model.versions.values())) for name, model in repository.items()]
    assert_answers(table, repository)


@given(st.lists(repositories(), min_size=1, max_size=4), st.data())
def test_a_table_with_changes_answers_as_one_that_is_made_anew(
        each: list[dict[str, Model]], data: st.DataObject) -> None:
    repository = dict(sorted(each[0].items()))
    table = RouteTable((name, model.route()) for name, model in repository.items())
    for later in each[1:]:
        before, answered = table, dict(repository)
        named = data.draw(st.sets(st.sampled_from(NAMES)))
        changes: dict[str, ModelRoute | None] = {}
        for name in named:
            changes[name] = later[name].route() if name in later else None
            repository.pop(name, None)
        repository = dict(sorted((repository | {name: later[name] for name in named & later.keys()}).items()))
        table = before.with_changes(changes)
        assert table.models() == [(name, list(model.versions.values())) for name, model in repository.items()]
        assert table.entries() == [entry for _, versions in table.models() for entry in reversed(versions)]
        for name in NAMES:
            if name not in named:
                assert table.route_of(name) is before.route_of(name)
        assert_answers(table, repository)
        assert_answers(before, answered)


def assert_answers(table: RouteTable, repository: dict[str, Model]) -> None:
    for name in NAMES:
        for key in ["", *NUMBERS, *LABELS, *NEITHER, "nobody", "3"]:
            if name not in repository:
                expected: tuple[int, str] | VersionEntry = NOT_FOUND, f"unknown model '{name}'"
            else:
                expected = repository[name].answer(key)
            if isinstance(expected, VersionEntry):
                assert table.lookup(name, key) is expected
                continue
            with pytest.raises(InferError) as caught:
                table.lookup(name, key)
            assert caught.value.code == expected[0]
            assert expected[1] in caught.value.message
            assert name in caught.value.message
