"""A model's own configuration: Triton's config.pbtxt. Reading touches the file alone; any thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from infer.models.config_fields import settings_of
from infer.models.problems import Problem, error
from infer.models.settings import ModelSettings
from infer.models.text_format import TextError, parse_text
from infer.models.typed import Typed, typed
from infer.proto import message

# Configurations are written by hand; one that is larger is some other file.
CONFIG_BYTES_MAX = 1 << 20


class Configured(NamedTuple):
    """Settings, None where an error keeps the model from being served, and everything that is wrong."""

    settings: ModelSettings | None
    problems: list[Problem]


def read_text(path: Path) -> str | Problem:
    """A configuration file's text, or why there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as failure:
        return error(str(path), "", "E100", cause=f"cannot be read: {failure.strerror}",
                     fix="let the user that serves read it")
    if len(content) > CONFIG_BYTES_MAX:
        return error(str(path), "", "E100", expected=f"at most {CONFIG_BYTES_MAX} bytes", got="more",
                     fix="put a configuration there")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return error(str(path), "", "E101", expected="UTF-8 text", got="other bytes", fix="write the file in UTF-8")


def parse_typed(text: str, content: Any, path: str) -> Typed | Problem:
    """A text of protobuf's text format held against `content`, an empty message."""
    try:
        tree = parse_text(text)
    except TextError as failure:
        return error(f"{path}:{failure.line}:{failure.column}", "", "E101", expected=failure.expected,
                     got=failure.got, fix=failure.fix)
    return typed(tree, content, path)


def parse_config(text: str, path: str, name: str, base: Path | None = None) -> Configured:
    """The configuration of model `name` from the text of its config.pbtxt at `path`."""
    config = parse_typed(text, message("inference.ModelConfig")(), path)
    if isinstance(config, Problem):
        return Configured(None, [config])
    settings = settings_of(config, name, base)
    return Configured(None if any(problem.is_error for problem in config.problems) else settings, config.problems)


def read_config(path: Path, name: str) -> Configured:
    """The configuration of model `name` from the file at `path`, in the model's directory."""
    text = read_text(path)
    return Configured(None, [text]) if isinstance(text, Problem) else parse_config(text, str(path), name, path.parent)
