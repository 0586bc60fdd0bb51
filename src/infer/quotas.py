"""Quotas as the settings have them: what tenants, models, and tenants at models may ask for. Plain; any thread."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

SECOND_NS = 10**9

# The table of all tenants that have none of their own.
OTHERS = "*"
NAME_BYTES = 255
WEIGHT_MAX = 1000
# That the core can count a full bucket in.
UNITS_MAX = 1 << 61


def units_of(per_second: Fraction, burst: int) -> int:
    """What a bucket of the core has to count to."""
    common = math.gcd(per_second.numerator, SECOND_NS)
    return max(burst * (per_second.denominator * SECOND_NS // common), per_second.numerator)


@dataclass(frozen=True)
class Limits:
    """None and 0: no limit. A burst counts where there is a rate."""

    requests_per_second: Fraction | None = None
    requests_burst: int = 0
    rows_per_second: Fraction | None = None
    rows_burst: int = 0
    max_concurrent: int = 0             # requests
    max_in_flight_bytes: int = 0        # of their messages

    def __bool__(self) -> bool:
        return self != Limits()


@dataclass(frozen=True)
class TenantQuota:
    """Of one tenant, or of each that has none of its own."""

    limits: Limits = Limits()
    weight: int = 1
    models: Mapping[str, Limits] = field(default_factory=dict)      # at single models, beside `limits`


@dataclass(frozen=True)
class Quotas:
    """All of a server."""

    tenants: Mapping[str, TenantQuota] = field(default_factory=dict)
    others: TenantQuota = TenantQuota()
    models: Mapping[str, Limits] = field(default_factory=dict)      # of all tenants together
    listed: bool = False                # the settings have tables of tenants: one has to be known where it can be


NONE = Quotas()


def differences(old: Quotas, new: Quotas) -> list[str]:
    """What changes, each as `[tenants.a] weight: 1 -> 2`, in the order of the new ones."""
    before, after = _written(old), _written(new)
    return [f"{place}: {before.get(place, 'unset')} -> {after.get(place, 'unset')}"
            for place in dict.fromkeys([*after, *before]) if before.get(place) != after.get(place)]


def _written(quotas: Quotas) -> dict[str, str]:
    """All that is set, by its place."""
    found: dict[str, str] = {}
    for name, tenant in {OTHERS: quotas.others, **quotas.tenants}.items():
        if tenant.weight != 1:
            found[f"[tenants.{_key(name)}] weight"] = str(tenant.weight)
        found |= _limits(f"[tenants.{_key(name)}]", tenant.limits)
        for model, limits in tenant.models.items():
            found |= _limits(f"[tenants.{_key(name)}.models.{_key(model)}]", limits)
    for model, limits in quotas.models.items():
        found |= _limits(f"[models.{_key(model)}.limits]", limits)
    return found


def _limits(table: str, limits: Limits) -> dict[str, str]:
    return {f"{table} {name}": str(value) for name, value in vars(limits).items() if value}


def _key(name: str) -> str:
    """As TOML has it."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
