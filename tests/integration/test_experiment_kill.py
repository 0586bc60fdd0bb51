"""SIGKILL at each moment of an experiment's changes, and a start after it: it is under way or not as was last decided,
keys have the arms that they had, and of its outcomes those that came since the last look are lost at most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.targets import free_port
from infer.client import InferClient, Outcome, RetryPolicy
from infer.proto import message
from tests.support.killing import Killed, until
from tests.support.repositories import Caller, place_version
from tests.support.splits import chosen

CHANGING = (
    "infer.traffic.experiments:Experiments._keep@before",    # decided, and nothing done
    "infer.state.store:Store.save@after",                    # on its way to the disk
    "infer.state.store:Store._forget@before",                # on the disk, and not in effect
    "infer.experiment_control:ExperimentModels.set_split@after",
)
USERS = [f"user-{i}" for i in range(40)]
X = np.ones((1, 4), np.float32)


class Admin:
    def __init__(self, port: int) -> None:
        self._address = f"127.0.0.1:{port}"

    def ask(self, verb: str, **fields: object) -> Any:
        kind = f"infer.v1.Experiment{verb}"
        with InferClient(self._address, timeout=30.0, retry=RetryPolicy(attempts=1)) as client:
            return message(f"{kind}Response").FromString(client.call(
                f"/infer.v1.Admin/Experiment{verb}", message(f"{kind}Request")(**fields).SerializeToString()))

    def start(self, name: str) -> None:
        variant = message("infer.v1.Variant")
        self.ask("Start", model="m", name=name, metrics=["clicked:rate"],
                 arms=[variant(name=f"v{number}", to=number, weight=1) for number in "12"])

    def running(self) -> str:
        found = self.ask("Status").experiments
        return found[0].name if found else ""

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("Report", model="m").report)
        return found

    def units(self) -> list[int]:
        return [int(arm.units) for arm in self.ask("Status").experiments[0].arms]

    def ended(self) -> list[str]:
        return [each.name for each in self.ask("History").experiments]


@pytest.fixture
def experimenting(tmp_path: Path) -> tuple[Killed, Admin]:
    for version in (1, 2):
        place_version(tmp_path / "models", "m", version)
    (tmp_path / "infer.toml").write_text("[models.m]\nversion_policy = { all = {} }\n")
    port = free_port()
    return Killed(tmp_path, "--admin-port", port), Admin(port)


def assert_divided(caller: Caller, name: str) -> None:
    """Each user has the arm of the experiment of that name; with none all have version 2."""
    for user in USERS:
        reply = caller.client.infer("m", {"x": X}, parameters={"routing_key": user})
        arm = chosen(f"m/{name}", {"v1": 1.0, "v2": 1.0}, {}, user.encode()) if name else ""
        assert reply.parameters.get("infer_variant", "") == arm
        assert reply.model_version == (arm[1:] or "2")


def test_at_its_start(experimenting: tuple[Killed, Admin]) -> None:
    killed, admin = experimenting
    names = iter(f"e{number}" for number in range(len(CHANGING)))

    def prepare(caller: Caller) -> None:
        if not admin.running():
            admin.start("")
        # Once this is kept, so are the rows of the audit log that came before.
        admin.ask("Stop", model="m")

    def check(caller: Caller, answered: bool) -> None:
        assert admin.running() or not answered
        assert_divided(caller, admin.running())

    killed.through(CHANGING, prepare, lambda caller, _: admin.start(next(names)), check)


def test_at_its_end(experimenting: tuple[Killed, Admin]) -> None:
    killed, admin = experimenting
    names = iter(f"e{number}" for number in range(len(CHANGING) + 1))

    def prepare(caller: Caller) -> None:
        if not admin.running():
            admin.start(next(names))

    def check(caller: Caller, answered: bool) -> None:
        name, ended = admin.running(), admin.ended()
        assert not name or not answered
        # It goes on, or it has ended and its report is there; never both, never neither.
        assert [*ended, *([name] if name else [])] == [f"e{number}" for number in range(len(ended) + bool(name))]
        assert_divided(caller, name)

    killed.through(CHANGING, prepare, lambda caller, _: admin.ask("Stop", model="m"), check)


def test_what_is_lost_of_its_outcomes(experimenting: tuple[Killed, Admin]) -> None:
    killed, admin = experimenting
    keys = iter(range(10_000))

    def report(caller: Caller, n: int) -> None:
        caller.client.record_outcomes([Outcome("m", "clicked", number % 2, routing_key=f"key-{number}")
                                       for _, number in zip(range(n), keys, strict=False)])

    with killed.serving("infer.state.store:Store._forget@after") as (serving, caller):
        admin.start("e")
        report(caller, 300)
        until(lambda: sum(admin.units()) == 300, admin.units)
        # They, or they and this one, are on the disk.
        killed.dies(serving, lambda: report(caller, 1))
    with killed.serving() as (_, caller):
        kept = sum(admin.units())
        assert kept in (300, 301)
        assert admin.report()["metrics"][0]["arms"][1]["effect"] is not None
        report(caller, 200)
        # A report is a look as well.
        assert sum(arm["n"] for arm in admin.report()["metrics"][0]["arms"]) == kept + 200
        report(caller, 50)
    with killed.serving() as (_, caller):
        # What came after the last look is lost at most, and what that handed over if it was not on the disk yet.
        assert sum(admin.units()) in (kept, kept + 200, kept + 250)
        assert caller.client.record_outcome("m", "clicked", 1, routing_key="one more").accepted == 1
        admin.ask("Stop", model="m", reason="enough")
    assert [row[3] for row in killed.verify() if row[0] == "experiment"] == ["start", "stop"]
