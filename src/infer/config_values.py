"""A setting's declaration, and what its value may be written as: whole numbers, sizes, times, paths, providers.

Each parser takes text or what TOML has for it, and raises ValueError that says what was expected. Any thread.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

PROVIDERS = ("cpu", "cuda", "tensorrt", "openvino")

_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_SECONDS = {"": 1.0, "s": 1.0, "us": 1e-6, "ms": 1e-3, "m": 60.0, "min": 60.0, "h": 3600.0}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")

Provider = tuple[str, dict[str, str]]


def setting(default: object, text: str, value: str, shown: str | None = None, *, live: bool = False,
             **bounds: Any) -> Any:
    """A field; `value` names what it takes and `shown` its default with the unit, both for `infer serve --help`.

    `live`: a server that runs applies a change when it reads its settings again (SIGHUP).
    """
    extra: dict[str, Any] = {"metavar": value, "shown": shown or (str(default) if default is not None else ""),
                             "live": live}
    return Field(default, description=text, json_schema_extra=extra, **bounds)


def parse_count(value: object) -> int:
    """A whole number; text may carry a decimal or binary scale: 512, 1k, 2Ki."""
    return _scaled(value, "")


def parse_size(value: object) -> int:
    """Bytes; text may carry a unit: 65536, 64MiB, 1k, 2GB."""
    return _scaled(value, "b")


def _scaled(value: object, unit: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _AMOUNT.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match:
        scale = _SCALES.get(match[2].removesuffix(unit) if unit else match[2])
        if scale and "." not in match[1]:
            return int(match[1]) * scale
        if scale and (float(match[1]) * scale).is_integer():
            return int(float(match[1]) * scale)
    if isinstance(value, str) and re.fullmatch(r"-[0-9]+", value.strip()):
        return int(value)
    raise ValueError(f"expected a {'size such as 65536, 64MiB' if unit else 'whole number such as 64'} or 1k")


def parse_seconds(value: object) -> float:
    """Seconds; text may carry a unit: 30, 0.5, 500ms, 2m."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    match = _AMOUNT.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match and match[2] in _SECONDS:
        return float(match[1]) * _SECONDS[match[2]]
    raise ValueError("expected a time such as 30, 1.5s, 500ms or 2m")


def parse_milliseconds(value: object) -> float:
    """A number of milliseconds: 20, 0.5."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value.strip()):
        return float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ValueError("expected a number of milliseconds such as 20 or 0.5")


def parse_providers(value: object) -> tuple[Provider, ...]:
    """Execution providers in the order of preference; empty for `auto`.

    Text is `auto`, or `name` or `name:key=value,key=value`; several are divided by `;` or come as a list.
    """
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError("expected auto or name:key=value,...")
    if [part.strip() for part in parts] == ["auto"]:
        return ()
    providers = [_parse_provider(part) for part in parts]
    names = [name for name, _ in providers]
    if len(set(names)) < len(names):
        raise ValueError(f"a provider is named twice: {', '.join(names)}")
    return tuple(providers)


def _parse_provider(text: str) -> Provider:
    name, _, rest = text.strip().partition(":")
    if name not in PROVIDERS:
        expected = "auto only by itself" if name == "auto" else "auto, " + ", ".join(PROVIDERS)
        raise ValueError(f"unknown execution provider {name!r}{nearest(name, PROVIDERS)}; expected {expected}")
    options: dict[str, str] = {}
    for option in filter(None, rest.split(",")):
        key, equals, setting = option.partition("=")
        if not key or not equals:
            raise ValueError(f"option {option!r} of provider {name!r} is not key=value")
        if key in options:
            raise ValueError(f"option {key!r} of provider {name!r} is given twice")
        options[key] = setting
    return name, options


def lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def bare_host(value: object) -> object:
    return value.removeprefix("[").removesuffix("]") if isinstance(value, str) else value


def path_list(value: object) -> object:
    parts = [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value
    # Path("") is the working directory, which nobody means by it.
    if isinstance(parts, (list, tuple)) and "" in parts:
        raise ValueError("a path is empty; a variable in the command line may be unset")
    return parts


def name_list(value: object) -> object:
    """Names, divided by commas where they are text."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def tenant_key(value: str) -> str:
    """A metadata key whose value is text, and the caller's own."""
    if value.endswith("-bin") or value.startswith("grpc-") or value in ("te", "content-type", "user-agent"):
        raise ValueError("expected a metadata key of your own, such as x-tenant, that does not end in -bin")
    return value


def parse_port_or_none(value: object) -> int | None:
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    return parse_count(value)


def routing_key(value: str) -> str:
    return value and tenant_key(value)


Count = Annotated[int, BeforeValidator(parse_count)]
Size = Annotated[int, BeforeValidator(parse_size)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]


def nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
