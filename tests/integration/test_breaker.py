"""A version that starts to fail, as clients of a server meet it: what answers instead, and how it comes back."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from infer.client import InferError
from infer.proto import message
from tests.support import models
from tests.support.calls import HEALTH_CHECK, SERVICE
from tests.support.repositories import Caller, Repository, calling, repository_server
from tests.support.server import scrape

OPEN_MS = 300
BREAKER = """
[models.m]
version_policy = { latest = 2 }

[models.m.breaker]
fallback = "%s"
min_calls = 4
window = "10s"
open_for = "%dms"
probes = 2
"""


def write_toml(path: Path, fallback: str, more: str = "", open_ms: int = OPEN_MS) -> Path:
    path.write_text(BREAKER % (fallback, open_ms) + more)
    return path


def infer(repository: Repository, value: float, version: str = "") -> tuple[str, str, float]:
    """The version that answers, how the reply is marked, by how much it multiplies."""
    reply = repository.client.infer("m", {"x": np.full((1, 4), value, np.float32)}, version=version)
    return reply.model_version, str(reply.parameters.get("infer_fallback", "")), float(reply["y"].flat[0]) / value


def break_it(repository: Repository) -> None:
    entry = next(each for each in repository.served.server.versions() if (each.name, each.version) == (b"m", "2"))
    while entry.guard.state != "open":
        with pytest.raises(InferError) as caught:
            infer(repository, models.FRAGILE)
        assert caught.value.status == "INTERNAL"


def ready(repository: Repository, version: str = "") -> tuple[bool, bool]:
    """By ModelReady and by the health service."""
    request = message("inference.ModelReadyRequest")(name="m", version=version)
    reply = repository.client.call(f"{SERVICE}ModelReady", request.SerializeToString())
    check = message("grpc.health.v1.HealthCheckRequest")(service=f"m/{version}" if version else "m")
    health = repository.client.call(HEALTH_CHECK, check.SerializeToString())
    return (message("inference.ModelReadyResponse").FromString(reply).ready,
            message("grpc.health.v1.HealthCheckResponse").FromString(health).status == 1)


def metric(repository: Repository, name: str, **labels: str) -> float:
    return scrape(repository.served.http_address)[name, frozenset({"model": "m", **labels}.items())]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    for version in (1, 2):
        models.write_version(root, "m", version, models.fragile(float(version)))
    return root


def test_show_7_the_version_below_answers_until_it_is_well(
        root: Path, tmp_path: Path, transport: str, caplog: pytest.LogCaptureFixture) -> None:
    toml = write_toml(tmp_path / "infer.toml", "previous")
    caplog.set_level("INFO", "infer.models")
    with repository_server(root, toml=toml, transport=transport) as repository:
        assert infer(repository, 1.0) == ("2", "", 2.0)
        assert metric(repository, "infer_breaker_state", version="2") == 0
        break_it(repository)
        assert infer(repository, 1.0) == ("1", "previous", 1.0)
        assert (metric(repository, "infer_breaker_state", version="2"),
                metric(repository, "infer_breaker_opened_total", version="2")) == (2, 1)
        assert metric(repository, "infer_fallback_answers_total", version="2", fallback="previous") == 1
        with pytest.raises(InferError, match="model 'm' version 2 is not called for now") as caught:
            infer(repository, 1.0, "2")
        assert caught.value.status == "UNAVAILABLE"
        assert (ready(repository), ready(repository, "2"), ready(repository, "1")) == (
            (True, True), (False, False), (True, True))
        assert repository.served.server.ready
        repository.until(lambda: infer(repository, 1.0) == ("2", "", 2.0))
        repository.until(lambda: infer(repository, 1.0) == ("2", "", 2.0)
                         and metric(repository, "infer_breaker_state", version="2") == 0)
        assert ready(repository, "2") == (True, True)
    told = [record.getMessage() for record in caplog.records if getattr(record, "breaker", "")]
    assert told[0].startswith("model 'm' version 2 is not called for now: 3 of its last 4 calls failed; it is tried")
    assert told[1:] == ["model 'm' version 2 is tried again", "model 'm' version 2 is called again: it went well"]


def test_show_7_under_load(tmp_path: Path, transport: str) -> None:
    """Version 2 begins to fail on what its callers send, version 1 does not: within a window it is out of use."""
    root = tmp_path / "models"
    models.write_version(root, "m", 1, models.scale(1.0))
    models.write_version(root, "m", 2, models.fragile(2.0))
    toml = write_toml(tmp_path / "infer.toml", "previous")
    value, answers, failures = 1.0, list[tuple[str, str]](), list[str]()
    stop = threading.Event()

    def work(address: str) -> None:
        with contextlib.closing(Caller(address).client) as client:
            while not stop.is_set():
                try:
                    reply = client.infer("m", {"x": np.full((1, 4), value, np.float32)})
                except InferError as error:
                    failures.append(error.status)
                else:
                    answers.append((reply.model_version, str(reply.parameters.get("infer_fallback", ""))))

    def answered(by: tuple[str, str]) -> None:
        """From now on, by nobody else for a while."""
        repository.until(lambda: len(answers) > 20 and set(answers[-20:]) == {by})

    with repository_server(root, toml=toml, transport=transport) as repository:
        threads = [threading.Thread(target=work, args=(repository.served.address,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            answered(("2", ""))
            assert failures == []
            value = models.FRAGILE
            answered(("1", "previous"))
            opened = metric(repository, "infer_breaker_opened_total", version="2")
            failed = len(failures)
            answered(("1", "previous"))
            # A trial is two calls; each that fails is an opening, and calls of other threads may have been under way.
            tried = metric(repository, "infer_breaker_opened_total", version="2") - opened
            assert len(failures) - failed <= 2 * (tried + 1)
            value = 1.0
            answered(("2", ""))
        finally:
            stop.set()
            for thread in threads:
                thread.join(60.0)
    assert set(failures) == {"INTERNAL"}


def test_calls_of_others_go_on_while_a_version_fails(root: Path, tmp_path: Path, transport: str) -> None:
    models.write_version(root, "well", 1, models.scale(3.0))
    toml = write_toml(tmp_path / "infer.toml", "unavailable")
    with repository_server(root, toml=toml, transport=transport) as repository:
        with calling(repository.served.address, "well") as answers:
            break_it(repository)
            before = len(answers)
            with pytest.raises(InferError) as caught:
                infer(repository, 1.0)
            assert caught.value.status == "UNAVAILABLE"
            repository.until(lambda: len(answers) > before + 3)


def test_unavailable_says_when_to_try_again(root: Path, tmp_path: Path, transport: str) -> None:
    toml = write_toml(tmp_path / "infer.toml", "unavailable", open_ms=60_000)
    with repository_server(root, toml=toml, transport=transport) as repository:
        break_it(repository)
        request = message("inference.ModelInferRequest")(model_name="m")
        with grpc.insecure_channel(repository.served.address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"{SERVICE}ModelInfer")(request.SerializeToString(), timeout=30)
        error: Any = caught.value
        trailers = dict(error.trailing_metadata())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert 50_000 < int(trailers["grpc-retry-pushback-ms"]) <= 60_000
        assert "grpc-status-details-bin" in trailers
        assert ready(repository) == (False, False)


def test_a_written_reply(root: Path, tmp_path: Path, transport: str) -> None:
    reply = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [[5, 6, 7, 8]]}]}
    (tmp_path / "reply.json").write_text(json.dumps(reply))
    toml = write_toml(tmp_path / "infer.toml", "static", 'reply = "reply.json"\n', open_ms=60_000)
    with repository_server(root, toml=toml, transport=transport) as repository:
        assert infer(repository, 1.0) == ("2", "", 2.0)
        break_it(repository)
        assert infer(repository, 1.0) == ("2", "static", 5.0)
        assert infer(repository, 1.0, "2") == ("2", "static", 5.0)
        got = repository.client.infer("m", {"x": np.ones((3, 4), np.float32)})
        assert np.array_equal(got["y"], np.tile(np.float32([5, 6, 7, 8]), (3, 1)))
        assert ready(repository) == (True, True)


def test_a_reply_that_does_not_fit_keeps_the_version_from_being_served(root: Path, tmp_path: Path) -> None:
    (tmp_path / "reply.json").write_text('{"outputs": [{"name": "z", "datatype": "FP32", "shape": [1], "data": [1]}]}')
    toml = write_toml(tmp_path / "infer.toml", "static", 'reply = "reply.json"\n')
    with repository_server(root, toml=toml) as repository:
        status, text = repository.status("m")
        assert (status, text) == ("FAILED_PRECONDITION", "model 'm' version 2 is not served: the fallback's reply has "
                                  "no output 'y'; it has z")


def test_the_server_s_own_settings_and_those_of_a_model_over_them(root: Path, tmp_path: Path) -> None:
    toml = tmp_path / "infer.toml"
    toml.write_text("[models.m.breaker]\nerror_rate = 1.0\n")
    models.write_version(root, "other", 1, models.fragile())
    with repository_server(root, toml=toml, breaker="unavailable", breaker_window=20.0) as repository:
        guards = {entry.name: entry.guard for entry in repository.served.server.versions()}
        assert set(guards) == {b"m", b"other"}
        assert None not in guards.values()
    with repository_server(root) as repository:
        assert {entry.guard for entry in repository.served.server.versions()} == {None}


def test_slow_calls_open_it(tmp_path: Path) -> None:
    models.write_version(tmp_path / "models", "m", 1, models.slow())
    toml = write_toml(tmp_path / "infer.toml", "unavailable", 'slow_call = "1ms"\nslow_rate = 1.0\n')
    with repository_server(tmp_path / "models", toml=toml) as repository:
        # A step takes 10 us and longer.
        for _ in range(4):
            repository.client.infer("m", {"x": np.full((1, 1), 200, np.int64)})
        with pytest.raises(InferError, match="since 4 of its last 4 calls ran for 1 ms or longer"):
            repository.client.infer("m", {"x": np.full((1, 1), 200, np.int64)})


def test_settings_of_the_server_that_are_read_again(root: Path, tmp_path: Path) -> None:
    toml = tmp_path / "infer.toml"
    toml.write_text("[models.m]\nversion_policy = { latest = 2 }\n")
    with repository_server(root, toml=toml) as repository:
        served = repository.served
        for name, value in {"breaker": "unavailable", "breaker_error_rate": 1.0, "run_timeout": 3600.0}.items():
            served.look(functools.partial(served.server.models.set_option, name, value))
        assert {entry.guard.state for entry in served.server.versions()} == {"closed"}
        infer(repository, 1.0)
        for _ in range(19):
            with pytest.raises(InferError):
                infer(repository, models.FRAGILE)
        # The one that went well is in the window.
        assert infer(repository, 1.0)[0] == "2"
        served.look(lambda: served.server.models.set_option("breaker", "none"))
        assert {entry.guard for entry in served.server.versions()} == {None}
