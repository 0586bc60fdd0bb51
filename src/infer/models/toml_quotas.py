"""`[tenants.NAME]` and `[models.NAME.limits]` of the server's TOML file: what tenants and models may ask for. Pure but
for the file.

A tenant's table has its limits, its `weight`, and under `models` its limits at single models; `[tenants."*"]` is of
each tenant that has no table, `[tenants.""]` of requests without one. What is wrong is a Problem, all at once.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from infer.config import MODEL_NAME
from infer.config_values import parse_count, parse_size
from infer.models.config_pbtxt import read_text
from infer.models.problems import Problem, error, nearest
from infer.models.tables import Keys, Positions
from infer.models.text_format import Position
from infer.models.toml_models import LIMITS, key_positions
from infer.quotas import NAME_BYTES, NONE, OTHERS, UNITS_MAX, WEIGHT_MAX, Limits, Quotas, TenantQuota, units_of

COUNT_MAX = 1 << 53


def read_toml_quotas(path: Path) -> tuple[Quotas, list[Problem]]:
    """The quotas of a file. One that cannot be read, or is no TOML, is left to those who read the rest of it."""
    text = read_text(path)
    return (NONE, []) if isinstance(text, Problem) else parse_toml_quotas(text, path)


def parse_toml_quotas(text: str, path: Path) -> tuple[Quotas, list[Problem]]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return NONE, []
    source = _Source(path, key_positions(text), [])
    tenants: dict[str, TenantQuota] = {}
    for name, written in source.table(table.get("tenants", {}), ("tenants",)).items():
        tenants[name] = _tenant(name, written, source)
    models: dict[str, Limits] = {}
    for name, written in _tables(table.get("models")).items():
        if LIMITS in written:
            models[name] = _limits(written[LIMITS], ("models", name, LIMITS), source, ())
    others = tenants.pop(OTHERS, TenantQuota())
    return Quotas(tenants, others, {name: limits for name, limits in models.items() if limits},
                  bool(table.get("tenants"))), source.problems


def _tables(table: object) -> dict[str, Mapping[str, Any]]:
    """Those among the values: what else is there is wrong for those who read models."""
    values = table.items() if isinstance(table, Mapping) else ()
    return {name: value for name, value in values if isinstance(value, Mapping)}


@dataclass(frozen=True)
class _Source:
    path: Path
    positions: Positions
    found: list[tuple[Position, Problem]]

    @property
    def problems(self) -> list[Problem]:
        """In the order of their lines."""
        return [problem for _, problem in sorted(self.found, key=lambda each: each[0])]

    def refuse(self, keys: Keys, code: str, **said: str) -> None:
        line, column = place = self.positions(keys)
        self.found.append((place, error(f"{self.path}:{line}:{column}", ".".join(map(str, keys)), code, **said)))

    def table(self, value: object, keys: Keys) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return value
        self.refuse(keys, "E103", expected="a table", got=repr(value))
        return {}


def _tenant(name: str, written: object, source: _Source) -> TenantQuota:
    keys: Keys = ("tenants", name)
    if len(name) > NAME_BYTES or not (name.isascii() and name.isprintable()):
        source.refuse(keys, "E103", expected=f"a name of at most {NAME_BYTES} printable ASCII characters",
                      got=repr(name))
    table = source.table(written, keys)
    limits = _limits(table, keys, source, ("weight", "models"))
    weight = _value(table, "weight", keys, source)
    models: dict[str, Limits] = {}
    for model, inner in source.table(table.get("models", {}), (*keys, "models")).items():
        if not MODEL_NAME.fullmatch(model):
            source.refuse((*keys, "models", model), "E103", expected="a model's name, of 1 to 128 of A-Z a-z 0-9 _ . -",
                          got=repr(model))
        models[model] = _limits(inner, (*keys, "models", model), source, ())
    return TenantQuota(limits, weight or 1, {model: each for model, each in models.items() if each})


def _limits(written: object, keys: Keys, source: _Source, others: tuple[str, ...]) -> Limits:
    table = source.table(written, keys)
    known = [key for key in KEYS if key != "weight"]
    for key in table:
        if key not in known and key not in others:
            near = nearest(key, [*known, *others])
            source.refuse((*keys, key), "E102", cause="is no limit",
                          fix=f"did you mean {near!r}?" if near else f"one of {', '.join(known)}")
    values: dict[str, Any] = {key: _value(table, key, keys, source) for key in known}
    for unit in ("requests", "rows"):
        _complete(values, unit, keys, source)
    return Limits(**{key: value for key, value in values.items() if value is not None})


def _complete(values: dict[str, Any], unit: str, keys: Keys, source: _Source) -> None:
    """The burst of a rate: a second's worth, where none is written."""
    rate, burst = values[f"{unit}_per_second"], values[f"{unit}_burst"]
    if rate is None:
        if burst is not None:
            source.refuse((*keys, f"{unit}_burst"), "E106", cause=f"is the burst of no rate: no {unit}_per_second")
        return
    values[f"{unit}_burst"] = burst = burst or max(1, math.ceil(rate))
    if units_of(rate, burst) > UNITS_MAX:
        source.refuse((*keys, f"{unit}_per_second"), "E109", cause="is more than can be counted exactly",
                      got=f"{rate} a second with a burst of {burst}",
                      fix="write a rate of fewer digits, or a smaller burst")


def _value(table: Mapping[str, Any], key: str, keys: Keys, source: _Source) -> Any:
    """None where it is not there, or wrong."""
    if key not in table:
        return None
    try:
        return KEYS[key](table[key])
    except ValueError as failure:
        source.refuse((*keys, key), "E103", cause=str(failure), got=repr(table[key]))
        return None


def _parse_rate(value: object) -> Fraction:
    rate = None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        # Of a decimal number what is written, not what a double makes of it.
        rate = Fraction(repr(value))
    elif isinstance(value, str) and value.isascii():
        try:
            rate = Fraction(value)
        except (ValueError, ZeroDivisionError):
            rate = None
    if rate is None or not 0 < rate <= COUNT_MAX:
        raise ValueError('expected a number a second above 0, such as 100, 0.5 or "3/7"')
    return rate


def _from_one(parse: Callable[[object], int], most: int) -> Callable[[object], int]:
    def parsed(value: object) -> int:
        number = parse(value)
        if not 1 <= number <= most:
            raise ValueError(f"expected 1 to {most}")
        return number
    return parsed


KEYS: Mapping[str, Callable[[object], Any]] = {
    "requests_per_second": _parse_rate,
    "requests_burst": _from_one(parse_count, COUNT_MAX),
    "rows_per_second": _parse_rate,
    "rows_burst": _from_one(parse_count, COUNT_MAX),
    "max_concurrent": _from_one(parse_count, COUNT_MAX),
    "max_in_flight_bytes": _from_one(parse_size, COUNT_MAX),
    "weight": _from_one(parse_count, WEIGHT_MAX),
}
