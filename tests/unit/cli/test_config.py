"""`infer config show`: what it prints is what a server would have, and can be its settings file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from infer.cli import main
from infer.cli.config import line, toml
from infer.config import Settings, load_settings
from infer.config_file import Origin


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["config", "show", *map(str, arguments)])


def test_every_setting_is_shown() -> None:
    result = run()
    assert result.exit_code == 0
    shown = {text.removeprefix("# ").split(" = ")[0].split(": ")[0] for text in result.output.splitlines()}
    assert shown == set(Settings.model_fields)
    assert "port = 8001\n" in result.output
    assert "# uds: none\n" in result.output


def test_what_the_server_decides_by_the_machine() -> None:
    lines = run().output.splitlines()
    (executors,) = (text for text in lines if "executors" in text)
    assert executors.startswith("# executors: ")
    assert executors.endswith(", from the cores available")
    assert any(text.endswith("a quarter of the memory limit") for text in lines)
    assert "executors = 3" in run("--executors", 3).output


def test_where_each_comes_from(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty / "infer.toml").write_text("\nmax_streams = '2k'\n")
    monkeypatch.setenv("INFER_HTTP_PORT", "9002")
    result = run("--port", "9001", "--explain", "m.onnx")
    blocks = {block.splitlines()[-1].split(" ")[0]: block for block in result.output.strip().split("\n\n")}
    assert blocks["port"] == (
        "# gRPC port; 0 takes any and prints it.\n# from --port; default 8001\nport = 9001")
    assert "# from INFER_HTTP_PORT; default 8002\n" in blocks["http_port"]
    assert "# from infer.toml:2: max_streams; default 1024 calls\nmax_streams = 2000" in blocks["max_streams"]
    assert "# from default; SIGHUP applies a change\n" in blocks["log_level"]
    assert blocks["paths"].endswith('# from PATH; default none\npaths = ["m.onnx"]')


def test_where_administration_would_be() -> None:
    def shown(*arguments: object) -> str:
        return next(text for text in run(*arguments).output.splitlines() if "admin_port" in text)

    assert shown() == "admin_port = 8003"
    assert shown("--port", 9) == "# admin_port: any, since --port is not 8001"
    assert shown("--port", 9, "--admin-port", "none") == 'admin_port = "none"'


def test_as_json() -> None:
    found = {each["name"]: each for each in map(json.loads, run(
        "--json", "--provider", "cuda:device_id=1;cpu", "--state-dir", "s").output.splitlines())}
    assert found["port"] == {"name": "port", "value": 8001, "origin": "default", "default": "8001", "live": False,
                             "description": "gRPC port; 0 takes any and prints it."}
    assert found["provider"]["value"] == ["cuda:device_id=1", "cpu"]
    assert (found["state_dir"]["value"], found["log_level"]["live"]) == ("s", True)


def test_problems_are_told_beside_what_is_shown(empty: Path) -> None:
    (empty / "infer.toml").write_text("prot = 1\n")
    result = run("--port", "x", "--http-port", "9")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "infer config: the server would not start:", "  infer.toml:1: unknown setting 'prot' (did you mean 'port'?)",
        "  --port: got 'x': expected a whole number such as 64 or 1k"]
    assert "http_port = 9\n" in result.stdout


GIVEN = st.fixed_dictionaries({"paths": st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"),
                                                         min_size=1, max_size=8), min_size=1, max_size=2)}, optional={
    "admin_port": st.sampled_from(["none", 8003, 0]),
    "uds": st.text("a\\\"'\t\u00e9\x7f\x01", min_size=1, max_size=9), "port": st.integers(10, 99),
    "drain_delay": st.floats(0, 86400), "keepalive_time": st.sampled_from(["2h", "500ms"]),
    "max_message_bytes": st.sampled_from(["64KiB", 2048]), "provider": st.sampled_from(["cpu", "cuda:a=b=c,d=e;cpu"]),
    "log_format": st.sampled_from(["text", "json"]), "executors": st.integers(1, 9),
    "load_model": st.sampled_from([["*"], ["a", "b"]]), "model_control_mode": st.just("explicit")})


@given(GIVEN)
def test_what_is_shown_is_a_settings_file(tmp_path_factory: pytest.TempPathFactory, flags: dict[str, Any]) -> None:
    if "load_model" in flags:
        flags["model_control_mode"] = "explicit"
    settings, origins = load_settings(flags, {}, None)
    text = "\n".join(line(name, settings, origins, False) for name in Settings.model_fields)
    file = tmp_path_factory.mktemp("shown") / "infer.toml"
    file.write_text(text, "utf-8")
    again, _ = load_settings({}, {}, file)
    # Paths of a file are relative to it.
    expected = settings.model_dump()
    expected["paths"] = tuple(file.parent / path for path in expected["paths"])
    if expected["uds"] is not None:
        expected["uds"] = file.parent / expected["uds"]
    assert again.model_dump() == expected


def test_values_as_toml() -> None:
    assert toml((("cuda", {"a": "1", "b": "2"}), ("cpu", {}))) == '["cuda:a=1,b=2", "cpu"]'
    assert (toml(True), toml(1.5), toml("a\"\n"), toml(())) == ("true", "1.5", r'"a\"\n"', "[]")
    assert Origin(1, "default").is_default
