"""LogSettings and TraceSetting."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from infer.errors import InvalidArgument, NotFound
from infer.proto import message
from infer.services.settings import settings_rpcs
from tests.support.cold_server import FakeCall, FakeRoutes, FakeServer, FakeVersion

SERVER = FakeServer(FakeRoutes({"m": [FakeVersion(b"m")]}))
D, I, W, E, C = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL  # noqa: E741


@pytest.fixture(autouse=True)
def root_level() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    root.setLevel(I)
    yield
    root.setLevel(before)


async def log_settings(**settings: bool | int | str) -> dict[str, Any]:
    request = message("inference.LogSettingsRequest")()
    for name, value in settings.items():
        kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
        setattr(request.settings[name], kind, value)
    reply = await settings_rpcs(SERVER)["LogSettings"](FakeCall("/l", request.SerializeToString()))
    shown = message("inference.LogSettingsResponse").FromString(reply).settings
    return {name: getattr(setting, setting.WhichOneof("parameter_choice")) for name, setting in shown.items()}


async def test_log_settings_are_read() -> None:
    assert await log_settings() == {"log_file": "", "log_verbose_level": 0, "log_info": True, "log_warning": True,
                                    "log_error": True}
    logging.getLogger().setLevel(D)
    assert (await log_settings())["log_verbose_level"] == 1


@pytest.mark.parametrize(("before", "settings", "after"), [
    (I, {"log_verbose_level": 2}, D), (D, {"log_verbose_level": 0}, I), (I, {"log_info": False}, W),
    (D, {"log_info": False}, W), (W, {"log_info": True}, I), (E, {"log_verbose_level": 1}, D),
    (I, {"log_error": False}, C), (C, {"log_error": True}, E), (C, {"log_error": True, "log_warning": False}, E),
    (I, {"log_warning": True, "log_info": False}, W), (I, {"log_file": ""}, I), (W, {"log_verbose_level": 0}, W)])
async def test_log_settings_are_written(before: int, settings: dict[str, Any], after: int) -> None:
    logging.getLogger().setLevel(before)
    shown = await log_settings(**settings)
    assert logging.getLogger().level == after
    assert shown == await log_settings()


@pytest.mark.parametrize(("settings", "text"), [
    ({"log_info": True, "log_error": False}, "log_info cannot be on while log_error is off"),
    ({"log_format": "ISO8601"}, "'log_format' cannot be changed"),
    ({"log_file": "x.log"}, "'log_file' cannot be changed"),
    ({"log_info": 1}, "expected bool_param, got uint32_param"), ({"log_verbose_level": True}, "expected uint32_param"),
    ({"log_error": False, "log_infos": True}, "expected log_verbose_level, log_info")])
async def test_log_settings_that_are_refused_change_nothing(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        await log_settings(**settings)
    assert logging.getLogger().level == I


async def test_a_changed_level_is_logged_with_who_changed_it(caplog: pytest.LogCaptureFixture) -> None:
    await log_settings(log_warning=False)
    assert caplog.records == []
    await log_settings(log_info=True)
    (record,) = caplog.records
    assert (record.message, record.__dict__["peer"]) == ("log level is now info", "test")
    assert SERVER.audit.rows[-2:] == [
        {"event": "settings", "outcome": "done", "who": "test", "detail": f"--log-level: {change}"}
        for change in ("info -> error", "error -> info")]


async def trace(model: str = "", **settings: list[str]) -> dict[str, list[str]]:
    request = message("inference.TraceSettingRequest")(model_name=model)
    for name, values in settings.items():
        request.settings[name].value.extend(values)
    reply = await settings_rpcs(SERVER)["TraceSetting"](FakeCall("/t", request.SerializeToString()))
    return {name: list(setting.value)
            for name, setting in message("inference.TraceSettingResponse").FromString(reply).settings.items()}


async def test_trace_settings() -> None:
    assert await trace() == await trace("m") == {"trace_level": ["OFF"]}
    assert await trace(trace_level=["OFF"]) == await trace(trace_level=[]) == {"trace_level": ["OFF"]}
    with pytest.raises(NotFound):
        await trace("nothing")


@pytest.mark.parametrize("settings", [{"trace_level": ["TIMESTAMPS"]}, {"trace_rate": ["1"]}, {"anything": ["x"]}])
async def test_trace_settings_that_do_not_exist(settings: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidArgument, match="does not trace requests"):
        await trace(**settings)
