"""SIGKILL in the middle of every change of the models, and a start after it: what was answered with OK holds, what was
not holds or does not, and nothing in between; the audit log is as it was written, and no half of a file is served.

The moment is chosen by what the server does, never by time: `kill_point` ends it at a call of its own code.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.support import models
from tests.support.command import SECONDS, Serving
from tests.support.killing import KILLED, Killed, answered_ok, assert_serves, ready_versions, until
from tests.support.repositories import Caller, config_json, place_version

EXPLICIT = ("--model-control-mode", "explicit")

LABELS = {"stable": 1, "canary": 2}

LOADING = (
    "infer.models.effects:Effects.answer@after",            # asked for, and nothing done
    "infer.models.version_load:identify@before",            # begun
    "infer.models.version_load:OrtSession@after",           # there is a session
    "infer.models.version_load:warm_sizes@before",
    "infer.models.loader:Loader._load@after",               # ended, on its thread
    "infer.models.loader:Loader._loaded@before",            # not published
)
# Of a change that is kept.
KEEPING = (
    "infer.model_control:KeptRecord.keep@before",
    "infer.model_control:KeptRecord.keep@after",            # on its way to the disk
    "infer.security.audit:_append@after",                   # in a transaction
    "infer.state.store:Store._forget@before",               # on the disk, and not answered
)
UNLOADING = (
    "infer.models.manager:Manager.ask_unload@before",
    "infer.models.effects:Effects._close@before",           # not routed to any more
    "infer.models.loader:Loader._release@before",           # drained
    "infer.models.loader:Loader._closed@before",            # its memory is given back
)
REMOVING = (
    "infer.watcher:remove@before",
    "infer.models.removal:shutil.rmtree@before",            # out of sight
    "os:unlink@after",                                      # half deleted
    "infer.watcher:remove@after",
)
RELOADING = (
    "infer.reload:changes@before",                          # read
    "infer.reload:ModelsReload.take@after",
    "infer.watcher:Watcher.set_written@after",
    "infer.models.manager:Manager._changed@after",          # looked at with them
)


def only(*versions: int) -> str:
    """A configuration that needs every version to be loaded again."""
    return config_json(maxBatchSize=8, versionPolicy={"specific": {"versions": list(versions)}})


@pytest.fixture
def killed(tmp_path: Path) -> Killed:
    """Versions 1 and 2 of `m`, all of them served."""
    for version in (1, 2):
        place_version(tmp_path / "models", "m", version)
    (tmp_path / "models" / "m" / "config.pbtxt").write_text("version_policy { all {} }\n")
    return Killed(tmp_path, *EXPLICIT)


def prepare(caller: Caller) -> None:
    caller.client.load("m")
    for label, version in LABELS.items():
        caller.client.move_label("m", label, version)


def test_while_a_version_loads(killed: Killed) -> None:
    there = [1, 2]

    def load(caller: Caller, serving: Serving) -> None:
        there.append(there[-1] + 1)
        place_version(killed.root, "m", there[-1])
        caller.client.load("m")

    killed.through(LOADING, prepare, load, lambda caller, answered: assert_serves(caller, there, LABELS))


def test_during_a_load_with_a_config(killed: Killed) -> None:
    place_version(killed.root, "m", 3)

    def check(caller: Caller, answered: bool) -> None:
        found = ready_versions(caller)
        assert found == {1, 2} or (found == {1, 2, 3} and not answered)
        assert_serves(caller, found, LABELS)

    killed.through((*LOADING, *KEEPING), prepare, lambda caller, _: caller.client.load("m", config=only(1, 2)), check)


def test_a_config_that_was_answered_holds(killed: Killed) -> None:
    place_version(killed.root, "m", 3)
    with killed.serving() as (_, caller):
        prepare(caller)
        caller.client.load("m", config=only(1, 2))
    with killed.serving() as (_, caller):
        assert_serves(caller, {1, 2}, LABELS)
        caller.client.load("m")
    with killed.serving() as (_, caller):
        assert_serves(caller, {1, 2, 3}, LABELS)
    killed.verify()


def test_during_a_load_with_files(killed: Killed) -> None:
    sent = {(5, "model.onnx"): models.scale(5.0), (6, "model.onnx"): models.scale(6.0)}
    config = config_json(versionPolicy={"all": {}})
    loads = killed.state / "loads"

    def check(caller: Caller, answered: bool) -> None:
        found = ready_versions(caller)
        assert found == {5, 6} or (found == {1, 2} and not answered), caller.index()
        assert_serves(caller, found, {} if found == {5, 6} else LABELS)
        # Those that nobody is served from are gone.
        assert len(list(loads.iterdir())) == len(found & {5})
        caller.client.load("m")
        assert_serves(caller, {1, 2}, LABELS)
        assert not list(loads.iterdir())

    killed.through(("infer.services.overrides:Path.write_bytes@after", *KEEPING), prepare,
                   lambda caller, _: caller.client.load("m", config=config, files=sent), check)


def test_files_that_were_answered_hold(killed: Killed) -> None:
    with killed.serving() as (_, caller):
        caller.client.load("m", config=config_json(), files={(5, "model.onnx"): models.scale(5.0)})
    for _ in range(2):
        with killed.serving() as (serving, caller):
            assert_serves(caller, {5}, {})
            assert serving.stop() == 0
    killed.verify()


def test_during_an_unload(killed: Killed) -> None:
    place_version(killed.root, "n", 1)

    def ready(caller: Caller) -> None:
        prepare(caller)
        caller.client.load("n")

    def check(caller: Caller, answered: bool) -> None:
        found = ready_versions(caller)
        assert not found or (found == {1, 2} and not answered)
        assert_serves(caller, {1}, {}, "n")
        if not found:
            assert caller.status("m")[0] == "NOT_FOUND"
            caller.client.load("m")
        # It comes back as it was.
        assert_serves(caller, {1, 2}, LABELS)

    killed.through((*KEEPING, *UNLOADING), ready, lambda caller, _: caller.client.unload("m"), check)


def test_during_a_label_move(killed: Killed) -> None:
    def check(caller: Caller, answered: bool) -> None:
        stable = int(caller.answer("m")[0])
        assert stable == 2 or (stable == 1 and not answered)
        assert_serves(caller, {1, 2}, LABELS | {"stable": stable})

    killed.through((*KEEPING, "infer.models.manager:Manager.ask_label@after"), prepare,
                   lambda caller, _: caller.client.move_label("m", "stable", 2), check)


def test_while_a_label_is_deferred(killed: Killed) -> None:
    with killed.serving() as (serving, caller):
        prepare(caller)
        caller.client.move_label("m", "canary", 3)
        serving.wait_for("label deferred: canary")
        assert caller.answer("m", "canary") == ("2", 2.0)
    with killed.serving() as (_, caller):
        # Where it was, until what it waits for is there.
        assert_serves(caller, {1, 2}, LABELS)
        place_version(killed.root, "m", 3)
        caller.client.load("m")
        assert_serves(caller, {1, 2, 3}, {"stable": 1, "canary": 3})
    with killed.serving() as (_, caller):
        assert_serves(caller, {1, 2, 3}, {"stable": 1, "canary": 3})
    assert ("label", "m", "3", "deferred") in killed.verify()


def test_while_a_version_warms_up(killed: Killed) -> None:
    """Its warm-up waits for a pipe, from which nothing comes."""
    pipe = killed.root / "m" / "warmup" / "rows"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    warmed = config_json(versionPolicy={"all": {}}, modelWarmup=[{
        "name": "waits", "batchSize": 1, "count": 1,
        "inputs": {"x": {"dataType": "TYPE_FP32", "dims": [4], "inputDataFile": "rows"}}}])
    with killed.serving() as (_, caller):
        prepare(caller)
        load = threading.Thread(target=answered_ok, args=(lambda: caller.client.load("m", config=warmed),), daemon=True)
        load.start()
        opened: list[int] = []
        # Opens once the server reads from it.
        opening = threading.Thread(target=lambda: opened.append(os.open(pipe, os.O_WRONLY)), daemon=True)
        opening.start()
        opening.join(SECONDS)
        assert opened, caller.index()
        assert_serves(caller, {1, 2}, LABELS)
    os.close(opened[0])
    load.join(SECONDS)
    assert not load.is_alive()
    with killed.serving() as (_, caller):
        assert_serves(caller, {1, 2}, LABELS)
    killed.verify()


def test_while_a_version_drains(tmp_path: Path) -> None:
    """With a call under way, which keeps it from ending."""
    killed = Killed(tmp_path, *EXPLICIT)
    models.write_version(killed.root, "slow", 1, models.slow(1_000_000))
    with killed.serving() as (serving, caller):
        caller.client.load("slow")
        busy = {"x": np.array([[1_000_000]], np.int64)}
        call = threading.Thread(
            target=answered_ok, args=(lambda: caller.client.infer("slow", busy, timeout=SECONDS),), daemon=True)
        call.start()
        until(lambda: any("infer_executors_busy 1.0" in line for line in metrics(serving)), lambda: metrics(serving))
        models.write_version(killed.root, "slow", 2, models.slow(10))
        caller.client.load("slow")
        serving.wait_for("model 'slow' version 1: unload draining")
        assert ready_versions(caller, "slow") == {2}
        assert call.is_alive()
    call.join(SECONDS)
    assert not call.is_alive()
    with killed.serving() as (_, caller):
        assert ready_versions(caller, "slow") == {2}
        reply = caller.client.infer("slow", {"x": np.array([[1]], np.int64)})
        assert (reply.model_version, reply["y"].item()) == ("2", 1)
    events = killed.verify()
    assert ("unload", "slow", "1", "draining") in events
    assert ("unload", "slow", "1", "ok") not in events


def metrics(serving: Serving) -> list[str]:
    from tests.support.server import fetch

    return fetch(serving.http, "/metrics")[1].decode().splitlines()


def test_while_an_old_version_is_deleted(tmp_path: Path) -> None:
    killed = Killed(tmp_path)
    (tmp_path / "infer.toml").write_text("[models.m]\nkeep_versions = 1\nlabels = { stable = 2 }\n")
    there = [2]

    def place() -> None:
        there.append(there[-1] + 1)
        staged = place_version(tmp_path / "staged", "m", there[-1])
        (staged / "notes").write_text("beside the model")
        staged.rename(killed.root / "m" / str(there[-1]))

    def change(caller: Caller, serving: Serving) -> None:
        place()
        serving.wait()

    def check(caller: Caller, answered: bool) -> None:
        assert_serves(caller, {2, there[-1]}, {"stable": 2})
        # The deletion is made, or ended, by the next looks.
        until(lambda: {path.name for path in (killed.root / "m").iterdir()} == {"2", str(there[-1])},
              lambda: os.listdir(killed.root / "m"))

    place_version(killed.root, "m", 2)
    place()
    killed.through(REMOVING, lambda caller: assert_serves(caller, {2, there[-1]}, {"stable": 2}), change, check)


def test_while_settings_are_read_again(tmp_path: Path) -> None:
    killed = Killed(tmp_path)
    toml = tmp_path / "infer.toml"
    wanted = [1, 2]
    for version in (1, 2):
        place_version(killed.root, "m", version)

    def write() -> None:
        toml.write_text(f"[models.m]\nversion_policy = {{ specific = {{ versions = [{wanted[0]}] }} }}\n"
                        f"labels = {{ stable = {wanted[0]} }}\n")

    def change(caller: Caller, serving: Serving) -> None:
        wanted.reverse()
        write()
        serving.process.send_signal(signal.SIGHUP)
        serving.wait()

    def check(caller: Caller, answered: bool) -> None:
        # As they are written now.
        assert_serves(caller, {wanted[0]}, {"stable": wanted[0]})

    write()
    killed.through(RELOADING, lambda caller: check(caller, False), change, check)


# What changes models, or what is kept of them, in any thread.
ANYWHERE = tuple(f"infer.{place}.*" for place in (
    "models.manager:Manager", "models.effects:Effects", "models.served_model:ServedModel", "models.harness:Table",
    "models.harness:Incarnation", "models.loader:Loader", "models.intents:Intents", "lifecycle:Models",
    "watcher:Watcher", "model_control:ManagerControl", "model_control:KeptRecord", "services.control:Repository",
    "state.store:Store", "security.audit:AuditLog")) + (
    "infer.watcher:remove@before", "infer.security.audit:_append@after", "os:unlink@after", "os:rename@after",
    "infer.models.version_load:OrtSession@after", "infer.models.version_load:warm_sizes@after")
KILLS = 20
# About as many calls as the changes of one round make.
CALLS = 4000


@dataclass(frozen=True)
class Expected:
    """What calls were told of model `m`, whose policy is the latest two; and whether `r` is to be loaded."""

    loaded: bool = False
    chosen: tuple[int, ...] = ()            # by the configuration that it was loaded with
    labels: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    other: bool = False

    def served(self, there: set[int]) -> set[int]:
        if not self.loaded:
            return set()
        chosen = set(self.chosen) or set(sorted(there)[-2:])
        return chosen | ({*self.labels.values(), *self.held.values()} & there)

    def settled(self, there: set[int]) -> Expected:
        """Once all of it is loaded."""
        ready = self.served(there)
        held = {label: version if version in ready else self.held[label] for label, version in self.labels.items()
                if version in ready or label in self.held}
        return replace(self, held=held)

    def label(self, label: str, version: int) -> Expected:
        labels = {**self.labels, label: version}
        if not version:
            del labels[label]
        return replace(self, labels=labels)


def seen_of(caller: Caller) -> tuple[set[int], dict[str, int], bool]:
    """Of a server: what it serves of `m`, by number and by label, and whether it serves `r`."""
    labels = {}
    for label in ("stable", "canary"):
        if caller.status("m", label)[0] == "OK":
            labels[label] = int(caller.answer("m", label)[0])
    return ready_versions(caller), labels, bool(ready_versions(caller, "r"))


def expected_of(state: Expected, there: set[int]) -> tuple[set[int], dict[str, int], bool]:
    ready = state.served(there)
    return ready, {label: version for label, version in state.held.items() if version in ready}, state.other


Change = tuple[str, Callable[[Caller], None], Callable[[Expected], Expected]]


def one_round(root: Path, number: int) -> list[Change]:
    """Changes one after the other, each with what is expected once it is answered."""
    def load_other(caller: Caller) -> None:
        place_version(root, "r", number)
        caller.client.load("r")

    def load_next(caller: Caller) -> None:
        place_version(root, "m", number)
        caller.client.load("m")

    def label(name: str, version: int) -> Change:
        return (f"{name} to {version}", lambda caller: caller.client.move_label("m", name, version),
                lambda state: state.label(name, version))

    return [
        ("load", load_next, lambda state: replace(state, loaded=True, chosen=())),
        label("stable", number),
        label("canary", number + 1),
        ("load other", load_other, lambda state: replace(state, other=True)),
        ("load with config", lambda caller: caller.client.load("m", config=only(number - 1, number)),
         lambda state: replace(state, loaded=True, chosen=(number - 1, number))),
        ("unload", lambda caller: caller.client.unload("m"), lambda state: replace(state, loaded=False, chosen=())),
        label("stable", number - 1),
        ("load again", lambda caller: caller.client.load("m"), lambda state: replace(state, loaded=True, chosen=())),
        label("canary", number - 1),
        ("unload other", lambda caller: caller.client.unload("r"), lambda state: replace(state, other=False)),
        label("canary", 0),
    ]


def make_changes(root: Path, caller: Caller, number: int, state: Expected, there: set[int]
                 ) -> tuple[str, list[Expected]]:
    """A round; the change that the server did not outlive, "" for none, and what may be expected of the next one."""
    for name, change, then in one_round(root, number):
        there.add(number)
        after = then(state).settled(there)
        if not answered_ok(partial(change, caller)):
            return name, [state, after]
        state = after
    return "", [state]


def fitting(caller: Caller, possible: list[Expected], there: set[int], moments: object) -> list[Expected]:
    """Those that the server, which was just started, has come to."""
    after = [each.settled(there) for each in possible]
    # A version that was placed the moment before the end is not whole at the first look of the next start.
    until(lambda: seen_of(caller) in [expected_of(state, there) for state in after],
          lambda: (moments, seen_of(caller), possible, there))
    found = seen_of(caller)
    assert_serves(caller, found[0], found[1])
    return [state for state in after if expected_of(state, there) == found]


def test_at_any_moment(tmp_path: Path) -> None:
    killed = Killed(tmp_path, *EXPLICIT)
    (tmp_path / "infer.toml").write_text(
        "[models.m]\nversion_policy = { latest = 2 }\n[models.r]\nkeep_versions = 1\n")
    chance = random.Random(9)
    number = 1
    for model in ("m", "r"):
        place_version(killed.root, model, number)
    possible = [Expected()]
    moments: list[tuple[str, str]] = []
    for _ in range(KILLS):
        with killed.serving(*ANYWHERE, nth=chance.randrange(1, CALLS)) as (serving, caller):
            there = {int(path.name) for path in (killed.root / "m").iterdir() if path.name.isdecimal()}
            possible, under_way = fitting(caller, possible, there, moments[-1:]), ""
            killed.arm()
            while not under_way:
                number += 1
                under_way, possible = make_changes(killed.root, caller, number, possible[0], there)
            assert serving.wait() == KILLED, serving.output
            moments.append((under_way, next(line for line in serving.stderr if line.startswith("killed at "))))
        killed.verify()
    with killed.serving():
        # Whatever was half deleted is gone.
        until(lambda: not list(killed.root.glob("*/.removed-*")), lambda: list(killed.root.glob("*/.*")))
    assert len({point for _, point in moments}) > KILLS // 3, moments
