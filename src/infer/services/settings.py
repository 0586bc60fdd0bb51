"""LogSettings and TraceSetting: what can be changed while the server runs.

Triton's log switches are one threshold here: verbose, info, warning, error, each with all that are more severe.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from infer.errors import InvalidArgument
from infer.proto import message
from infer.services.call import Call, Handler, parsed, shown, unary
from infer.services.control import caller
from infer.services.server_view import ServerView

log = logging.getLogger("infer.server")

# By Triton's name of the switch: the level that it stands for; above the last one nothing is logged.
LEVELS = {"log_verbose_level": logging.DEBUG, "log_info": logging.INFO, "log_warning": logging.WARNING,
          "log_error": logging.ERROR}
SILENT = logging.CRITICAL
_NEXT = {logging.DEBUG: logging.INFO, logging.INFO: logging.WARNING, logging.WARNING: logging.ERROR,
         logging.ERROR: SILENT}
VERBOSE = "log_verbose_level"
TRACE_LEVEL = "trace_level"
OFF = "OFF"
VALUES_SHOWN = 4


def settings_rpcs(server: ServerView) -> Mapping[str, Handler]:
    """LogSettings, TraceSetting by method."""

    async def log_settings(call: Call) -> bytes:
        request = parsed(call.path, call.message, message("inference.LogSettingsRequest"))
        root = logging.getLogger()
        before = root.level
        level = chosen_level(request.settings, before)
        if level != before:
            root.setLevel(level)
            log.warning("log level is now %s", level_name(level), extra={"peer": call.peer})
            server.audit.record("settings", outcome="done", who=caller(call),
                                detail=f"--log-level: {level_name(before)} -> {level_name(level)}")
        reply = message("inference.LogSettingsResponse")()
        reply.settings["log_file"].string_param = ""
        for name, least in LEVELS.items():
            if name == VERBOSE:
                reply.settings[name].uint32_param = int(level <= least)
            else:
                reply.settings[name].bool_param = level <= least
        content: bytes = reply.SerializeToString()
        return content

    def trace_setting(request: Any) -> Any:
        if request.model_name:
            server.routes.lookup(request.model_name, "")
        for name, setting in request.settings.items():
            if name != TRACE_LEVEL or list(setting.value) not in ([], [OFF]):
                values = ", ".join(map(shown, setting.value[:VALUES_SHOWN])) or "empty"
                raise InvalidArgument(
                    f"trace setting {shown(name)} cannot be {values}: this server does not trace requests; "
                    f"{TRACE_LEVEL} is {OFF} and is the only setting")
        reply = message("inference.TraceSettingResponse")()
        reply.settings[TRACE_LEVEL].value.append(OFF)
        return reply

    return {"LogSettings": log_settings, "TraceSetting": unary("inference.TraceSettingRequest", trace_setting)}


def level_name(level: int) -> str:
    return logging.getLevelName(level).lower()


def chosen_level(settings: Mapping[str, Any], level: int) -> int:
    """The least level that is logged once `settings` are applied to `level`; InvalidArgument changes nothing."""
    shown = {LEVELS[name] for name in settings if _is_on(name, settings[name]) is True}
    hidden = {LEVELS[name] for name in settings if _is_on(name, settings[name]) is False}
    if shown and hidden and min(shown) <= max(hidden):
        names = {least: name for name, least in LEVELS.items()}
        raise InvalidArgument(
            f"{names[min(shown)]} cannot be on while {names[max(hidden)]} is off: a level is logged with all that are "
            "more severe")
    level = min([level, *shown])
    return max([level, *(_NEXT[least] for least in hidden)])


def _is_on(name: str, setting: Any) -> bool | None:
    """What a written setting says of its level; None: nothing, it is what it is already."""
    kind = setting.WhichOneof("parameter_choice")
    if name == "log_file" and kind == "string_param" and setting.string_param == "":
        return None
    if name not in LEVELS:
        raise InvalidArgument(f"log setting {shown(name)} cannot be changed here; expected {', '.join(LEVELS)}")
    expected = "uint32_param" if name == VERBOSE else "bool_param"
    if kind != expected:
        raise InvalidArgument(f"log setting {shown(name)}: expected {expected}, got {kind or 'no value'}")
    return bool(getattr(setting, expected))
