"""What the operator wrote for models outside of their directories: a file of models and the tables of infer.toml, those
of tenants among them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from infer.errors import ConfigError
from infer.models.model_list import ModelList, read_model_list
from infer.models.problems import Problem, described, errors_of
from infer.models.settings import ModelSettings, overlaid
from infer.models.toml_models import read_toml_models
from infer.models.toml_quotas import read_toml_quotas
from infer.quotas import NONE, Quotas


class Written(NamedTuple):
    """Settings by model, to stand over those in the models' directories, everything that is wrong, and quotas."""

    models: dict[str, ModelSettings]
    problems: list[Problem]
    quotas: Quotas = NONE


def read_written(model_list: Path | None, toml: Path | None) -> Written:
    """Reads both files, as far as there are any."""
    lists = [read_model_list(model_list)] if model_list is not None else []
    if toml is None:
        return merged(lists)
    written = merged([*lists, read_toml_models(toml)])
    quotas, problems = read_toml_quotas(toml)
    return Written(written.models, [*written.problems, *problems], quotas)


def written_models(model_list: Path | None, toml: Path | None) -> Written:
    """As `read_written`, with warnings alone. Raises ConfigError with everything that is wrong where anything cannot
    be used."""
    written = read_written(model_list, toml)
    errors = errors_of(written.problems)
    if errors:
        raise ConfigError(described(errors, "the settings of models and tenants"))
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
