"""`infer serve`: settings from flags, variables and a file, then the server until it is told to stop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from infer.config import DEFAULT_FILE, ENVIRONMENT_PREFIX, Settings, flag_of, load_settings, settings_in_order
from infer.config_file import Origin
from infer.errors import ConfigError, InferError

USAGE_ERROR = 2
START_ERROR = 1
REPEATED = frozenset({"load_model", "model_repository"})


def settings_options() -> list[click.Parameter]:
    """An option for each setting, as text: config.py parses all of them and reports all problems at once."""
    options: list[click.Parameter] = [click.Argument(["paths"], nargs=-1, type=click.Path())]
    for name, field in settings_in_order():
        if name == "paths":
            continue
        extra: Any = field.json_schema_extra
        text = field.description or ""
        if extra["shown"]:
            text = f"{text.removesuffix('.')} [{extra['shown']}]."
        if field.annotation is bool:
            options.append(click.Option([flag_of(name), name], flag_value="true", default=None, help=text))
        else:
            options.append(click.Option([flag_of(name), name], metavar=extra["metavar"], help=text,
                                        multiple=name in REPEATED))
    options.append(click.Option(
        ["--config"], metavar="FILE", envvar=ENVIRONMENT_PREFIX + "CONFIG", type=click.Path(),
        help=f"Settings as TOML [./{DEFAULT_FILE} where it exists]."))
    return options


def _serve(paths: tuple[str, ...], config: str | None, **flags: str | tuple[str, ...] | None) -> None:
    import os

    def read() -> tuple[Settings, dict[str, Origin]]:
        return load_settings(given(paths, flags), os.environ, settings_file(config))

    def models(settings: Settings) -> Written:
        return written_models(settings.model_config_file, settings_file(config))

    from infer.models.written import Written, written_models

    try:
        settings, origins = read()
        written = models(settings)
    except ConfigError as error:
        _fail(error.message, USAGE_ERROR)

    from infer.process import Read, run

    try:
        code = run(settings, origins, written, Read(lambda: read()[0], models))
    except InferError as error:
        _fail(error.message, START_ERROR)
    except OSError as error:
        _fail(error.strerror or str(error), START_ERROR)
    raise SystemExit(code)


def given(paths: tuple[str, ...], flags: Mapping[str, object]) -> dict[str, object]:
    """What was given on the command line, by field name."""
    found = {name: value for name, value in flags.items() if value not in (None, ())}
    return found | ({"paths": paths} if paths else {})


def settings_file(config: str | None) -> Path | None:
    return Path(config) if config else DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def _fail(message: str, code: int) -> None:
    click.echo(f"infer serve: {message}", err=True)
    raise SystemExit(code)


command = click.Command(
    "serve", params=settings_options(), callback=_serve, short_help="Serve ONNX models over gRPC.",
    help="""Serve ONNX models over gRPC.

    PATH is a model.onnx, a directory with one, <version>/model.onnx, or a repository <name>/<version>/model.onnx.
    A setting comes from its flag, else from INFER_<FLAG>, else from the TOML file, else it is the default in brackets.
    """)
