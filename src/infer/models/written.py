"""What the operator wrote for models outside of their directories: a file of models and the tables of infer.toml."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from infer.errors import ConfigError
from infer.models.model_list import ModelList, read_model_list
from infer.models.problems import Problem, described, errors_of
from infer.models.settings import ModelSettings, overlaid
from infer.models.toml_models import read_toml_models


class Written(NamedTuple):
    """Settings by model, to stand over those in the models' directories, and everything that is wrong."""

    models: dict[str, ModelSettings]
    problems: list[Problem]


def read_written(model_list: Path | None, toml: Path | None) -> Written:
    """Reads both files, as far as there are any."""
    lists = [read_model_list(model_list)] if model_list is not None else []
    return merged([*lists, read_toml_models(toml)] if toml is not None else lists)


def written_models(model_list: Path | None, toml: Path | None) -> Written:
    """As `read_written`, with warnings alone. Raises ConfigError with everything that is wrong where anything cannot
    be used."""
    written = read_written(model_list, toml)
    errors = errors_of(written.problems)
    if errors:
        raise ConfigError(described(errors, "the settings of models"))
    return written


def merged(lists: Iterable[ModelList]) -> Written:
    """Later writings stand over earlier ones, field by field."""
    written = Written({}, [])
    for each in lists:
        written.problems.extend(each.problems)
        for settings in each.models:
            under = written.models.get(settings.name)
            written.models[settings.name] = settings if under is None else overlaid(under, settings)
    return written
