"""`[models.NAME]` of the server's TOML file: a model's settings, by the names of config.pbtxt. Reading touches the file
alone.

Beside the fields of a ModelConfig a table may have those of OWN_KEYS. What it says stands over the model's config.pbtxt
and over a file of models.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infer.config import MODEL_NAME
from infer.config_admission import YEAR_SECONDS
from infer.config_values import parse_count, parse_milliseconds, parse_seconds, parse_size
from infer.errors import InvalidArgument
from infer.experiments import parse_experiment
from infer.models.breaker_settings import BreakerSettings, parse_breaker, with_reply
from infer.models.config_fields import VERSION_MAX, settings_of
from infer.models.config_pbtxt import read_text
from infer.models.labels import LABEL
from infer.models.model_list import ModelList
from infer.models.problems import Problem, error, nearest
from infer.models.settings import WEIGHT_MAX, ModelSettings
from infer.models.tables import Keys, Positions, tree_of
from infer.models.text_format import Position
from infer.models.typed import typed
from infer.proto import message
from infer.rollouts import parse_rollout
from infer.shadow_plan import ShadowPlan, plan_of
from infer.split_plan import SplitPlan, split_of_table

DAY_SECONDS = 86400.0
SLO_MAX_MS = 600_000
RUN_TIMEOUT_MIN_S = 0.001
# The table of a model's quota, which toml_quotas reads.
LIMITS = "limits"


def read_toml_models(path: Path) -> ModelList:
    """The models of a file, in its order; none where it has no table of models. Text that is no TOML is left to the
    reader of the server's settings, which are in the same file."""
    text = read_text(path)
    if isinstance(text, Problem):
        return ModelList((), (text,))
    return parse_toml_models(text, path)


def parse_toml_models(text: str, path: Path) -> ModelList:
    try:
        table = tomllib.loads(text).get("models")
    except tomllib.TOMLDecodeError as failure:
        return ModelList((), (error(str(path), "", "E101", cause=f"is not TOML: {failure}"),))
    if table is None:
        return ModelList((), ())
    lines = key_positions(text)
    if not isinstance(table, Mapping):
        return ModelList((), (error(f"{path}:{lines(('models',))[0]}", "models", "E103",
                                    expected="tables of models: [models.NAME]", got=repr(table)),))
    models: list[ModelSettings] = []
    problems: list[Problem] = []
    for name, model in table.items():
        before = len(problems)
        settings = _model(name, model, _Source(path, lines, problems))
        if settings is not None and not any(problem.is_error for problem in problems[before:]):
            models.append(settings)
    return ModelList(tuple(models), tuple(problems))


@dataclass(frozen=True)
class _Source:
    path: Path
    positions: Positions
    problems: list[Problem]

    def place(self, keys: Keys) -> str:
        line, column = self.positions(keys)
        return f"{self.path}:{line}:{column}"

    def refuse(self, keys: Keys, code: str, **said: str) -> None:
        field = ".".join(map(str, keys[2:])) or str(keys[-1])
        self.problems.append(error(self.place(keys), field, code, **said))


def _model(name: str, table: object, source: _Source) -> ModelSettings | None:
    keys: Keys = ("models", name)
    if not MODEL_NAME.fullmatch(name):
        source.refuse(keys, "E103", expected="a name of 1 to 128 of A-Z a-z 0-9 _ . -", got=repr(name))
    if not isinstance(table, Mapping):
        source.refuse(keys, "E103", expected="a table: [models.NAME]", got=repr(table))
        return None
    content = message("inference.ModelConfig")()
    fields = {key: value for key, value in table.items() if key not in OWN_KEYS and key != LIMITS}
    for key in [key for key in fields if key not in content.DESCRIPTOR.fields_by_name]:
        near = nearest(key, [*OWN_KEYS, LIMITS])
        if near:
            source.refuse((*keys, key), "E102", cause="is no setting of a model", fix=f"did you mean {near!r}?")
            del fields[key]
    config = typed(tree_of(fields, content.DESCRIPTOR, source.positions, keys), content, str(source.path))
    settings = settings_of(config, name)
    source.problems.extend(config.problems)
    places = dict(settings.places)
    own: dict[str, Any] = {}
    for key, (setting, parse) in OWN_KEYS.items():
        if key not in table:
            continue
        try:
            own[setting] = _read_reply(parse(table[key]), source.path) if key == "breaker" else parse(table[key])
        except ValueError as failure:
            source.refuse((*keys, key), "E103", cause=str(failure), got=repr(table[key]))
            continue
        places[setting] = source.place((*keys, key))
    if "base" in own:
        own["base"] = source.path.parent / own["base"]
    return replace(settings, **own, origin=f"{source.path}:{source.positions(keys)[0]}", places=places)


def _read_reply(parsed: tuple[BreakerSettings, str | None], path: Path) -> BreakerSettings:
    breaker, file = parsed
    return breaker if file is None else with_reply(breaker, path.parent / file)


def _parse_path(value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("expected a directory in quotes")
    return Path(value)


def _parse_labels(value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise ValueError("expected labels with their versions: { stable = 3 }")
    for label, version in value.items():
        if not LABEL.fullmatch(label):
            raise ValueError(f"expected labels of A-Z a-z 0-9 _ . - that are no numbers, not {label!r}")
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION_MAX:
            raise ValueError(f"expected the number of a version for {label!r}")
    return dict(sorted(value.items()))


def _parse_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _parse_keep(value: object) -> int:
    count = parse_count(value)
    if count < 1:
        raise ValueError("expected a whole number from 1")
    return count


def _parse_slo(value: object) -> float:
    milliseconds = parse_milliseconds(value)
    if not 0 <= milliseconds <= SLO_MAX_MS:
        raise ValueError(f"expected milliseconds up to {SLO_MAX_MS}; 0 for none")
    return milliseconds


def _parse_weight(value: object) -> int:
    weight = parse_count(value)
    if not 1 <= weight <= WEIGHT_MAX:
        raise ValueError(f"expected a whole number from 1 to {WEIGHT_MAX}")
    return weight


def _parse_age(value: object) -> float:
    written = value.strip() if isinstance(value, str) else ""
    days = written.removesuffix("d")
    seconds = float(days) * DAY_SECONDS if days != written and days.isdecimal() else parse_seconds(value)
    if not 0 < seconds < float("inf"):
        raise ValueError("expected a time above 0, such as 30d or 12h")
    return seconds


def _parse_cache_ttl(value: object) -> float:
    seconds = parse_seconds(value)
    if not 0 <= seconds <= YEAR_SECONDS:
        raise ValueError("expected a time of up to a year, such as 10m; 0 for no bound")
    return seconds


def _parse_cache_bytes(value: object) -> int:
    size = parse_size(value)
    if size < 1:
        raise ValueError("expected a size such as 16MiB")
    return size


def _parse_run_timeout(value: object) -> float:
    seconds = parse_seconds(value)
    if seconds != 0 and not RUN_TIMEOUT_MIN_S <= seconds <= DAY_SECONDS:
        raise ValueError("expected a time from 1 ms to a day, such as 2s, or 0 for none")
    return seconds


def _parse_shadow(value: object) -> ShadowPlan:
    try:
        return plan_of(value)
    except InvalidArgument as failure:
        raise ValueError(failure.message) from None


def _parse_split(value: object) -> SplitPlan:
    try:
        return split_of_table(value)
    except InvalidArgument as failure:
        raise ValueError(failure.message) from None


# What only the table has: the setting that it makes, and its reader.
OWN_KEYS: Mapping[str, tuple[str, Callable[[object], Any]]] = {
    "base_path": ("base", _parse_path),
    "labels": ("labels", _parse_labels),
    "availability_preserving": ("availability_preserving", _parse_bool),
    "keep_versions": ("keep_versions", _parse_keep),
    "keep_age": ("keep_age_s", _parse_age),
    "weight": ("weight", _parse_weight),
    "slo_p99_ms": ("slo_p99_ms", _parse_slo),
    "cache_ttl": ("cache_ttl_s", _parse_cache_ttl),
    "cache_bytes": ("cache_bytes", _parse_cache_bytes),
    "cache_rows": ("cache_rows", _parse_bool),
    "breaker": ("breaker", parse_breaker),
    "run_timeout": ("run_timeout_s", _parse_run_timeout),
    "shadow": ("shadow", _parse_shadow),
    "split": ("split", _parse_split),
    "rollout": ("rollout", parse_rollout),
    "experiment": ("experiment", parse_experiment),
}


def key_positions(text: str) -> Positions:
    """Where the keys of a TOML text stand, which has to be valid: line and column of the statement that writes a key,
    or of the nearest one around it."""
    found: dict[Keys, Position] = {(): (1, 1)}
    header: Keys = ()
    counts: dict[Keys, int] = {}
    statement: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not statement and (not line.strip() or line.lstrip().startswith("#")):
            continue
        statement.append(line)
        try:
            said = tomllib.loads("\n".join(statement))
        except tomllib.TOMLDecodeError:
            continue                    # goes on in the next line
        start = (number - len(statement) + 1, len(statement[0]) - len(statement[0].lstrip()) + 1)
        is_header = statement[0].lstrip().startswith("[")
        statement = []
        if is_header:
            header = _header_keys(said, counts, found, start)
        else:
            _note(said, header, found, start)

    def position(keys: Keys) -> Position:
        while keys not in found:
            keys = keys[:-1]
        return found[keys]

    return position


def _header_keys(said: Mapping[str, Any], counts: dict[Keys, int], found: dict[Keys, Position],
                 start: Position) -> Keys:
    """The keys of `[a.b]` or `[[a.b]]`; inside a list the last element so far."""
    keys: Keys = ()
    value: Any = said
    while isinstance(value, Mapping) and value:
        name = next(iter(value))
        keys, value = (*keys, name), value[name]
        found.setdefault(keys, start)
        if isinstance(value, list):
            counts[keys] = counts.get(keys, -1) + 1
            value = value[0]
            keys = (*keys, counts[keys])
            found[keys] = start
        elif keys in counts and value:
            keys = (*keys, counts[keys])
    if keys:
        found[keys] = start
    return keys


def _note(value: object, keys: Keys, found: dict[Keys, Position], start: Position) -> None:
    parts: list[tuple[str | int, object]] = []
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    for key, inner in parts:
        found.setdefault((*keys, key), start)
        _note(inner, (*keys, key), found, start)
