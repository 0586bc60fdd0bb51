"""The manager behind the repository's RPCs: answers, the index, what is kept and what is put down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infer.errors import FailedPrecondition, InferError, InvalidArgument, NotFound
from infer.model_control import KeptRecord, ManagerControl, audit_event, overlay, override_text
from infer.models.loading import Event
from infer.services.control import IndexRow, Overrides, Repository
from infer.services.overrides import OverrideFiles
from infer.state.database import reading
from infer.state.store import Store
from tests.support.cold_server import FakeAudit
from tests.support.puppet_loader import World, broken, seen
from tests.support.turns import turn

LONG = 30.0


class Controlled:
    """A manager in explicit mode with a puppet loader, behind the RPCs, over a store on disk."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory)
        self.kept = KeptRecord(self.store)
        self.world = World("explicit", {"record": self.kept.record, "keep": self.kept.keep, "overlay": overlay})
        self.control = ManagerControl(self.world.manager, "explicit", self.kept)
        self.repository = Repository(self.control, max_calls=8, files=OverrideFiles(1000))

    async def ask(self, verb: str, *arguments: Any) -> InferError | None:
        """What a call of it comes to, with all that the loader has to do done."""
        call = asyncio.ensure_future(getattr(self.repository, verb)(*arguments))
        while not call.done():
            self.world.run()
            await turn()
        error = call.exception()
        assert error is None or isinstance(error, InferError)
        return error

    def rows(self) -> list[tuple[str, str, str, str, tuple[str, ...]]]:
        return [(row.model, row.version, row.state, row.reason, row.labels) for row in self.control.index()]


@pytest.fixture
def controlled(tmp_path: Path) -> Iterator[Controlled]:
    made = Controlled(tmp_path / "state")
    made.world.observe(seen("m", {1: "a", 2: "b"}), seen("n", {1: "c"}))
    yield made
    made.store.close(LONG)


async def test_load_label_unload(controlled: Controlled) -> None:
    assert [row[:3] for row in controlled.rows()] == [("m", "", "UNAVAILABLE"), ("n", "", "UNAVAILABLE")]
    assert await controlled.ask("load", "m", None, {}, "me") is None
    assert controlled.rows()[0] == ("m", "2", "READY", "", ())
    assert await controlled.ask("label", "m", "stable", 2, "me") is None
    assert controlled.rows()[0] == ("m", "2", "READY", "", ("stable",))
    assert await controlled.ask("label", "m", "stable", 0, "me") is None
    assert controlled.rows()[0] == ("m", "2", "READY", "", ())
    assert await controlled.ask("unload", "m", False, "me") is None
    assert controlled.rows()[0][:3] == ("m", "", "UNAVAILABLE")
    assert {event.who for event in controlled.world.events} == {"me"}


async def test_what_was_answered_is_found_after_a_restart(controlled: Controlled, tmp_path: Path) -> None:
    assert await controlled.ask("load", "m", None, {}, "me") is None
    assert await controlled.ask("label", "m", "canary", 2, "me") is None
    # Read from the disk, as after an end at this moment.
    connection = reading(tmp_path / "state")
    ((text,),) = connection.execute("SELECT record FROM models")
    connection.close()
    record = json.loads(text)
    assert (record["labels"], record["loaded"]) == ({"m": {"canary": 2}}, {"m": ""})
    controlled.store.close(LONG)
    again = Controlled(tmp_path / "state")
    again.world.observe(seen("m", {1: "a", 2: "b"}), seen("n", {1: "c"}))
    again.world.run()
    assert again.rows()[0] == ("m", "2", "READY", "", ("canary",))
    again.store.close(LONG)


async def test_f26_f29_failures(controlled: Controlled) -> None:
    error = await controlled.ask("load", "x", None, {}, "me")
    assert isinstance(error, NotFound)
    controlled.world.good = lambda spec: False
    error = await controlled.ask("load", "m", None, {}, "me")
    assert error is not None
    assert (error.code, "version 2 is broken" in error.message) == (FailedPrecondition.code, True)
    assert "broken" in controlled.rows()[0][3]
    error = await controlled.ask("load", "m", 'max_batch_sise: 8', {}, "me")
    assert isinstance(error, InvalidArgument)
    assert "parameter 'config':1:1: max_batch_sise" in error.message


async def test_a_load_with_a_configuration_and_files(controlled: Controlled, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sent").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "sent"))
    assert await controlled.ask("load", "m", "max_batch_size: 8", {}, "me") is None
    (entry,) = controlled.world.table["m"].versions
    assert (entry.spec.version, entry.settings.max_batch_size) == (2, 8)
    config = 'default_model_filename: "other.onnx" version_policy { all {} }'
    files = {("3", "other.onnx"): b"a", ("4", "other.onnx"): b"b"}
    assert await controlled.ask("load", "m", config, files, "me") is None
    entries = controlled.world.table["m"].versions
    found = {entry.spec.version: entry.spec.files.path.read_bytes() for entry in entries}
    assert found == {3: b"a", 4: b"b"}
    # The same files again are another load.
    serials = {entry.spec.serial for entry in entries}
    assert await controlled.ask("load", "m", config, files, "me") is None
    assert serials.isdisjoint({entry.spec.serial for entry in controlled.world.table["m"].versions})
    # These are gone with their server, which is said.
    await controlled.repository.close()
    controlled.store.close(LONG)
    again = Controlled(tmp_path / "state")
    again.world.observe(seen("m", {1: "a", 2: "b"}))
    again.world.run()
    assert again.rows() == [("m", "", "UNAVAILABLE", "model 'm': the files that it was loaded with are gone; send "
                             "them again, or load it from the repository", ())]
    assert await again.ask("load", "m", None, {}, "me") is None
    assert again.rows()[0][:3] == ("m", "2", "READY")
    again.store.close(LONG)


def test_labels_are_no_part_of_what_a_load_brings() -> None:
    model = overlay(seen("m", {1: "a"}, labels={"stable": 1}), override_text(Overrides("max_batch_size: 2", None)))
    assert (model.settings.labels, model.settings.max_batch_size, set(model.versions)) == ({"stable": 1}, 2, {1})


async def test_the_index_has_one_row_for_each_version(controlled: Controlled) -> None:
    world = World("watch", {})
    control = ManagerControl(world.manager, "watch", controlled.kept)
    world.observe(seen("m", {1: "a"}))
    assert control.index() == [IndexRow("m", "1", "LOADING")]
    world.run()
    # The same number anew: the old one serves until the new one does.
    world.observe(seen("m", {1: "b"}))
    assert control.index() == [IndexRow("m", "1", "READY")]
    world.loader.end_load(error=broken(world.loader.loads[0][0]))
    world.step()
    assert control.index() == [IndexRow("m", "1", "READY", "model 'm' version 1 is broken")]
    world.observe(seen("m", {1: "c"}))
    world.loader.end_load()
    world.step()
    assert control.index() == [IndexRow("m", "1", "READY")]
    world.observe(seen("m", {1: "c"}, refusal="config.pbtxt:1: no"))
    assert control.index() == [IndexRow("m", "1", "READY", "config.pbtxt:1: no")]


def test_events_are_put_down() -> None:
    audit = FakeAudit()
    for event in (Event("load", "m", 3, "failed", "repository", "broken"), Event("model", "m", None, "refused", "me")):
        audit_event(audit, event)  # type: ignore[arg-type]
    assert audit.rows == [
        {"event": "load", "outcome": "failed", "who": "repository", "model": "m", "version": "3", "detail": "broken"},
        {"event": "model", "outcome": "refused", "who": "me", "model": "m", "version": "", "detail": ""}]
