"""`infer models`, `load`, `unload`, `label` against the repository's RPCs over real sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infer.cli import main
from infer.cli.tables import columns
from infer.errors import FailedPrecondition, NotFound
from infer.services.control import IndexRow, Overrides
from infer.services.inference import inference_service
from tests.support.cold_server import FakeRoutes, FakeServer, FakeVersion, serving

HASH = "0123456789abcdef" * 4
ROWS = [IndexRow("m", "10", "READY", labels=("stable", "canary")), IndexRow("m", "11", "LOADING"),
        IndexRow("m", "9", "UNAVAILABLE", "no such operator"), IndexRow("gone", "1", "READY")]


class Control:
    """A ModelControl that knows one model."""

    mode = "explicit"

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def _check(self, name: str) -> None:
        if name == "bad":
            raise FailedPrecondition("model 'bad' could not be loaded: no such operator")
        if name != "m":
            raise NotFound(f"no model {name!r}")

    async def load(self, name: str, overrides: Overrides | None, who: str) -> None:
        self._check(name)
        files = [] if overrides is None or overrides.directory is None else sorted(
            (str(path.relative_to(overrides.directory)), path.read_bytes())
            for path in overrides.directory.rglob("*") if path.is_file())
        self.asked.append(("load", name, overrides and overrides.config, files))

    async def unload(self, name: str, dependents: bool, who: str) -> None:
        self._check(name)
        self.asked.append(("unload", name))

    async def label(self, name: str, label: str, version: int, who: str) -> None:
        self._check(name)
        self.asked.append(("label", name, label, version))

    def index(self) -> list[IndexRow]:
        return ROWS


@pytest.fixture
def control() -> Control:
    return Control()


@pytest.fixture
def address(control: Control) -> Iterator[str]:
    version = FakeVersion(b"m", "10", properties={"sha256": HASH, "opset": "17"})
    routes = FakeRoutes({"m": [version]}, labels={"m": {"stable": version, "canary": version}})
    with serving(inference_service(FakeServer(routes, control=control))) as where:
        yield where


def run(address: str, *arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--address", address])


def test_models(address: str) -> None:
    result = run(address, "models")
    assert (result.exit_code, result.output.splitlines()) == (0, [
        "MODEL  VERSION  STATE        LABELS         SHA256        REASON",
        "gone   1        READY        -              -",
        "m      9        UNAVAILABLE  -              -             no such operator",
        "m      10       READY        canary,stable  0123456789ab",
        "m      11       LOADING      -              -"])


def test_models_as_json(address: str) -> None:
    result = run(address, "models", "m", "--json")
    found = [json.loads(line) for line in result.output.splitlines()]
    assert [version["version"] for version in found] == ["9", "10", "11"]
    assert found[0] == {"name": "m", "version": "9", "state": "UNAVAILABLE", "labels": [], "reason": "no such operator",
                        "properties": {}}
    assert found[1]["labels"] == ["canary", "stable"]
    assert found[1]["properties"] == {"sha256": HASH, "opset": "17"}


def test_models_that_are_not_there(address: str) -> None:
    result = run(address, "models", "m", "x", "y")
    assert result.exit_code == 1
    assert "the server knows no model 'x', 'y'" in result.stderr
    assert "canary" in result.stdout


def test_models_of_a_server_without_any() -> None:
    with serving(inference_service(FakeServer())) as where:
        assert run(where, "models").output == "no models\n"


def test_no_server() -> None:
    result = run("localhost:1", "models", "--timeout", "5")
    assert result.exit_code == 1
    assert "infer models: UNAVAILABLE: no server answers at localhost:1" in result.stderr


def test_load_and_unload(address: str, control: Control) -> None:
    result = run(address, "load", "m")
    assert (result.exit_code, result.output.splitlines()) == (0, [
        "m version 9: UNAVAILABLE: no such operator", "m version 10: READY", "m version 11: LOADING"])
    result = run(address, "unload", "m")
    assert (result.exit_code, result.output) == (0, "m: unloaded\n")
    assert control.asked == [("load", "m", None, []), ("unload", "m")]


def test_load_with_files(address: str, control: Control, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_batch_size": 8}')
    (tmp_path / "a=b").write_bytes(b"\0model")
    result = run(address, "load", "m", "--model-config", tmp_path / "config.json",
                 "--file", f"1/model.onnx={tmp_path}/a=b", "--file", f"2/w.data={tmp_path}/config.json")
    assert result.exit_code == 0
    assert control.asked == [("load", "m", "max_batch_size: 8\n", [
        ("1/model.onnx", b"\0model"), ("2/w.data", b'{"max_batch_size": 8}')])]


@pytest.mark.parametrize(("arguments", "text"), [
    (["--file", "1/m=x"], "--file needs --model-config"),
    (["--model-config", "c.json", "--file", "model.onnx=x"], "expected VERSION/NAME=PATH"),
    (["--model-config", "c.json", "--file", "1/m"], "expected VERSION/NAME=PATH"),
    (["--model-config", "gone.json"], "gone.json: cannot be read: No such file"),
    (["--model-config", "c.json", "--file", "1/m=gone"], "gone: cannot be read: No such file"),
    (["--model-config", "binary"], "binary: is not UTF-8 text"),
])
def test_load_with_files_that_cannot_be_sent(
        address: str, arguments: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.json").write_text("{}")
    Path("binary").write_bytes(b"\xff")
    result = run(address, "load", "m", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr


@pytest.mark.parametrize(("arguments", "told"), [
    (["10"], "m: stable is version 10\n"), (["11"], "m: stable will be version 11 once that is ready\n"),
    (["12"], "m: stable will be version 12 once that is ready\n"),
    (["none"], "m: stable is as the model's settings say\n")])
def test_label(address: str, control: Control, arguments: list[str], told: str) -> None:
    result = run(address, "label", "m", "stable", *arguments)
    assert (result.exit_code, result.output) == (0, told)
    assert control.asked == [("label", "m", "stable", 0 if arguments == ["none"] else int(arguments[0]))]


@pytest.mark.parametrize("version", ["0", "v1", "-1", ""])
def test_label_of_what_is_no_version(address: str, control: Control, version: str) -> None:
    result = run(address, "label", "m", "stable", "--", version)
    assert (result.exit_code, control.asked) == (2, [])


@pytest.mark.parametrize(("arguments", "status", "text"), [
    (["load", "bad"], 1, "infer load: FAILED_PRECONDITION: model 'bad' could not be loaded: no such operator"),
    (["load", "x"], 1, "infer load: NOT_FOUND: no model 'x'"), (["unload", "x"], 1, "infer unload: NOT_FOUND"),
    (["label", "x", "stable", "1"], 1, "infer label: NOT_FOUND"),
    (["load", "../m"], 2, "infer load: INVALID_ARGUMENT: model name '../m'"),
    (["label", "m", "3", "1"], 2, "infer label: INVALID_ARGUMENT: model 'm': label '3'")])
def test_refusals(address: str, arguments: list[str], status: int, text: str) -> None:
    result = run(address, *arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert text in result.stderr


def test_a_server_that_is_not_in_explicit_mode() -> None:
    with serving(inference_service(FakeServer())) as where:
        result = run(where, "load", "m")
    assert result.exit_code == 1
    assert re.search("the server is in mode 'none'; start it with --model-control-mode explicit", result.stderr)


def test_columns() -> None:
    assert columns(("A", "B"), []) == ["A  B"]
    assert columns(("A", "B"), [("long", "x"), ("", "")]) == ["A     B", "long  x", ""]
