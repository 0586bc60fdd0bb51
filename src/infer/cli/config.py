"""`infer config show`: the settings that `infer serve` would have."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from infer.cli.serve import USAGE_ERROR, given, settings_file, settings_options
from infer.config import Problem, Settings, read_settings
from infer.config_changes import is_live
from infer.config_file import Origin

EXPLAIN = click.Option(["--explain"], is_flag=True, help="Say of each where it comes from and what it is.")
AS_JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object a setting.")


def _show(paths: tuple[str, ...], config: str | None, explain: bool, as_json: bool, **flags: object) -> None:
    settings, origins, problems = read_settings(given(paths, flags), os.environ, settings_file(config))
    for name in Settings.model_fields:
        if as_json:
            click.echo(json.dumps(described(name, settings, origins)))
        else:
            click.echo(line(name, settings, origins, explain))
    told = [problem.text for problem in problems if not _nothing_to_serve(problem, origins)]
    if told:
        click.echo("\n  ".join(["infer config: the server would not start:", *told]), err=True)
        raise SystemExit(USAGE_ERROR)


def _nothing_to_serve(problem: Problem, origins: Mapping[str, Origin]) -> bool:
    """Nobody has to name a model to see the rest."""
    return problem.fields == ("paths",) and origins["paths"].is_default


def line(name: str, settings: Settings, origins: Mapping[str, Origin], explain: bool) -> str:
    """As in infer.toml, so that it can be one; what is left to the server is a comment."""
    value = getattr(settings, name)
    extra: Any = Settings.model_fields[name].json_schema_extra
    left_open = value is None or (name == "provider" and not value)
    if name == "admin_port":
        left_open = origins[name].is_default and settings.administration_port != value
    text = f"# {name}: {derived(name, settings) or extra['shown']}" if left_open else f"{name} = {toml(value)}"
    if not explain:
        return text
    origin = origins[name]
    default = "" if origin.is_default or not extra["shown"] else f"; default {extra['shown']}"
    live = "; SIGHUP applies a change" if extra["live"] else ""
    return f"# {Settings.model_fields[name].description}\n# from {origin.place}{default}{live}\n{text}\n"


def derived(name: str, settings: Settings) -> str:
    """What the server would take, where it decides by this machine."""
    from infer.cores import available_cores, memory_limit_bytes, plan_threads

    if name == "admin_port":
        return "any, since --port is not 8001"
    if name in ("executors", "intra_op"):
        threads = plan_threads(available_cores(), settings.executors, settings.intra_op)
        return f"{getattr(threads, name)}, from the cores available"
    if name == "max_buffered_bytes_total":
        from infer.server import BUFFERED_SHARE

        return f"{memory_limit_bytes() // BUFFERED_SHARE}, a quarter of the memory limit"
    return ""


def toml(value: object) -> str:
    """A value as a settings file has it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(_provider(each) if isinstance(each, tuple) else each) for each in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return '"none"' if value is None else str(value)


def _provider(provider: tuple[str, Mapping[str, str]]) -> str:
    name, options = provider
    return ":".join([name, ",".join(f"{key}={value}" for key, value in options.items())]).rstrip(":")


def described(name: str, settings: Settings, origins: Mapping[str, Origin]) -> dict[str, object]:
    """Everything about one setting, plain."""
    field = Settings.model_fields[name]
    value = getattr(settings, name)
    if isinstance(value, tuple):
        value = [_provider(each) if isinstance(each, tuple) else str(each) for each in value]
    elif isinstance(value, Path):
        value = str(value)
    extra: Any = field.json_schema_extra
    return {"name": name, "value": value, "origin": origins[name].place, "default": extra["shown"],
            "live": is_live(name), "description": field.description}


command = click.Group(
    "config", short_help="Show the settings of a server.",
    help="Show the settings that a server would have, and where each comes from.",
    commands=[click.Command(
        "show", params=[*settings_options(), EXPLAIN, AS_JSON], callback=_show,
        short_help="Print every setting as it would be.",
        help="""Print every setting as `infer serve` would have it with the same flags, variables and file.

        What is printed is a settings file again. Exit status 2 where the server would not start, with every problem.
        """)])
