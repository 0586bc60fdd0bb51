"""Splits as an operator asks for them - by `infer split`, in infer.toml - and what is left of them after a kill -9."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infer.cli import main
from infer.models.written import written_models
from tests.support import models
from tests.support.command import Serving
from tests.support.killing import KILLED, Killed, until
from tests.support.repositories import Caller, Repository, place_version, repository_server
from tests.support.server import scrape
from tests.support.splits import chosen

ALL = "[models.m]\nversion_policy = { all = {} }\n"
USERS = [f"user-{i}" for i in range(60)]


def split(address: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["split", *arguments, "--address", address])


def asked(repository: Repository, *arguments: str) -> Result:
    admin = repository.served.server.admin
    assert admin is not None
    return split(admin.address, *arguments)


def shown(repository: Repository, model: str = "m") -> dict[str, Any]:
    result = asked(repository, "show", model, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def versions(caller: Caller, parameter: str = "routing_key") -> dict[str, str]:
    """The version that answers each user."""
    import numpy as np

    return {user: caller.client.infer("m", {"x": np.ones((1, 4), np.float32)},
                                      parameters={parameter: user}).model_version for user in USERS}


def expected(weights: dict[str, float], name: str = "split", rules: dict[str, str] | None = None) -> dict[str, str]:
    encoded = {key.encode(): arm for key, arm in (rules or {}).items()}
    return {user: chosen(f"m/{name}", weights, encoded, user.encode()) for user in USERS}


@pytest.fixture
def settings(tmp_path: Path, transport: str) -> dict[str, Any]:
    """Versions 1, 2 and 3 are served, 3 is the default."""
    for version in (1, 2, 3):
        place_version(tmp_path / "models", "m", version)
    toml = tmp_path / "infer.toml"
    toml.write_text(ALL)
    return {"toml": toml, "transport": transport, "admin_port": 0, "state_dir": tmp_path / "state"}


def test_a_split_from_its_start_to_its_end(tmp_path: Path, settings: dict[str, Any]) -> None:
    with repository_server(tmp_path / "models", **settings) as repository:
        assert "no model's traffic is divided" in asked(repository, "show").output
        assert set(versions(repository.caller).values()) == {"3"}
        begun = asked(repository, "set", "m", "--to", "1=50,2=50", "--name", "exp", "--rule", "user-3=2",
                      "--reason", "is 2 better?")
        assert begun.exit_code == 0, begun.output
        assert begun.output.splitlines()[0] == (
            "model m: split 'exp' by parameter 'routing_key', 1 rules, from infer split")
        assert versions(repository.caller) == expected({"1": 50, "2": 50}, "exp", {"user-3": "2"})
        found = shown(repository)
        assert {each["name"]: (each["to"], each["version"], each["share"], int(each["calls"]), int(each["succeeded"]))
                for each in found["variants"]} == {
            name: (name, name, 0.5, count, count) for name, count in (
                (name, list(expected({"1": 50, "2": 50}, "exp", {"user-3": "2"}).values()).count(name))
                for name in "12")}
        assert (found["rules"], found["by_rpc"], found["key"]) == ({"user-3": "2"}, True, "routing_key")

        # Weights alone: name, key and rules stay as they are, and no one moves from 2 to 1.
        before = versions(repository.caller)
        assert asked(repository, "set", "m", "--to", "1=40,2=60").exit_code == 0
        after = versions(repository.caller)
        assert after == expected({"1": 40, "2": 60}, "exp", {"user-3": "2"})
        assert not any(before[user] == "2" and after[user] == "1" for user in USERS)
        assert int(shown(repository)["variants"][0]["calls"]) > 60 / 2
        assert asked(repository, "set", "m", "--to", "new@1=40,2=60", "--no-rules", "--key", "user").exit_code == 0
        assert versions(repository.caller, "user") == {
            user: {"new": "1", "2": "2"}[arm] for user, arm in expected({"new": 40, "2": 60}, "exp").items()}

        ended = asked(repository, "clear", "m", "--reason", "it is not")
        assert (ended.exit_code, ended.output) == (0, "model m: its default version has all requests that name none\n")
        assert set(versions(repository.caller, "user").values()) == {"3"}
        assert (asked(repository, "clear", "m").exit_code, asked(repository, "show", "m").exit_code) == (1, 1)
    audit = CliRunner().invoke(main, ["audit", "--state-dir", str(tmp_path / "state")]).output
    first, *_, last = [line for line in audit.splitlines() if "split" in line]
    assert "'exp': 1 50%, 2 50%; 1 rules: is 2 better?" in first
    assert "127.0.0.1" in first
    assert "split clear" in last
    assert "it is not" in last


@pytest.mark.parametrize(("arguments", "said"), [
    (("set", "gone", "--to", "1=1"), "NOT_FOUND: model 'gone' is not known"),
    (("set", "m", "--to", "1=1,9=1"), "FAILED_PRECONDITION: variant '9' of model 'm' cannot be called: model 'm' has "
                                      "no version or label '9'; served: 1, 2, 3; its version policy"),
    (("set", "m", "--to", "1=1,gone:1=1"), "variant 'gone:1' of model 'm' cannot be called: model 'gone' is not known"),
    (("set", "m", "--to", "1=1,other:1=1"), "FAILED_PRECONDITION: variants '1' and 'other:1' of model 'm' take "
                                            "different inputs: x FP32 and x INT64"),
    (("set", "m", "--to", "1=0"), "every weight is 0"), (("set", "m", "--to", "1"), "expected [NAME@]"),
    (("set", "m", "--to", "1=1", "--rule", "a"), "rule 'a': expected KEY=VARIANT"),
    (("set", "m", "--to", "1=1", "--rule", "a=2"), "rule 'a' leads to '2', which is none of its variants: 1"),
    (("show", "gone"), "NOT_FOUND: model 'gone' has no split"),
    (("clear", "m"), "NOT_FOUND: model 'm' has no split")])
def test_what_cannot_be_is_refused_and_changes_nothing(
        tmp_path: Path, settings: dict[str, Any], arguments: tuple[str, ...], said: str) -> None:
    models.write_version(tmp_path / "models", "other", 1, models.slow(1))
    with repository_server(tmp_path / "models", **settings) as repository:
        refused = asked(repository, *arguments)
        assert refused.exit_code != 0
        assert said in refused.output.replace("\n", " ")
        assert repository.served.server.splits.plans == {}


def test_what_is_asked_for_stands_over_the_settings_and_outlives_a_restart(
        tmp_path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    settings["toml"].write_text(ALL + "[models.m.split]\nto = { 1 = 50, 2 = 50 }\nname = 'exp'\n")
    with repository_server(tmp_path / "models", **settings) as repository:
        server = repository.served.server

        def read_again(text: str) -> None:
            settings["toml"].write_text(ALL + text)
            written = written_models(None, settings["toml"])
            repository.served.look(lambda: server.set_written(written.models))

        assert versions(repository.caller) == expected({"1": 50, "2": 50}, "exp")
        assert shown(repository)["by_rpc"] is False
        read_again("[models.m.split]\nto = { 1 = 20, 2 = 80 }\nname = 'exp'\n")
        assert versions(repository.caller) == expected({"1": 20, "2": 80}, "exp")
        read_again("")
        assert set(versions(repository.caller).values()) == {"3"}
        assert asked(repository, "set", "m", "--to", "1=70,3=30").exit_code == 0
        read_again("[models.m.split]\nto = { 1 = 20, 2 = 80 }\n")
        assert "what the settings say of its split does not count" in caplog.text
        assert versions(repository.caller) == expected({"1": 70, "3": 30})
    for _ in range(2):
        with repository_server(tmp_path / "models", **settings) as repository:
            assert versions(repository.caller) == expected({"1": 70, "3": 30})
    with repository_server(tmp_path / "models", **settings) as repository:
        assert asked(repository, "clear", "m").exit_code == 0
    with repository_server(tmp_path / "models", **settings) as repository:
        assert set(versions(repository.caller).values()) == {"3"}


def test_a_version_that_goes_leaves_its_share_to_the_default(tmp_path: Path, settings: dict[str, Any]) -> None:
    root = tmp_path / "models"
    with repository_server(root, **settings) as repository:
        assert asked(repository, "set", "m", "--to", "1=50,2=50").exit_code == 0
        shutil.rmtree(root / "m" / "1")
        repository.until_state(None, "1")
        assert versions(repository.caller) == {
            user: "3" if arm == "1" else arm for user, arm in expected({"1": 50, "2": 50}).items()}
        one, two = shown(repository)["variants"]
        assert (one["version"], two["version"]) == ("", "2")
        assert "has no version or label '1'" in one["problem"]
        assert "gets none of its share: model 'm' has no version" in asked(repository, "show", "m").output
        place_version(root, "m", 1)
        repository.until_state("READY", "1")
        assert versions(repository.caller) == expected({"1": 50, "2": 50})


def test_what_is_written_while_a_rollout_divides_the_requests(tmp_path: Path, settings: dict[str, Any]) -> None:
    with repository_server(tmp_path / "models", **settings) as repository:
        server = repository.served.server
        repository.served.run(lambda: server.rollouts.controller.start("m", to=3, baseline=2, who="a test"))
        settings["toml"].write_text(ALL + "[models.m.split]\nto = { 1 = 20, 2 = 80 }\n")
        written = written_models(None, settings["toml"])
        repository.served.look(lambda: server.set_written(written.models))
        refused = asked(repository, "set", "m", "--to", "1=1")
        assert "model 'm' has a rollout to version 3, which divides its requests; end that first" in refused.output
        shown_now = shown(repository)
        assert [int(each["calls"]) for each in shown_now["variants"]] == [0, 0]
        assert "has a rollout to version 3" in shown_now["variants"][0]["problem"]


# kill -9.

POINTS = (
    "infer.traffic.splits:Splits.ask@before",
    "infer.state.store:Store.save@before",
    "infer.state.store:Store.save@after",                   # on its way to the disk
    "infer.state.store:Store._forget@before",               # on the disk, and not applied
    "infer.lifecycle:Models.set_split@before",
    "infer.lifecycle:Models.set_split@after",               # applied, and not answered
)


def address_of(serving: Serving) -> str:
    return serving.wait_for(r"^admin +(\S+)")[1]


@pytest.mark.parametrize("point", POINTS)
def test_a_server_that_is_killed_while_a_split_changes(tmp_path: Path, point: str) -> None:
    killed = Killed(tmp_path, "--admin-port", "0")
    for version in (1, 2):
        place_version(killed.root, "m", version)
    (tmp_path / "infer.toml").write_text(ALL)
    old, new = expected({"1": 90, "2": 10}), expected({"1": 40, "2": 60})
    with killed.serving() as (serving, caller):
        assert split(address_of(serving), "set", "m", "--to", "1=90,2=10").exit_code == 0
        assert versions(caller) == old
        serving.process.send_signal(signal.SIGKILL)
        assert serving.wait() == KILLED
    with killed.serving(point) as (serving, caller):
        assert versions(caller) == old
        # Loads have called the store as well: what they gave it is written, and from now on it counts.
        until(lambda: scrape(serving.http)["infer_state_waiting", frozenset()] == 0, lambda: serving.output)
        killed.arm()
        answered = split(address_of(serving), "set", "m", "--to", "1=40,2=60").exit_code == 0
        assert serving.wait() == KILLED, serving.output
    assert not answered
    with killed.serving() as (serving, caller):
        found = versions(caller)
        assert found in (old, new)
        if "_forget" in point or "set_split" in point:
            assert found == new     # it was on the disk
        elif "before" in point:
            assert found == old
    killed.verify()
