"""Shadows of a whole server, on both transports: asked for by RPC or written down, while versions come and go."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from infer.cli import main
from infer.models.written import written_models
from tests.support import models
from tests.support.repositories import Repository, place_version, repository_server
from tests.support.server import scrape

# A minute and longer.
ENDLESS = 6_000_000
ALL = "[models.m]\nversion_policy = { all = {} }\n"


def shadow(repository: Repository, *arguments: str) -> Result:
    admin = repository.served.server.admin
    assert admin is not None
    return CliRunner().invoke(main, ["shadow", *arguments, "--address", admin.address])


def report(repository: Repository, model: str = "m") -> dict[str, Any]:
    shown = shadow(repository, "report", model, "--json")
    assert shown.exit_code == 0, shown.output
    found: dict[str, Any] = json.loads(shown.output)
    return found


def settled(repository: Repository) -> dict[str, Any]:
    """Once nothing waits and the lane has nothing."""
    pool = repository.served.server.shadows.pool
    repository.served.until(lambda: pool.bytes == 0)
    return report(repository)


def counts(found: dict[str, Any]) -> dict[str, int]:
    """JSON has 64-bit numbers as text."""
    return {name: int(found[name]) for name in ("picked", "agreed", "differed", "failed", "waiting")}


@pytest.fixture
def settings(tmp_path: Path, transport: str) -> dict[str, Any]:
    """Versions 1 (x 2), 2 (x 3) and 3 (x 2) are served, 3 is the default."""
    for version, factor in ((1, 2.0), (2, 3.0), (3, 2.0)):
        place_version(tmp_path / "models", "m", version, factor)
    toml = tmp_path / "infer.toml"
    toml.write_text(ALL)
    return {"toml": toml, "transport": transport, "admin_port": 0, "state_dir": tmp_path / "state"}


def test_a_shadow_from_its_start_to_its_report(tmp_path: Path, settings: dict[str, Any]) -> None:
    with repository_server(tmp_path / "models", **settings) as repository:
        for _ in range(3):
            repository.answer("m")
        assert "no model has a shadow" in shadow(repository, "report").output
        started = shadow(repository, "start", "m", "--to", "1", "--reason", "is 1 as good?")
        assert (started.exit_code, started.output) == (0, "model m version 1 has copies of 100% of the requests\n")
        entries = {each.version: each for each in repository.served.server.versions()}
        for _ in range(20):
            assert repository.answer("m") == ("3", 2.0)
        found = settled(repository)
        assert counts(found) == {"picked": 20, "agreed": 20, "differed": 0, "failed": 0, "waiting": 0}
        assert entries["3"].stats_snapshot((), ())["calls"][0] == 23
        assert sum(entries["1"].stats_snapshot((), ())["calls"]) == 0

        # Another target: what is counted is what that one came to.
        assert shadow(repository, "start", "m", "--to", "2").exit_code == 0
        for _ in range(10):
            repository.answer("m")
        found = settled(repository)
        assert counts(found) == {"picked": 10, "agreed": 0, "differed": 10, "failed": 0, "waiting": 0}
        [output] = found["outputs"]
        assert (output["name"], output["max_rel"]) == ("y", pytest.approx(1 / 3))
        assert len(found["worst"]) == 8

        shown = shadow(repository, "report")
        lines = shown.output.splitlines()
        assert lines[0] == "model m: 100% of requests to version 2"
        assert lines[1] == "10 picked: 0 agreed, 10 differed, 0 failed, 0 dropped, 0 waiting"
        assert lines[2].split()[:3] == ["OUTPUT", "COMPARED", "DIFFERING"]
        assert lines[4].startswith("apart by 0.333333: request")

        samples = scrape(repository.served.http_address)
        labels = {"model": "m", "version": "2"}
        assert samples["infer_shadow_copies_total", frozenset({**labels, "outcome": "differed"}.items())] == 10
        assert samples["infer_shadow_waiting", frozenset(labels.items())] == 0
        assert samples["infer_shadow_bytes", frozenset()] == 0

        stopped = shadow(repository, "stop", "m", "--reason", "it is not")
        assert stopped.exit_code == 0
        assert "10 differed" in stopped.output
        repository.answer("m")
        assert repository.served.server.shadows.running == {}
        refused = shadow(repository, "stop", "m")
        assert (refused.exit_code, "model 'm' has no shadow" in refused.output) == (1, True)
    audit = CliRunner().invoke(main, ["audit", "--state-dir", str(tmp_path / "state")]).output
    [begun, _, ended] = [line for line in audit.splitlines() if "shadow" in line]
    assert "is 1 as good?" in begun
    assert "127.0.0.1" in begun
    assert "it is not" in ended


def test_what_was_asked_for_outlives_a_restart_and_stands_over_the_settings(
        tmp_path: Path, settings: dict[str, Any]) -> None:
    settings["toml"].write_text(ALL + "[models.m.shadow]\nto = \"2\"\nfraction = 0.5\n")
    with repository_server(tmp_path / "models", **settings) as repository:
        found = report(repository)
        assert (found["version"], found["fraction"], found["by_rpc"]) == ("2", 0.5, False)
        assert shadow(repository, "start", "m", "--to", "1", "--fraction", "0.25", "--rtol", "0.1").exit_code == 0
    with repository_server(tmp_path / "models", **settings) as repository:
        found = report(repository)
        assert (found["version"], found["fraction"], found["rtol"], found["by_rpc"]) == ("1", 0.25, 0.1, True)
        assert shadow(repository, "stop", "m").exit_code == 0
    with repository_server(tmp_path / "models", **settings) as repository:
        assert "no model has a shadow" in shadow(repository, "report").output


def test_a_shadow_goes_and_comes_with_its_version(tmp_path: Path, settings: dict[str, Any]) -> None:
    root = tmp_path / "models"
    with repository_server(root, **settings) as repository:
        assert shadow(repository, "start", "m", "--to", "1").exit_code == 0
        for _ in range(5):
            repository.answer("m")
        shutil.rmtree(root / "m" / "1")
        repository.until_state(None, "1")
        found = report(repository)
        assert found["version"] == ""
        assert found["problem"] == ("it has no version or label '1' that is served; served: 2, 3; its version policy "
                                    "says which versions are")
        assert "which is not running: it has no version" in shadow(repository, "report", "m").output
        repository.answer("m")
        place_version(root, "m", 1, 2.0)
        repository.until_state("READY", "1")
        repository.answer("m")
        assert counts(settled(repository))["agreed"] == 1
        # One more primary.
        place_version(root, "m", 4, 2.0)
        repository.until_answer(("4", 2.0))
        before = counts(settled(repository))["picked"]
        repository.answer("m")
        assert counts(settled(repository))["picked"] == before + 1


def test_replies_of_a_split_are_compared_too(tmp_path: Path, settings: dict[str, Any]) -> None:
    settings["toml"].write_text(ALL + "[models.m.split]\nto = { \"2\" = 1, \"3\" = 1 }\n"
                                "[models.m.shadow]\nto = \"1\"\n")
    with repository_server(tmp_path / "models", **settings) as repository:
        answered = [repository.answer("m")[0] for _ in range(40)]
        found = counts(settled(repository))
        assert (found["picked"], found["failed"]) == (40, 0)
        # Version 2 is the one whose answers are others.
        assert (found["agreed"], found["differed"]) == (answered.count("3"), answered.count("2"))
        assert {*answered} == {"2", "3"}


def test_the_settings_are_read_again(tmp_path: Path, settings: dict[str, Any]) -> None:
    with repository_server(tmp_path / "models", **settings) as repository:
        server = repository.served.server
        for text, expected in (("[models.m.shadow]\nto = 2\n", {"m": "2"}), ("", {})):
            settings["toml"].write_text(ALL + text)
            written = written_models(None, settings["toml"])
            repository.served.look(lambda written=written: server.set_written(written.models))
            assert {model: each.target.version for model, each in server.shadows.running.items()} == expected
        repository.looked()


@pytest.mark.parametrize(("arguments", "said"), [
    (("start", "gone", "--to", "1"), "NOT_FOUND: model 'gone' is not known"),
    (("start", "m", "--to", "a b"), "INVALID_ARGUMENT: to: expected a version or a label, got 'a b'"),
    (("start", "m", "--to", "1", "--fraction", "0"), "0<x<=1"),
    (("report", "gone"), "NOT_FOUND: model 'gone' has no shadow"),
])
def test_what_cannot_be_is_refused(tmp_path: Path, settings: dict[str, Any], arguments: tuple[str, ...],
                                   said: str) -> None:
    with repository_server(tmp_path / "models", **settings) as repository:
        refused = shadow(repository, *arguments)
        assert refused.exit_code != 0
        assert said in refused.output
        waiting = shadow(repository, "start", "m", "--to", "9")
        assert waiting.exit_code == 0
        assert "kept, but not running: it has no version or label '9'" in waiting.output


def test_a_shadow_that_cannot_keep_up_loses_copies_and_holds_nobody_up(tmp_path: Path, transport: str) -> None:
    root = tmp_path / "models"
    for version, most in ((1, ENDLESS), (2, 0)):
        models.write_version(root, "m", version, models.slow(most))
    toml = tmp_path / "infer.toml"
    toml.write_text(ALL + "[models.m.shadow]\nto = \"1\"\n")
    with repository_server(root, toml=toml, transport=transport, admin_port=0, max_shadow_copies=3) as repository:
        pool = repository.served.server.shadows.pool

        def call() -> None:
            reply = repository.client.infer("m", {"x": np.full((1, 1), ENDLESS, np.int64)})
            assert (reply.model_version, int(reply["y"][0, 0])) == ("2", ENDLESS)

        call()
        repository.served.until(lambda: pool.bytes > 0 and pool.copies == 0)
        for _ in range(9):
            call()
        found = report(repository)
        assert counts(found) == {"picked": 10, "agreed": 0, "differed": 0, "failed": 0, "waiting": 3}
        assert found["dropped"] == {"copies": "6"}
        assert "6 for want of room" in shadow(repository, "report").output
        # The run would take minutes.
        shutil.rmtree(root / "m" / "1")
        repository.until_state(None, "1")
        assert pool.bytes == 0
        call()
