"""`[models.NAME.breaker]` of infer.toml: when calls of a version are answered by something else, and what by.

Immutable; any thread. A field that was not written is None: the server's own setting counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from infer.config_admission import AdmissionSettings
from infer.config_values import parse_count, parse_seconds
from infer.models.static_reply import StaticOutput, read_reply

FallbackKind = Literal["none", "previous", "static", "unavailable"]
KINDS: tuple[FallbackKind, ...] = get_args(FallbackKind)
# A window of calls, or an open time, of more is no use, and a shorter window could not be told from none.
WINDOW_MIN_S, TIME_MAX_S = 0.1, 86400.0
PROBES_MAX = 1024


@dataclass(frozen=True)
class BreakerSettings:
    fallback: FallbackKind | None = None    # what answers while it is open; none: there is no breaker
    error_rate: float | None = None         # it opens at that share of failed calls in the window
    window_s: float | None = None
    min_calls: int | None = None            # fewer in the window say nothing
    slow_call_s: float | None = None        # a run of that time or longer is slow; 0: none is
    slow_rate: float | None = None          # it opens at that share of slow calls
    open_for_s: float | None = None         # at first; doubled with each opening in a row
    probes: int | None = None               # calls that have to go well before it closes
    reply: tuple[StaticOutput, ...] = ()    # of fallback static

    def over(self, server: BreakerSettings) -> BreakerSettings:
        """With the server's settings in the place of what was not written."""
        return replace(server, **{name: value for name, value in vars(self).items() if value not in (None, ())})


# What a server does where nothing is said.
DEFAULTS = BreakerSettings(fallback="none", error_rate=0.5, window_s=10.0, min_calls=20, slow_call_s=0.0, slow_rate=0.5,
                           open_for_s=5.0, probes=3)


# The server's own settings, by what they are here.
SERVER_SETTINGS: Mapping[str, str] = {"breaker": "fallback", "breaker_error_rate": "error_rate",
                                      "breaker_window": "window_s", "breaker_open_for": "open_for_s"}


def server_breaker(settings: AdmissionSettings) -> BreakerSettings:
    """What holds where a model does not say."""
    return replace(DEFAULTS, **{field: getattr(settings, name) for name, field in SERVER_SETTINGS.items()})


def parse_breaker(value: object) -> tuple[BreakerSettings, str | None]:
    """The table's settings, and the file of its reply where it names one. Raises ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError('expected a table such as { fallback = "previous" }')
    said: dict[str, Any] = {}
    for key, given in value.items():
        if key not in _KEYS:
            raise ValueError(f"{key!r} is no setting of a breaker: expected some of {', '.join(_KEYS)}")
        setting, parse = _KEYS[key]
        try:
            said[setting] = parse(given)
        except ValueError as failure:
            raise ValueError(f"{key}: {failure}") from None
    file = said.pop("reply", None)
    fallback = said.get("fallback")
    if fallback == "static" and file is None:
        raise ValueError('fallback "static" answers with what is in a file: expected reply = "FILE.json" beside it')
    if fallback not in (None, "static") and file is not None:
        raise ValueError(f'reply: is of no use to fallback "{fallback}": expected "static"')
    return BreakerSettings(**said), file


def with_reply(breaker: BreakerSettings, file: Path) -> BreakerSettings:
    """Reads the file. Raises ValueError."""
    return replace(breaker, reply=read_reply(file))


def guard_limits(breaker: BreakerSettings) -> dict[str, Any] | None:
    """What `fallback.set_guard` takes, of settings of which every one is given; None: no breaker."""
    if breaker.fallback in (None, "none"):
        return None
    return {"fallback": breaker.fallback, "window_ns": _ns(breaker.window_s), "min_calls": breaker.min_calls,
            "error_rate": breaker.error_rate, "slow_ns": _ns(breaker.slow_call_s), "slow_rate": breaker.slow_rate,
            "open_ns": _ns(breaker.open_for_s), "probes": breaker.probes, "reply": breaker.reply}


def _ns(seconds: float | None) -> int:
    return round((seconds or 0.0) * 1e9)


def _kind(value: object) -> str:
    if value not in KINDS:
        raise ValueError(f"expected one of {', '.join(KINDS)}, got {value!r}")
    return str(value)


def _share(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1:
        raise ValueError(f"expected a share above 0 and up to 1, got {value!r}")
    return float(value)


def _time(least: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        seconds = parse_seconds(value)
        if not least <= seconds <= TIME_MAX_S:
            raise ValueError(f"expected a time from {least:g} s to a day, got {value!r}")
        return seconds

    return parse


def _count(most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        count = parse_count(value)
        if not 1 <= count <= most:
            raise ValueError(f"expected a whole number from 1 to {most}, got {value!r}")
        return count

    return parse


def _file(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected a file in quotes")
    return value


_KEYS: Mapping[str, tuple[str, Callable[[object], Any]]] = {
    "fallback": ("fallback", _kind),
    "reply": ("reply", _file),
    "error_rate": ("error_rate", _share),
    "window": ("window_s", _time(WINDOW_MIN_S)),
    "min_calls": ("min_calls", _count(1 << 30)),
    "slow_call": ("slow_call_s", _time(0.0)),
    "slow_rate": ("slow_rate", _share),
    "open_for": ("open_for_s", _time(0.001)),
    "probes": ("probes", _count(PROBES_MAX)),
}
