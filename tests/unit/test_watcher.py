"""The watcher: looks are taken in, problems are said once, versions that nobody keeps are deleted."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from infer.models.snapshot import Snapshot
from infer.models.source import Source
from infer.models.written import read_written
from infer.watcher import Watcher
from tests.support import models


class Watched:
    def __init__(self, root: Path) -> None:
        self.taken: list[Snapshot] = []
        self.removable: tuple[int, ...] = ()
        self.asked: list[Mapping[int, float]] = []
        self.removed: list[tuple[str, int, str]] = []
        self.source = Source([root], settle_ns=1)
        self.watcher = Watcher(self.source, self.taken.append, interval_s=0.01, settle_s=0.01,
                               removable=self._removable, removed=self._removed)

    def _removable(self, name: str, ages_s: Mapping[int, float]) -> tuple[int, ...]:
        self.asked.append(ages_s)
        return self.removable

    def _removed(self, model: str, version: int, failure: str) -> None:
        self.removed.append((model, version, failure))


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    made = Watched(tmp_path)
    yield made
    await made.watcher.close()


async def test_a_problem_is_said_once_for_as_long_as_it_is_there(
        watched: Watched, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    models.write_version(tmp_path, "m", 1, models.scale())
    models.write_version(tmp_path, "bad name", 1, models.scale())

    def said() -> int:
        return sum("bad name" in record.getMessage() for record in caplog.records)

    for _ in range(3):
        await watched.watcher.look()
    assert (said(), watched.watcher.problems, watched.watcher.looks) == (1, 1, 3)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    (tmp_path / "bad name").rename(tmp_path / "other")
    await watched.watcher.look()
    assert watched.watcher.problems == 0
    (tmp_path / "other").rename(tmp_path / "bad name")
    await watched.watcher.look()
    assert said() == 2


async def test_looks_that_take_long_are_made_less_often(
        watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = iter([10.0, 10.0, 20.0, 20.5])
    monkeypatch.setattr("infer.watcher.time.thread_time", lambda: next(spent))
    await watched.watcher.look()
    assert watched.watcher.pause_s == 0.01
    await watched.watcher.look()
    assert watched.watcher.pause_s == 25.0


async def test_versions_are_deleted_after_a_look(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.pbtxt").write_text("")
    for version in (1, 2):
        models.write_version(tmp_path, "m", version, models.scale())
    await watched.watcher.look()
    await watched.watcher._remove()
    # Nothing is asked where nothing says what to keep.
    assert watched.asked == []
    toml = tmp_path / "infer.toml"
    toml.write_text("[models.m]\nkeep_versions = 1\n")
    watched.watcher.set_written(read_written(None, toml).models)
    await watched.watcher.look()
    watched.removable = (1,)
    await watched.watcher._remove()
    assert set(watched.asked[0]) == {1, 2}
    assert watched.removed == [("m", 1, "")]
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["2", "config.pbtxt"]
