"""Experiments that infer.toml asks for: they begin by themselves and once, whatever becomes of the server."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bench.targets import free_port
from infer.cli import main
from infer.models.written import written_models
from tests.integration.test_experiment_kill import CHANGING, Admin
from tests.support.killing import Killed, until
from tests.support.repositories import Caller, Repository, place_version, repository_server
from tests.support.splits import chosen

ALL = "[models.m]\nversion_policy = { all = {} }\n"
TABLE = """
[models.m.experiment]
name = "e"
arms = { control = 1, new = 2 }
weights = [1, 3]
metrics = ["clicked:rate"]
window = "10m"
"""
WEIGHTS = {"control": 1.0, "new": 3.0}
USERS = [f"user-{i}" for i in range(40)]
X = np.ones((1, 4), np.float32)


@pytest.fixture
def settings(tmp_path: Path, transport: str) -> dict[str, Any]:
    for version in (1, 2, 3):
        place_version(tmp_path / "models", "m", version)
    toml = tmp_path / "infer.toml"
    toml.write_text(ALL + TABLE)
    return {"toml": toml, "transport": transport, "admin_port": 0, "state_dir": tmp_path / "state"}


def asked(repository: Repository, *arguments: str, verb: str = "experiment") -> Result:
    admin = repository.served.server.admin
    assert admin is not None
    return CliRunner().invoke(main, [verb, *arguments, "--address", admin.address])


def names(repository: Repository, verb: str = "status") -> list[str]:
    return [json.loads(line)["name"] for line in asked(repository, verb, "m", "--json").output.splitlines()]


def looked(repository: Repository) -> None:
    """Once all that is written has begun that can."""
    experiments = repository.served.server.experiments.experiments
    repository.served.look(experiments.step)
    repository.served.run(experiments.settled)


def read_again(repository: Repository, toml: Path, text: str) -> None:
    toml.write_text(ALL + text)
    written = written_models(None, toml)
    assert not written.problems
    repository.served.look(lambda: repository.served.server.set_written(written.models))
    looked(repository)


def assert_divided(caller: Caller, name: str) -> None:
    """Each user has the arm of the experiment of that name; with none all have version 3."""
    for user in USERS:
        reply = caller.client.infer("m", {"x": X}, parameters={"routing_key": user})
        arm = chosen(f"m/{name}", WEIGHTS, {}, user.encode()) if name else ""
        assert reply.parameters.get("infer_variant", "") == arm
        assert reply.model_version == ({"control": "1", "new": "2"}[arm] if arm else "3")


def test_it_begins_once(tmp_path: Path, settings: dict[str, Any]) -> None:
    with repository_server(tmp_path / "models", **settings) as repository:
        looked(repository)
        assert_divided(repository.caller, "e")
        report = json.loads(asked(repository, "report", "m", "--json").output)
        assert (report["experiment"], report["who"], report["window_s"]) == ("e", "settings", 600.0)
        started = report["started"]
    with repository_server(tmp_path / "models", **settings) as repository:
        looked(repository)
        assert_divided(repository.caller, "e")
        assert json.loads(asked(repository, "report", "m", "--json").output)["started"] == started
        read_again(repository, settings["toml"], "")
        assert names(repository) == ["e"]
        read_again(repository, settings["toml"], TABLE)
        assert asked(repository, "stop", "m", "--reason", "enough").exit_code == 0
        read_again(repository, settings["toml"], TABLE + "alpha = 0.01\n")
        assert (names(repository), names(repository, "history")) == ([], ["e"])
    with repository_server(tmp_path / "models", **settings) as repository:
        looked(repository)
        assert_divided(repository.caller, "")
        read_again(repository, settings["toml"], TABLE.replace('"e"', '"f"'))
        assert_divided(repository.caller, "f")
    audit = CliRunner().invoke(main, ["audit", "--state-dir", str(tmp_path / "state")]).output
    first, last, again = [line for line in audit.splitlines() if " experiment " in line]
    assert "e: 'e': control (1) 25%, new (2) 75%: the settings ask for it" in first
    assert " settings " in first
    assert "enough" in last
    assert "f: 'f'" in again


@pytest.mark.parametrize(("begin", "end", "said"), [
    ("split set m --to 1=1,2=1", "clear", "has split 'split'"),
    ("rollout start m --from 1 --to 2", "abort", "has a rollout to version 2"),
    ("experiment start m --arms a=1,b=3 --metric c:rate --name theirs", "stop", "has experiment 'theirs'"),
])
def test_it_disturbs_nobody(tmp_path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture, *,
                            begin: str, end: str, said: str) -> None:
    verb, *arguments = begin.split()
    settings["toml"].write_text(ALL)
    with repository_server(tmp_path / "models", **settings) as repository:
        assert asked(repository, *arguments, verb=verb).exit_code == 0
        read_again(repository, settings["toml"], TABLE)
        looked(repository)
        assert "e" not in names(repository)
        assert caplog.text.count(f"experiment 'e', which the settings ask for, has not begun: model 'm' {said}") == 1
        assert asked(repository, end, "m", verb=verb).exit_code == 0
        looked(repository)
        assert names(repository) == ["e"]


def test_it_waits_for_a_version(tmp_path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    settings["toml"].write_text(ALL + TABLE.replace("new = 2", "new = 4"))
    with repository_server(tmp_path / "models", **settings) as repository:
        looked(repository)
        assert names(repository) == []
        assert "has not begun: variant 'new' of model 'm' cannot be called" in caplog.text
        place_version(tmp_path / "models", "m", 4)
        repository.until_state("READY", "4")
        looked(repository)
        assert names(repository) == ["e"]


def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    place_version(tmp_path / "models", "m", 1)
    toml = tmp_path / "infer.toml"
    for table, said in ((TABLE.replace("window", "windw"), "'windw' is no setting of an experiment"),
                        (TABLE.replace("clicked:rate", "clicked"), "metric 'clicked': expected NAME:rate")):
        toml.write_text(ALL + table)
        found = CliRunner().invoke(main, ["check", str(tmp_path / "models"), "--config", str(toml)])
        assert found.exit_code == 1, found.output
        assert f"{toml}:4:1: experiment: {said}" in found.output


# kill -9.

@pytest.fixture
def experimenting(tmp_path: Path) -> tuple[Killed, Admin]:
    for version in (1, 2, 3):
        place_version(tmp_path / "models", "m", version)
    (tmp_path / "infer.toml").write_text(ALL)
    port = free_port()
    return Killed(tmp_path, "--admin-port", port), Admin(port)


def test_killed_at_its_start(experimenting: tuple[Killed, Admin]) -> None:
    killed, admin = experimenting
    name = ""

    def prepare(caller: Caller) -> None:
        nonlocal name
        if name:
            admin.ask("Stop", model="m")
        name = f"e{len(admin.ended())}"
        (killed.folder / "infer.toml").write_text(ALL + TABLE.replace('"e"', f'"{name}"'))

    def check(caller: Caller, _: bool) -> None:
        until(lambda: admin.running() == name, admin.running)
        assert_divided(caller, name)

    killed.through(CHANGING, prepare, lambda _, serving: serving.process.send_signal(signal.SIGHUP), check)


def test_killed_when_it_is_stopped(experimenting: tuple[Killed, Admin]) -> None:
    killed, admin = experimenting
    name = ""

    def prepare(caller: Caller) -> None:
        nonlocal name
        if not admin.running():
            name = f"e{len(admin.ended())}"
            # For the servers that come.
            (killed.folder / "infer.toml").write_text(ALL + TABLE.replace('"e"', f'"{name}"'))
            admin.start(name)

    def check(caller: Caller, answered: bool) -> None:
        ended, running = admin.ended(), admin.running()
        assert not running or not answered
        assert [*ended, *([running] if running else [])] == [f"e{number}" for number in range(int(name[1:]) + 1)]

    killed.through(CHANGING, prepare, lambda *_: admin.ask("Stop", model="m"), check)
