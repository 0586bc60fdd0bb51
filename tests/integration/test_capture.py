"""Captures and replays of a whole server, on both transports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from infer.capture_file import CaptureReader
from infer.cli import main
from tests.support.pages import read_page
from tests.support.protos import message_class
from tests.support.repositories import Repository, place_version, repository_server
from tests.support.server import scrape


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def capture(repository: Repository, *arguments: str) -> Result:
    admin = repository.served.server.admin
    assert admin is not None
    return run("capture", *arguments, "--address", admin.address)


def infer(repository: Repository, count: int, version: str = "") -> None:
    for i in range(count):
        repository.client.infer("m", {"x": np.full((1, 4), i, np.float32)}, version=version)


def written(repository: Repository, records: int) -> None:
    [running] = repository.served.server.captures.running.values()
    repository.served.until_here(lambda: running.records == records)


@pytest.fixture
def settings(tmp_path: Path, transport: str) -> dict[str, Any]:
    for version, factor in ((1, 2.0), (2, 2.0)):
        place_version(tmp_path / "models", "m", version, factor)
    toml = tmp_path / "infer.toml"
    toml.write_text("[models.m]\nversion_policy = { all = {} }\n")
    return {"toml": toml, "transport": transport, "admin_port": 0, "capture_dir": tmp_path / "captured",
            "state_dir": tmp_path / "state"}


def test_from_a_capture_to_its_replay(tmp_path: Path, settings: dict[str, Any]) -> None:
    file = tmp_path / "captured" / "first.capture"
    with repository_server(tmp_path / "models", **settings) as repository:
        assert capture(repository, "status").output == "no calls are captured\n"
        started = capture(repository, "start", "m", "--name", "first", "--per-second", "0", "--reason", "to replay")
        assert (started.exit_code, started.output) == (0, f"calls of model m go to {file}\n")
        infer(repository, 30)
        infer(repository, 10, version="1")
        written(repository, 40)
        [status] = map(json.loads, capture(repository, "status", "m", "--json").output.splitlines())
        assert (status["seen"], status["taken"], status["records"], status["dropped"]) == (40, 40, 40, {})
        samples = scrape(repository.served.http_address)
        assert samples["infer_captured_total", frozenset({("model", "m")})] == 40
        for arguments, said in ((("start", "m", "--name", "second"), "calls of model 'm' are captured already"),
                                (("start", "gone", "--name", "x"), "model 'gone' is not known"),
                                (("start", "m", "--name", "../x"), "name: expected 1 to 100 of A-Z"),
                                (("status", "gone"), "calls of model 'gone' are not captured")):
            refused = capture(repository, *arguments)
            assert (refused.exit_code != 0, said in refused.output) == (True, True), refused.output
        stopped = capture(repository, "stop", "m")
        assert stopped.output.startswith(f"model m: 40 of 40 calls for {file}, {file.stat().st_size} bytes")
        infer(repository, 1)
        taken = capture(repository, "start", "m", "--name", "first")
        assert "first.capture is there already; choose another --name" in taken.output

        # The same version: nothing differs.
        same = run("replay", str(file), "--address", repository.served.address)
        assert same.exit_code == 0, same.output
        assert same.output.splitlines()[1] == "40 agreed, 0 differed, 0 failed"
        # Another one: how many, and how far.
        place_version(tmp_path / "models", "m", 3, 3.0)
        repository.until_answer(("3", 3.0))
        page = tmp_path / "replay.html"
        other = run("replay", str(file), "--to", "m:3", "--limit", "30", "--json", "--html", str(page), "--address",
                    repository.served.address)
        assert other.exit_code == 1
        printed, told = other.output.splitlines()
        found = json.loads(printed)
        assert told == f"written to {page}"
        assert "29 of 30 answers differ" in read_page(page.read_text()).text
        # The first has zeros, which three times are the same.
        assert (found["sent"], found["agreed"], found["differed"], found["failed"]) == (30, 1, 29, 0)
        assert found["outputs"]["y"]["max_rel"] == pytest.approx(1 / 3)
        assert found["outputs"]["y"]["max_abs"] == 29
        assert len(found["worst"]) == 8
        failed = run("replay", str(file), "--to", "gone", "--address", repository.served.address)
        assert failed.exit_code == 1
        assert "failed: 40 NOT_FOUND" in failed.output
    records = list(CaptureReader(file))
    assert [each.version for each in records] == ["2"] * 30 + ["1"] * 10
    request = message_class("ModelInferRequest").FromString(records[7].request)
    assert np.frombuffer(request.raw_input_contents[0], np.float32).tolist() == [7.0] * 4
    audit = run("audit", "--state-dir", str(tmp_path / "state")).output
    assert "to replay" in next(line for line in audit.splitlines() if "capture start" in line)
    assert "capture stop" in audit


def test_what_is_redacted_is_not_in_the_file(tmp_path: Path, settings: dict[str, Any]) -> None:
    file = tmp_path / "captured" / "r.capture"
    with repository_server(tmp_path / "models", **settings) as repository:
        assert capture(repository, "start", "m", "--name", "r", "--redact", "x", "--redact", "y").exit_code == 0
        infer(repository, 5)
        written(repository, 5)
        capture(repository, "stop", "m")
        replayed = run("replay", str(file), "--address", repository.served.address)
    assert replayed.exit_code == 0, replayed.output
    assert "not captured: the contents of x, y" in replayed.output
    for record in CaptureReader(file):
        request = message_class("ModelInferRequest").FromString(record.request)
        reply = message_class("ModelInferResponse").FromString(record.reply)
        assert list(request.raw_input_contents) == list(reply.raw_output_contents) == [bytes(16)]


def test_a_replay_is_run_and_not_answered_by_the_cache(tmp_path: Path, settings: dict[str, Any]) -> None:
    with repository_server(tmp_path / "models", **settings | {"cache": 1 << 20}) as repository:
        assert capture(repository, "start", "m", "--name", "c").exit_code == 0
        infer(repository, 5)
        written(repository, 5)
        capture(repository, "stop", "m")
        entry = next(each for each in repository.served.server.versions() if each.version == "2")
        before = repository.served.look(lambda: entry.stats_snapshot((), ()))
        replayed = run("replay", str(tmp_path / "captured" / "c.capture"), "--address", repository.served.address)
        after = repository.served.look(lambda: entry.stats_snapshot((), ()))
    assert replayed.exit_code == 0, replayed.output
    assert (after["rows"] - before["rows"], after["cache"]["hits"]) == (5, before["cache"]["hits"])


def test_a_full_file_ends_its_capture(tmp_path: Path, settings: dict[str, Any]) -> None:
    with repository_server(tmp_path / "models", **settings) as repository:
        assert capture(repository, "start", "m", "--name", "small", "--max-bytes", "1KiB", "--per-second",
                       "0").exit_code == 0
        running = repository.served.server.captures.running["m"]
        generator = np.random.default_rng(1)
        while not running.problem:
            repository.client.infer("m", {"x": generator.random((256, 4), np.float32)})
        assert "small.capture is full: it has" in capture(repository, "status", "m").output
        repository.served.until(lambda: running.capture.versions == ())
        seen = running.capture.seen
        infer(repository, 3)
        assert running.capture.seen == seen
        assert capture(repository, "start", "m", "--name", "next").exit_code == 0
    assert len(list(CaptureReader(tmp_path / "captured" / "small.capture"))) == running.records


def test_versions_that_come_are_captured_too(tmp_path: Path, settings: dict[str, Any]) -> None:
    with repository_server(tmp_path / "models", **settings) as repository:
        assert capture(repository, "start", "m", "--name", "v", "--per-second", "0").exit_code == 0
        place_version(tmp_path / "models", "m", 3, 4.0)
        repository.until_answer(("3", 4.0))
        running = repository.served.server.captures.running["m"]
        before = running.capture.seen
        infer(repository, 2)
        assert running.capture.seen == before + 2
    # What waited was written when the server ended.
    assert len(list(CaptureReader(tmp_path / "captured" / "v.capture"))) == running.capture.taken


def test_without_a_directory_nothing_is_captured(tmp_path: Path, settings: dict[str, Any]) -> None:
    with repository_server(tmp_path / "models", **settings | {"capture_dir": None}) as repository:
        refused = capture(repository, "start", "m", "--name", "x")
        assert refused.exit_code == 1
        assert "FAILED_PRECONDITION: this server captures nothing: start it with --capture-dir" in refused.output
