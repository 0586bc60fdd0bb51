"""Outcomes that clients report of replies, summed up per arm of what divides a model's requests. Loop thread.

How to use it: `Outcomes.watch(model, metrics)` begins to count the outcomes of a model, whatever divides its requests
then (an experiment's split, a rollout's, whose arms are named by their versions) and however its weights change;
`sums(model)` has, by the arm's name and the metric's, the cumulative (n, sum, sum of squares) on the metric's scale of
0 to 1 (`Metric.unit_of`; a rate's are its cases); `unwatch(model)` ends that. One who watches at a time per model:
experiments and rollouts exclude each other. Nothing here is kept over a restart: `watch` takes sums to go on from.

An outcome says whose it is by a request id or a routing key. Its unit is the routing key either way, since that is what
was dealt to an arm: a request's is remembered with its id. Of each unit the first outcome of a metric counts, as long
as the unit is remembered. A request without a key is a unit by itself. The arm of a key is what the split says now, the
arm of a request the one that had it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from infer._core.recent import Recent
from infer._core.variants import hash_of
from infer.errors import FailedPrecondition, InferError, InvalidArgument, NotFound, ResourceExhausted
from infer.outcome_metrics import Metric, Outcome, ensure_metrics
from infer.split_plan import KEY_BYTES
from infer.traffic.routes import Traffic

Result = Literal["accepted", "duplicate", "unknown", "late"]
ACCEPTED: Result = "accepted"
DUPLICATE: Result = "duplicate"
UNKNOWN: Result = "unknown"
LATE: Result = "late"
REFUSED = "refused"
# How long after its request an outcome counts, unless that is said.
WINDOW_SECONDS = 3600.0
# They are looked at on the loop, where all calls wait meanwhile.
MAX_OUTCOMES = 1000


class Sums(NamedTuple):
    n: float = 0
    total: float = 0.0
    squares: float = 0.0


@dataclass
class _Watch:
    metrics: Mapping[str, Metric]
    window_ns: int
    requests: Recent            # by the hash of its id
    reported: Recent            # by unit and metric
    sums: dict[str, dict[str, Sums]]
    names: list[str] = field(default_factory=list)      # of arms, by the number that requests are remembered with


class Outcomes:
    """One per server. `now_ns` is the clock of requests; `remembered`: requests, and outcomes, of each model."""

    def __init__(self, traffic: Traffic, *, now_ns: Callable[[], int], remembered: int) -> None:
        self._traffic, self._now_ns, self._remembered = traffic, now_ns, remembered
        self._watches: dict[str, _Watch] = {}
        self.results: Counter[tuple[str, str]] = Counter()      # outcomes by model and result

    def watch(self, model: str, metrics: Sequence[Metric], *, window_s: float = WINDOW_SECONDS,
              sums: Mapping[str, Mapping[str, Sums]] | None = None) -> None:
        """From now on outcomes of the model count; it has no watch yet. Raises InvalidArgument for what is no list of
        metrics, ResourceExhausted where there is no memory."""
        watch = self._watches[model] = _Watch(
            {each.name: each for each in ensure_metrics(tuple(metrics))}, round(window_s * 1e9),
            self._recent(), self._recent(),
            {arm: dict(of) for arm, of in (sums or {}).items()})

        def number_of(name: str) -> int:
            if name not in watch.names:
                watch.names.append(name)
            return watch.names.index(name)

        self._traffic.remember(model, watch.requests, number_of)

    def _recent(self) -> Recent:
        try:
            return Recent(self._remembered)
        except MemoryError:
            raise ResourceExhausted(f"no memory to remember {self._remembered} requests and outcomes; a smaller "
                                    "--max-outcomes needs less") from None

    def unwatch(self, model: str) -> None:
        """Outcomes of the model are refused from now on."""
        if self._watches.pop(model, None) is not None:
            self._traffic.remember(model, None)

    def sums(self, model: str) -> Mapping[str, Mapping[str, Sums]]:
        """By arm and metric; what nobody has reported of is not there. Of a model without a watch: nothing."""
        watch = self._watches.get(model)
        return {} if watch is None else watch.sums

    def results_of(self, model: str) -> dict[str, int]:
        """Outcomes of the model by their result, since the server's start."""
        return {result: count for (name, result), count in self.results.items() if name == model}

    def ensure_number(self, number: int) -> None:
        """Of outcomes in one call. Raises InvalidArgument."""
        if not 0 < number <= MAX_OUTCOMES:
            self.results["", REFUSED] += max(number, 1)
            raise InvalidArgument(f"expected 1 to {MAX_OUTCOMES} outcomes in a call, got {number}")

    def record(self, outcomes: Sequence[Outcome]) -> Counter[str]:
        """How many came to what. Raises InferError where one of them cannot be an outcome; then none has counted."""
        self.ensure_number(len(outcomes))
        units: list[float] = []
        try:
            for each in outcomes:
                units.append(self._checked(each))
        except InferError as error:
            self.results["", REFUSED] += len(outcomes)
            number = len(units)
            raise type(error)(f"outcome {number}, of model {outcomes[number].model!r:.80}: {error.message}") from None
        now_ns = self._now_ns()
        found = Counter((each.model, self._count(self._watches[each.model], each, unit, now_ns))
                        for each, unit in zip(outcomes, units, strict=True))
        self.results.update(found)
        results: Counter[str] = Counter()
        for (_, result), count in found.items():
            results[result] += count
        return results

    def _checked(self, outcome: Outcome) -> float:
        """Its value on the scale of sums. Raises InferError."""
        watch = self._watches.get(outcome.model)
        if watch is None:
            if self._traffic.served(outcome.model) is None:
                raise NotFound("no such model; `infer models` lists those that are served")
            raise FailedPrecondition("nobody counts its outcomes; `infer experiment start`, or a rollout with an "
                                     "outcome as guardrail, begins that")
        metric = watch.metrics.get(outcome.metric)
        if metric is None:
            raise InvalidArgument(f"metric {outcome.metric!r:.80} is none of {', '.join(watch.metrics)}")
        if bool(outcome.request_id) == bool(outcome.routing_key):
            raise InvalidArgument("expected the id of a request or a routing key, and not both")
        if len((outcome.request_id or outcome.routing_key).encode()) > KEY_BYTES:
            raise InvalidArgument(f"expected at most {KEY_BYTES} bytes of an id or routing key")
        return metric.unit_of(outcome.value)

    def _count(self, watch: _Watch, outcome: Outcome, value: float, now_ns: int) -> Result:
        if outcome.request_id:
            known = watch.requests.find(hash_of(outcome.request_id.encode()))
            if known is None:
                return UNKNOWN
            unit, number, at_ns = known
            if now_ns - at_ns > watch.window_ns:
                return LATE
            arm = watch.names[number]
        else:
            key = outcome.routing_key.encode()
            unit, name = hash_of(key), self._traffic.arm_of(outcome.model, key)
            if name is None:
                return UNKNOWN
            arm = name
        seen = hash_of(unit.to_bytes(8, "little") + outcome.metric.encode())
        if watch.reported.find(seen) is not None:
            return DUPLICATE
        watch.reported.put(seen)
        of = watch.sums.setdefault(arm, {})
        n, total, squares = of.get(outcome.metric, Sums())
        of[outcome.metric] = Sums(n + 1, total + value, squares + value * value)
        return ACCEPTED

    @property
    def gauges(self) -> dict[str, Any]:
        """By key of SERVER_METRICS. Any thread."""
        watches = list(self._watches.items())
        kinds = ("requests", "reported")
        return {"outcomes": dict(self.results),
                "outcome_remembered": {(model, kind): len(getattr(watch, kind)) for model, watch in watches
                                       for kind in kinds},
                "outcome_forgotten": {(model, kind): getattr(watch, kind).forgotten for model, watch in watches
                                      for kind in kinds}}
