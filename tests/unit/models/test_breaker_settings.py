"""What may be written of a breaker and of its reply, and what it comes to."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from infer.config import Settings
from infer.models.breaker_settings import (
    DEFAULTS,
    BreakerSettings,
    guard_limits,
    parse_breaker,
    server_breaker,
    with_reply,
)
from infer.models.effective import LIVE_SETTINGS, LoadOptions, changed_options, guard_of, run_timeout_ns
from infer.models.settings import ModelSettings
from infer.models.static_reply import REPLY_BYTES_MAX, StaticOutput, parse_reply
from infer.models.toml_models import parse_toml_models

FULL = {"fallback": "previous", "error_rate": 0.25, "window": "30s", "min_calls": "1k", "slow_call": "250ms",
        "slow_rate": 1, "open_for": 2, "probes": 5}


def test_everything_that_can_be_written() -> None:
    assert parse_breaker(FULL) == (BreakerSettings("previous", 0.25, 30.0, 1000, 0.25, 1.0, 2.0, 5), None)
    assert parse_breaker({"fallback": "static", "reply": "a.json"}) == (BreakerSettings("static"), "a.json")
    assert parse_breaker({}) == (BreakerSettings(), None)


@pytest.mark.parametrize(("written", "said"), [
    ("previous", "expected a table such as"),
    ({"fallbak": "none"}, "'fallbak' is no setting of a breaker: expected some of fallback, reply, error_rate"),
    ({"fallback": "other"}, "fallback: expected one of none, previous, static, unavailable, got 'other'"),
    ({"fallback": "static"}, 'expected reply = "FILE.json" beside it'),
    ({"fallback": "previous", "reply": "a.json"}, 'is of no use to fallback "previous"'),
    ({"fallback": "static", "reply": ""}, "reply: expected a file in quotes"),
    ({"error_rate": 0}, "error_rate: expected a share above 0 and up to 1, got 0"),
    ({"error_rate": 1.5}, "error_rate: expected a share"), ({"slow_rate": True}, "slow_rate: expected a share"),
    ({"window": "50ms"}, "window: expected a time from 0.1 s to a day, got '50ms'"),
    ({"window": "2d"}, "window: expected a time"), ({"open_for": 0}, "open_for: expected a time from 0.001 s"),
    ({"min_calls": 0}, "min_calls: expected a whole number from 1 to"),
    ({"probes": 1025}, "probes: expected a whole number from 1 to 1024, got 1025")])
def test_what_cannot_be_used_says_what_was_expected(written: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        parse_breaker(written)


def test_a_model_s_own_over_the_server_s() -> None:
    server = server_breaker(Settings.model_validate({"breaker": "unavailable", "breaker_window": 20, "paths": ("m",)}))
    assert server == BreakerSettings("unavailable", 0.5, 20.0, 20, 0.0, 0.5, 5.0, 3)
    options = LoadOptions(breaker=server, run_timeout_s=1.0)
    plain, own = ModelSettings("m"), ModelSettings("m", breaker=BreakerSettings(error_rate=1.0), run_timeout_s=0.0)
    assert guard_of(plain, options) == guard_limits(server) == {
        "fallback": "unavailable", "window_ns": 20 * 10**9, "min_calls": 20, "error_rate": 0.5, "slow_ns": 0,
        "slow_rate": 0.5, "open_ns": 5 * 10**9, "probes": 3, "reply": ()}
    assert guard_of(own, options) == {**guard_limits(server), "error_rate": 1.0}      # type: ignore[dict-item]
    assert (run_timeout_ns(plain, options), run_timeout_ns(own, options)) == (10**9, 0)
    assert guard_of(plain, LoadOptions()) is None
    assert guard_of(ModelSettings("m", breaker=BreakerSettings("none")), options) is None


@pytest.mark.parametrize("name", LIVE_SETTINGS)
def test_settings_of_the_server_that_change_while_it_runs(name: str) -> None:
    value = {"breaker": "previous", "run_timeout": 3.0}.get(name, 1.0)
    changed = changed_options(LoadOptions(), name, value)
    assert changed != LoadOptions()
    assert value in (changed.run_timeout_s, *vars(changed.breaker).values())
    assert Settings.model_fields[name].json_schema_extra["live"]      # type: ignore[index,call-overload]


def output(**fields: Any) -> dict[str, Any]:
    return {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [[0.5, 1]]} | fields


@pytest.mark.parametrize(("written", "read"), [
    (output(), ("y", "FP32", (1, 2), struct.pack("<2f", 0.5, 1))),
    (output(datatype="INT64", data=[-1, 2]), ("y", "INT64", (1, 2), struct.pack("<2q", -1, 2))),
    (output(datatype="BOOL", data=[True, False]), ("y", "BOOL", (1, 2), b"\1\0")),
    (output(datatype="FP16", shape=[], data=1.0), ("y", "FP16", (), b"\0\x3c")),
    (output(datatype="BYTES", shape=[2], data=["a", "\u00fc"]), ("y", "BYTES", (2,), b"\1\0\0\0a\2\0\0\0\xc3\xbc")),
    (output(shape=[1, 0], data=[]), ("y", "FP32", (1, 0), b""))])
def test_replies(written: dict[str, Any], read: tuple[Any, ...]) -> None:
    assert parse_reply(json.dumps({"outputs": [written]}).encode()) == (StaticOutput(*read),)


@pytest.mark.parametrize(("content", "said"), [
    ({}, "expected {\"outputs\""), ([], "expected {\"outputs\""), ({"outputs": []}, "expected {\"outputs\""),
    ({"outputs": [1]}, "expected outputs with a name"), ({"outputs": [output(), output()]}, "stands there twice"),
    ({"outputs": [output(datatype="BF16")]}, "output 'y': expected a datatype of INT8"),
    ({"outputs": [output(shape=[-1, 2])]}, "expected a shape of whole numbers"),
    ({"outputs": [output(data=[1])]}, r"expected 2 values for shape [1, 2], got 1"),
    ({"outputs": [output(data=[1, "a"])]}, "its data is no FP32"),
    ({"outputs": [output(datatype="INT8", data=[1, 300])]}, "its data is no INT8"),
    ({"outputs": [output(datatype="BYTES", data=[1, 2])]}, "its data is no BYTES: expected text, got 1")])
def test_what_is_no_reply(content: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"reply 'r\.json': ") as caught:
        with_reply(DEFAULTS, tmp_path / "r.json")
    assert said in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"reply 'r.json' cannot be read: No such file"):
        with_reply(DEFAULTS, tmp_path / "r.json")
    (tmp_path / "r.json").write_bytes(b" " * (REPLY_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="is larger than 1 MiB"):
        with_reply(DEFAULTS, tmp_path / "r.json")
    (tmp_path / "r.json").write_bytes(b"\xff{")
    with pytest.raises(ValueError, match=r"reply 'r\.json': "):
        with_reply(DEFAULTS, tmp_path / "r.json")


def test_the_table_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"outputs": [output()]}))
    text = '[models.m]\nrun_timeout = "2s"\n[models.m.breaker]\nfallback = "static"\nreply = "r.json"\n'
    (settings,), problems = parse_toml_models(text, tmp_path / "infer.toml")
    assert problems == ()
    assert (settings.run_timeout_s, settings.place_of("breaker")) == (2.0, f"{tmp_path}/infer.toml:3:1")
    assert settings.breaker is not None
    assert [each.name for each in settings.breaker.reply] == ["y"]
    for wrong in ('[models.m]\nrun_timeout = "1us"', '[models.m.breaker]\nfallback = "x"',
                  '[models.m.breaker]\nfallback = "static"\nreply = "absent.json"'):
        models, (problem,) = parse_toml_models(wrong, tmp_path / "infer.toml")
        assert (models, problem.code) == ((), "E103")
