"""What an experiment with a model is, as RPCs and the store have it: plain, immutable, validated. Any thread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infer.errors import InvalidArgument
from infer.outcome_metrics import Metric, ensure_metrics, parse_metrics
from infer.rollouts import LIMITS, QUANTILES, Guardrail, RolloutSettings, parse_guardrails, parse_seconds
from infer.split_plan import DEFAULT_KEY, ArmPlan, SplitPlan, arm_of

# Each pair of an arm and a metric costs the loop about a millisecond now and then.
MAX_ARMS, MAX_METRICS = 8, 8
KINDS = ("errors", *QUANTILES)
DAY_SECONDS = 86400.0


def _ensure(good: bool, text: str) -> None:
    if not good:
        raise InvalidArgument(text)


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True)
class ExperimentSettings:
    """The first arm is the control that the others are compared with, the first metric the one that decides."""

    arms: tuple[ArmPlan, ...]
    metrics: tuple[Metric, ...]
    key: str = DEFAULT_KEY          # the request's parameter with the routing key
    guardrails: tuple[Guardrail, ...] = tuple(Guardrail(kind, LIMITS[kind]) for kind in KINDS if kind in LIMITS)
    min_samples: int = 100          # calls of an arm before a guardrail of it is passed
    alpha: float = 0.05             # chance that any interval is ever wrong; the same again for guardrails
    window_s: float = 3600.0        # how long after its request an outcome counts
    min_effect: float = 0.0         # of the first metric; less is no difference to anybody. 0: not said

    def __post_init__(self) -> None:
        _ensure(2 <= len(self.arms) <= MAX_ARMS, f"arms: expected 2 to {MAX_ARMS}, the control first, such as "
                                                 f"control=1,new=2; got {len(self.arms)}")
        _ensure(all(arm.weight > 0 for arm in self.arms), "weights: expected each to be above 0")
        ensure_metrics(self.metrics)
        _ensure(len(self.metrics) <= MAX_METRICS,
                f"expected at most {MAX_METRICS} metrics of an experiment, got {len(self.metrics)}")
        for guardrail in self.guardrails:
            _ensure(guardrail.kind in KINDS, f"guardrail {guardrail.kind!r} is none of an experiment's: expected some "
                                             f"of {', '.join(KINDS)}")
        _ensure(isinstance(self.min_samples, int) and _is_number(self.min_samples, 1, 10 ** 9),
                f"min_samples: expected 1 to 1e9, got {self.min_samples!r}")
        _ensure(_is_number(self.alpha, 1e-6, 0.5), f"alpha: expected 1e-6 to 0.5, got {self.alpha!r}")
        _ensure(_is_number(self.window_s, 1.0, 30 * DAY_SECONDS),
                f"window: expected 1 s to 30 days, got {self.window_s!r} s")
        primary = self.metrics[0]
        _ensure(_is_number(self.min_effect, 0.0, primary.high - primary.low) and math.isfinite(self.min_effect),
                f"min_effect: expected 0 to {primary.high - primary.low:g}, the range of {primary.name}, got "
                f"{self.min_effect!r}")
        self.split("any")

    def split(self, name: str) -> SplitPlan:
        """What divides the model's requests in an experiment of that name."""
        return SplitPlan(self.arms, name, self.key)

    @property
    def held(self) -> RolloutSettings | None:
        """What each arm but the control is held to by guardrails; None: nothing."""
        if not self.guardrails:
            return None
        return RolloutSettings((100.0,), 0.0, self.guardrails, self.min_samples, self.alpha / (len(self.arms) - 1))

    def to_record(self) -> dict[str, Any]:
        return {**vars(self), "arms": [vars(arm).copy() for arm in self.arms],
                "metrics": [vars(metric).copy() for metric in self.metrics],
                "guardrails": {each.kind: each.limit for each in self.guardrails}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ExperimentSettings:
        """Raises InvalidArgument for what is no record of one."""
        try:
            return cls(**{**record, "arms": tuple(ArmPlan(**each) for each in record["arms"]),
                          "metrics": tuple(Metric.from_record(each) for each in record["metrics"]),
                          "guardrails": tuple(Guardrail(*each) for each in record["guardrails"].items())})
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(f"the record of an experiment is damaged: {error!r}") from None


def parse_experiment_arms(text: str, weights: str = "") -> tuple[ArmPlan, ...]:
    """NAME=[MODEL:]VERSION, separated by commas, and weights in their order, 1 of each where none are given."""
    named = [each.strip().partition("=") for each in text.split(",") if each.strip()]
    _ensure(bool(named) and all(name and place for name, _, place in named),
            f"arms {text!r}: expected NAME=VERSION of each, the control first, such as control=1,new=2")
    return _weighted([(name, place) for name, _, place in named], weights)


def _weighted(named: Sequence[tuple[str, str]], weights: str) -> tuple[ArmPlan, ...]:
    try:
        shares = [float(each) for each in weights.split(",")] if weights else [1.0] * len(named)
    except ValueError:
        raise InvalidArgument(f"weights {weights!r}: expected numbers, such as 50,50") from None
    _ensure(len(shares) == len(named), f"weights {weights!r}: expected one of each arm, {len(named)}")
    return tuple(arm_of(name, place, share) for (name, place), share in zip(named, shares, strict=True))


def parse_experiment_guardrails(written: Iterable[str]) -> tuple[Guardrail, ...]:
    """As a rollout's, without what compares outputs: arms may be other models."""
    return parse_guardrails([*(f"{kind}=off" for kind in LIMITS if kind not in KINDS), *written])


@dataclass(frozen=True)
class ExperimentPlan:
    """What settings ask for: an experiment of that name, once."""

    name: str
    settings: ExperimentSettings


def parse_experiment(value: object) -> ExperimentPlan:
    """`[models.NAME.experiment]`, in the words of `infer experiment start`. Raises ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError('expected a table such as { name = "retrained", arms = { control = 3, new = 4 }, metrics = '
                         '["clicked:rate"] }')
    try:
        for key in value:
            _ensure(key in _KEYS, f"{key!r} is no setting of an experiment: expected some of {', '.join(_KEYS)}")
        for key in ("name", "arms", "metrics"):
            _ensure(key in value, f"{key}: an experiment needs one, and the settings name none")
        for key in ("name", "key"):
            _ensure(isinstance(value.get(key, ""), str), f"{key}: expected text, got {value.get(key)!r}")
        said = {key: value[key] for key in ("key", "alpha", "min_effect", "min_samples") if key in value}
        if "window" in value:
            said["window_s"] = parse_seconds(str(value["window"]))
        if "guardrails" in value:
            table = value["guardrails"]
            _ensure(isinstance(table, Mapping),
                    'guardrails: expected limits by kind, such as { errors = 0.01, p50 = "off" }')
            said["guardrails"] = parse_experiment_guardrails(f"{kind}={limit}" for kind, limit in table.items())
        settings = ExperimentSettings(_arms_in(value["arms"], _weights_text(value.get("weights", ""))),
                                      parse_metrics(_texts(value["metrics"])), **said)
        # Its name is held to what a split's is.
        settings.split(value["name"])
    except InvalidArgument as error:
        raise ValueError(error.message) from None
    return ExperimentPlan(value["name"], settings)


_KEYS = ("name", "arms", "weights", "metrics", "key", "guardrails", "alpha", "window", "min_effect", "min_samples")


def _arms_in(arms: object, weights: str) -> tuple[ArmPlan, ...]:
    """A table, or the text that the command line has."""
    if isinstance(arms, str):
        return parse_experiment_arms(arms, weights)
    if not isinstance(arms, Mapping) or not all(
            isinstance(place, (int, str)) and not isinstance(place, bool) for place in arms.values()):
        raise InvalidArgument("arms: expected the version that each leads to, the control first, such as "
                              f"{{ control = 3, new = 4 }}, got {arms!r}")
    return _weighted([(name, str(place)) for name, place in arms.items()], weights)


def _weights_text(weights: object) -> str:
    if isinstance(weights, list):
        return ",".join(str(each) for each in weights)
    _ensure(isinstance(weights, str), f"weights: expected one of each arm, such as [50, 50], got {weights!r}")
    return str(weights)


def _texts(metrics: object) -> Sequence[str]:
    written = [metrics] if isinstance(metrics, str) else metrics
    if not isinstance(written, list) or not all(isinstance(each, str) for each in written):
        raise InvalidArgument(f'metrics: expected what clients report, such as ["clicked:rate"], got {metrics!r}')
    return written
