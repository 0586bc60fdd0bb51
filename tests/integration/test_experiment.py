"""Experiments as an operator begins and ends them, as clients report to them, and what a restart leaves of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from infer.cli import main
from infer.client import InferError, Outcome
from tests.support.pages import read_page
from tests.support.repositories import Repository, place_version, repository_server
from tests.support.server import scrape
from tests.support.splits import chosen

ALL = "[models.m]\nversion_policy = { all = {} }\n"
WEIGHTS = {"control": 1.0, "new": 1.0}
USERS = [f"user-{i}" for i in range(300)]
X = np.ones((1, 4), np.float32)
START = ("start", "m", "--arms", "control=1,new=2", "--metric", "clicked:rate", "--metric", "spend:mean:0..100",
         "--name", "e")


def asked(address: str, *arguments: str, verb: str = "experiment") -> Result:
    return CliRunner().invoke(main, [verb, *arguments, "--address", address])


def admin_of(repository: Repository) -> str:
    admin = repository.served.server.admin
    assert admin is not None
    address: str = admin.address
    return address


def reported(repository: Repository, *arguments: str) -> dict[str, Any]:
    result = asked(admin_of(repository), "report", "m", "--json", *arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def arm_of(user: str, name: str = "e") -> str:
    return chosen(f"m/{name}", WEIGHTS, {}, user.encode())


@pytest.fixture
def settings(tmp_path: Path, transport: str) -> dict[str, Any]:
    for version in (1, 2, 3):
        place_version(tmp_path / "models", "m", version)
    toml = tmp_path / "infer.toml"
    toml.write_text(ALL)
    return {"toml": toml, "transport": transport, "admin_port": 0, "state_dir": tmp_path / "state"}


def test_from_its_start_to_its_end(tmp_path: Path, settings: dict[str, Any]) -> None:
    with repository_server(tmp_path / "models", **settings) as repository:
        address, client = admin_of(repository), repository.caller.client
        assert "no experiment is under way" in asked(address, "status").output
        begun = asked(address, *START, "--window", "10m", "--min-effect", "0.3", "--guardrail", "p50=off",
                      "--guardrail", "p99=off", "--reason", "is 2 better?")
        assert begun.exit_code == 0, begun.output
        assert begun.output.splitlines()[1].split()[:5] == ["m", "e", "running", "control=1,new=2", "0,0"]
        for user in USERS:
            result = client.infer("m", {"x": X}, request_id=f"id of {user}", parameters={"routing_key": user})
            assert result.parameters["infer_variant"] == arm_of(user)
        good = {"control": 0.2, "new": 0.9}
        clicked = {user: float(number % 10 < 10 * good[arm_of(user)]) for number, user in enumerate(USERS)}
        # Half of them by their requests, half by their keys, and all of them once more.
        one = [Outcome("m", "clicked", clicked[user], request_id=f"id of {user}") for user in USERS[::2]]
        other = [Outcome("m", "clicked", clicked[user], routing_key=user) for user in USERS[1::2]]
        assert client.record_outcomes(one).accepted == len(one)
        repository.served.look(repository.served.server.experiments.experiments.step)
        assert client.record_outcomes(other).accepted == len(other)
        assert client.record_outcomes([*one, *other]).duplicates == len(USERS)
        assert client.record_outcome("m", "spend", 12.5, routing_key=USERS[0]).accepted == 1
        assert client.record_outcome("m", "spend", 12.5, request_id="never").unknown == 1

        report = reported(repository)
        arms = {arm["name"]: arm for arm in report["metrics"][0]["arms"]}
        for name in WEIGHTS:
            of = [clicked[user] for user in USERS if arm_of(user) == name]
            assert (arms[name]["n"], arms[name]["mean"]) == (len(of), pytest.approx(sum(of) / len(of)))
        assert (report["decision"]["result"], report["decision"]["winner"]) == ("winner", "new")
        assert [arm["calls"] for arm in report["arms"]] == [arms[name]["n"] for name in WEIGHTS]
        assert report["arms"][0]["p50_ms"] > 0
        assert report["outcomes"] == {"accepted": 301, "duplicate": 300, "unknown": 1}
        assert (report["window_s"], report["min_effect"], report["reason"]) == (600.0, 0.3, "is 2 better?")
        page = tmp_path / "report.html"
        written = asked(address, "report", "m", "--html", str(page))
        assert (written.exit_code, written.output) == (0, f"written to {page}\n")
        assert "Decision: winner: new" in read_page(page.read_text()).text
        text = asked(address, "report", "m").output
        assert "decision: winner: new" in text
        assert "rate clicked, higher is better, the one that decides" in text
        assert "outcomes: 301 accepted, 300 duplicate, 1 unknown" in text
        status = json.loads(asked(address, "status", "m", "--json").output)
        assert (status["decision"], status["winner"], [int(arm["units"]) for arm in status["arms"]]) == (
            "winner", "new", report["sample_ratio"]["units"])
        found = scrape(repository.served.http_address)
        assert found["infer_experiment_decision", frozenset(
            {"model": "m", "experiment": "e", "decision": "winner"}.items())] == 1

        ended = asked(address, "stop", "m", "--reason", "it is")
        assert "decision: winner: new" in ended.output
        assert client.infer("m", {"x": X}).model_version == "3"
        with pytest.raises(InferError, match="nobody counts its outcomes"):
            client.record_outcome("m", "clicked", 1, routing_key="a")
        [past] = [json.loads(line) for line in asked(address, "history", "m", "--json").output.splitlines()]
        assert (past["name"], past["decision"], past["winner"]) == ("e", "winner", "new")
        assert "it is" not in asked(address, "status").output
        assert reported(repository, "--name", "e")["state"] == "stopped"
    audit = CliRunner().invoke(main, ["audit", "--state-dir", str(tmp_path / "state")]).output
    first, last = [line for line in audit.splitlines() if "experiment" in line]
    assert "e: 'e': control (1) 50%, new (2) 50%: is 2 better?" in first
    assert "e: winner: it is" in last


def test_who_divides_a_model_has_it_alone(tmp_path: Path, settings: dict[str, Any]) -> None:
    with repository_server(tmp_path / "models", **settings) as repository:
        address = admin_of(repository)
        assert asked(address, "set", "m", "--to", "1=1,2=1", verb="split").exit_code == 0
        refused = asked(address, *START)
        assert refused.exit_code == 1
        assert "FAILED_PRECONDITION: model 'm' has split 'split', which divides its requests; end" in refused.output
        assert asked(address, "clear", "m", verb="split").exit_code == 0
        assert asked(address, *START).exit_code == 0
        for verb, arguments in (("split", ("set", "m", "--to", "1=1")), ("rollout", ("start", "m", "--to", "2"))):
            refused = asked(address, *arguments, verb=verb)
            assert refused.exit_code == 1
            assert "experiment 'e'" in refused.output, verb
        assert asked(address, "stop", "m").exit_code == 0
        assert asked(address, "start", "m", "--from", "1", "--to", "2", "--guardrail", "p50=off",
                     verb="rollout").exit_code == 0
        refused = asked(address, *START[:-1], "f")
        assert "has a rollout to version 2, which divides its requests" in refused.output
        assert asked(address, "abort", "m", verb="rollout").exit_code == 0


@pytest.mark.parametrize(("arguments", "status", "said"), [
    (("start", "gone", *START[2:]), 1, "NOT_FOUND: model 'gone' is not known"),
    (("start", "m", "--arms", "a=1,b=9", "--metric", "c:rate"), 1, "variant 'b' of model 'm' cannot be called"),
    (("start", "m", "--arms", "a=1,b=2", "--metric", "c"), 2, "INVALID_ARGUMENT: metric 'c': expected NAME:rate"),
    (("start", "m", "--arms", "a=1,b=2", "--metric", "c:rate", "--guardrail", "drift=0.1"), 2, "guardrail 'drift'"),
    (("start", "m", "--arms", "a=1,b=2", "--metric", "c:rate", "--alpha", "2"), 2, "alpha: expected 1e-6 to 0.5"),
    (("start", "m", "--arms", "a=1", "--metric", "c:rate"), 2, "arms: expected 2 to 8"),
    (("start", "m", "--arms", "a", "--metric", "c:rate"), 2, "arms 'a': expected NAME=VERSION"),
    (("start", "m", "--arms", "a=1,b=2", "--metric", "c:rate", "--window", "soon"), 2, "time 'soon'"),
    (("stop", "m"), 1, "no experiment under way"), (("report", "m"), 1, "has had no experiment"),
])
def test_what_cannot_be_is_refused(tmp_path: Path, settings: dict[str, Any], arguments: tuple[str, ...], status: int,
                                   said: str) -> None:
    with repository_server(tmp_path / "models", **settings) as repository:
        result = asked(admin_of(repository), *arguments)
        assert result.exit_code == status, result.output
        assert said in " ".join(result.output.split())
        assert repository.caller.answer("m") == ("3", 3.0)


def test_it_outlives_a_restart(tmp_path: Path, settings: dict[str, Any]) -> None:
    with repository_server(tmp_path / "models", **settings) as repository:
        assert asked(admin_of(repository), *START).exit_code == 0
        client = repository.caller.client
        client.record_outcomes([Outcome("m", "clicked", number % 2, routing_key=user)
                                for number, user in enumerate(USERS)])
        client.infer("m", {"x": X}, request_id="before", parameters={"routing_key": "alice"})
        before = reported(repository)
    with repository_server(tmp_path / "models", **settings) as repository:
        client = repository.caller.client
        after = reported(repository)
        assert (after["metrics"], after["started"]) == (before["metrics"], before["started"])
        for user in USERS[:20]:
            reply = client.infer("m", {"x": X}, parameters={"routing_key": user})
            assert reply.parameters["infer_variant"] == arm_of(user)
        # What was remembered has gone with the server; keys are found all the same.
        assert client.record_outcome("m", "clicked", 1, request_id="before").unknown == 1
        assert client.record_outcome("m", "clicked", 1, routing_key="alice").accepted == 1
        assert asked(admin_of(repository), "stop", "m").exit_code == 0
    with repository_server(tmp_path / "models", **settings) as repository:
        assert reported(repository)["state"] == "stopped"
        assert repository.caller.answer("m") == ("3", 3.0)
