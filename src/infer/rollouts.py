"""What a rollout of a model is held to, as settings, RPCs and the store have it: plain, immutable, validated. Any
thread."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from infer.errors import InvalidArgument
from infer.gate_plan import GatePlan, parse_gates
from infer.outcome_metrics import Metric, ensure_metrics, parse_metric

OnRestart = Literal["continue", "rollback"]
OnNewVersion = Literal["serve", "rollout"]

# Quantiles of latency that a guardrail may be about.
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
# What a shadow of the new version tells.
SHADOW_KINDS = ("disagreement", "top1")
KINDS = ("errors", *QUANTILES, "drift", *SHADOW_KINDS)
LIMITS = {"errors": 0.01, "p50": 1.5, "p99": 1.5, "drift": 0.1}
# Before the name of a metric that clients report outcomes of, or `NAME:mean:MIN..MAX`.
OUTCOME = "outcome:"
MAX_STEPS = 32
DAY_SECONDS = 86400.0
NO_GATES = GatePlan()
# Outputs of versions that are the same to their callers; those of one version on two machines are nearer.
RTOL, ATOL = 1e-3, 1e-5


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _ensure(good: bool, text: str) -> None:
    if not good:
        raise InvalidArgument(text)


@dataclass(frozen=True)
class Guardrail:
    """`limit`: of `errors` and `drift` a difference of shares, of a quantile a ratio, of those of a shadow a share; of
    an outcome how far its mean may rise, below 0 how far it may fall."""

    kind: str
    limit: float

    def __post_init__(self) -> None:
        metric = self.metric
        _ensure(self.kind in KINDS or metric is not None, f"guardrail {self.kind!r} is not known; expected one of "
                f"{', '.join(KINDS)}, or {OUTCOME}METRIC")
        if metric is not None:
            most = metric.high - metric.low
            _ensure(_is_number(self.limit) and 0 < abs(self.limit) < most,
                    f"guardrail {self.kind!r}: expected how far it may rise, or below 0 how far it may fall, by less "
                    f"than {most:g}, got {self.limit!r}")
            return
        low, high = (1.0, 100.0) if self.kind in QUANTILES else (0.0, 1.0)
        _ensure(_is_number(self.limit) and low <= self.limit < high,
                f"guardrail {self.kind!r}: expected a limit from {low:g} to below {high:g}, got {self.limit!r}")
        _ensure(self.kind not in SHADOW_KINDS or self.limit > 0,
                f"guardrail {self.kind!r}: expected a limit above 0, got {self.limit!r}: none is never shown")

    @property
    def of_others(self) -> bool:
        """Whether it is told by other things than the calls that the new version answers."""
        return self.kind in SHADOW_KINDS or self.kind.startswith(OUTCOME)

    @property
    def metric(self) -> Metric | None:
        """The one whose outcomes it is about: of 0 or 1 where only its name is given. Raises InvalidArgument."""
        name = self.kind.removeprefix(OUTCOME)
        if name == self.kind:
            return None
        return parse_metric(name if ":" in name else f"{name}:rate")

    def __str__(self) -> str:
        return f"{self.kind}={self.limit:g}"


def parse_guardrails(written: Iterable[str]) -> tuple[Guardrail, ...]:
    """Each `KIND=LIMIT` or `KIND=off`, over the defaults. Raises InvalidArgument."""
    limits: dict[str, float] = dict(LIMITS)
    for text in written:
        kind, _, limit = text.partition("=")
        if limit == "off" and kind in KINDS:
            limits.pop(kind, None)
            continue
        try:
            limits[kind] = float(limit)
        except ValueError:
            raise InvalidArgument(f"guardrail {text!r}: expected KIND=LIMIT, such as errors=0.01, p99=1.5 or "
                                  "drift=off") from None
    return tuple(Guardrail(kind, limit) for kind, limit in limits.items())


@dataclass(frozen=True)
class RolloutSettings:
    """How versions of a model are rolled out."""

    steps: tuple[float, ...] = (1.0, 5.0, 25.0, 50.0, 100.0)   # percent of the calls that name no version
    every_s: float = 300.0                      # how long a step lasts at least
    guardrails: tuple[Guardrail, ...] = tuple(Guardrail(*each) for each in LIMITS.items())
    min_samples: int = 100                      # calls of the new version in a step; fewer say nothing
    alpha: float = 0.05                         # chance that a version as good as the old one is taken back
    on_restart: OnRestart = "continue"          # what a server does that was started anew
    on_new_version: OnNewVersion = "serve"      # what becomes of a version that is new in the repository
    latency_slack_ms: float = 0.5               # within which no latency is worse, whatever the ratio is
    rtol: float = RTOL                          # within which two outputs are the same: this part of the old version's
    atol: float = ATOL                          # and this beside it
    shadow_fraction: float = 1.0                # of the old version's calls that its shadow has copies of
    gates: GatePlan = NO_GATES                  # what comes before the first step

    def __post_init__(self) -> None:
        good = all(_is_number(each) and 0 <= each <= 100 for each in self.steps)
        _ensure(good and 0 < len(self.steps) <= MAX_STEPS and list(self.steps) == sorted(set(self.steps))
                and self.steps[-1] == 100, f"steps: expected up to {MAX_STEPS} percentages that rise to 100, such as "
                                           f"1,5,25,50,100; got {list(self.steps)}")
        _ensure(self.steps[0] > 0 or self.has_shadow, "steps: a first step of 0% needs a guardrail of a shadow: "
                f"{' or '.join(SHADOW_KINDS)}")
        _ensure(_is_number(self.every_s) and 0 <= self.every_s <= 30 * DAY_SECONDS,
                f"every: expected 0 to 30 days, got {self.every_s!r} s")
        _ensure(len(self.guardrails) > 0, "guardrails: expected at least one that is not off")
        _ensure(isinstance(self.min_samples, int) and 1 <= self.min_samples <= 10 ** 9,
                f"min_samples: expected 1 to 1e9, got {self.min_samples!r}")
        _ensure(_is_number(self.alpha) and 1e-6 <= self.alpha <= 0.5,
                f"alpha: expected 1e-6 to 0.5, got {self.alpha!r}")
        _ensure(_is_number(self.latency_slack_ms) and 0 <= self.latency_slack_ms <= 1e6,
                f"latency_slack_ms: expected 0 to 1e6, got {self.latency_slack_ms!r}")
        if self.metrics:
            ensure_metrics(self.metrics)
        for name in ("rtol", "atol"):
            _ensure(_is_number(getattr(self, name)) and 0 <= getattr(self, name) <= 1e6,
                    f"{name}: expected 0 to 1e6, got {getattr(self, name)!r}")
        _ensure(_is_number(self.shadow_fraction) and 0 < self.shadow_fraction <= 1,
                f"shadow_fraction: expected a part of all calls, above 0 and at most 1, got {self.shadow_fraction!r}")
        _ensure(self.on_restart in get_args(OnRestart),
                f"on_restart: expected continue or rollback, got {self.on_restart!r}")
        _ensure(self.on_new_version in get_args(OnNewVersion),
                f"on_new_version: expected serve or rollout, got {self.on_new_version!r}")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Of outcomes that guardrails are about."""
        return tuple(metric for each in self.guardrails if (metric := each.metric) is not None)

    @property
    def has_shadow(self) -> bool:
        """Whether any guardrail needs one."""
        return any(each.kind in SHADOW_KINDS for each in self.guardrails)

    def to_record(self) -> dict[str, Any]:
        return {**vars(self), "steps": list(self.steps),
                "guardrails": {each.kind: each.limit for each in self.guardrails}, "gates": vars(self.gates)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RolloutSettings:
        """Raises InvalidArgument, or KeyError and the like for what is no record of one."""
        guardrails = tuple(Guardrail(*each) for each in record["guardrails"].items())
        return cls(**{**record, "steps": tuple(record["steps"]), "guardrails": guardrails,
                      "gates": GatePlan(**record.get("gates", {}))})


def parse_rollout(value: object) -> RolloutSettings:
    """`[models.NAME.rollout]`. Raises ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError('expected a table such as { steps = [1, 10, 100], every = "5m" }')
    said: dict[str, Any] = {}
    for key, given in value.items():
        if key not in _KEYS:
            raise ValueError(f"{key!r} is no setting of a rollout: expected some of {', '.join(_KEYS)}")
        said["every_s" if key == "every" else key] = given
    try:
        if "steps" in said:
            said["steps"] = tuple(said["steps"]) if isinstance(said["steps"], list) else parse_steps(str(said["steps"]))
        if "every_s" in said:
            said["every_s"] = parse_seconds(str(said["every_s"]))
        if "guardrails" in said:
            table = said["guardrails"]
            if not isinstance(table, Mapping):
                raise ValueError('guardrails: expected limits by kind, such as { errors = 0.01, drift = "off" }')
            said["guardrails"] = parse_guardrails(f"{kind}={limit}" for kind, limit in table.items())
        if "gates" in said:
            table = said["gates"]
            if not isinstance(table, Mapping):
                raise ValueError('gates: expected limits by kind, such as { latency = "5ms", replay = "monday" }')
            said["gates"] = parse_gates(f"{kind}={limit}" for kind, limit in table.items())
        return RolloutSettings(**said)
    except InvalidArgument as error:
        raise ValueError(error.message) from None


_KEYS = ("steps", "every", "guardrails", "min_samples", "alpha", "latency_slack_ms", "rtol", "atol", "shadow_fraction",
         "gates", "on_restart", "on_new_version")


def parse_steps(text: str) -> tuple[float, ...]:
    """Percentages separated by commas. Raises InvalidArgument."""
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError:
        raise InvalidArgument(f"steps {text!r}: expected percentages, such as 1,5,25,50,100") from None


_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_SECONDS}


def parse_seconds(text: str) -> float:
    """`300`, `300s`, `5m`, `2h` or `1d`. Raises InvalidArgument."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip())
    if found is None:
        raise InvalidArgument(f"time {text!r}: expected a number and s, m, h or d, such as 5m")
    return float(found[1]) * _UNITS[found[2]]
