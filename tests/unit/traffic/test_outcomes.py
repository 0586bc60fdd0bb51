"""Outcomes against a plain model: which of them count, for which arm, and what is said of those that do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core.arm import Arm
from infer._core.variants import hash_of
from infer.errors import FailedPrecondition, InferError, InvalidArgument, NotFound, ResourceExhausted
from infer.outcome_metrics import Metric, Outcome
from infer.split_plan import SplitPlan, parse_arms
from infer.traffic.outcomes import MAX_OUTCOMES, Outcomes, Sums
from infer.traffic.routes import Traffic
from tests.support.splits import chosen
from tests.unit.traffic.test_routes import route, version

SECOND_NS = 1_000_000_000
METRICS = (Metric("clicked"), Metric("spend", "mean", "higher", 0.0, 10.0))
KEYS = [f"user-{i}" for i in range(12)]
WEIGHTS = {"a": 50.0, "b": 50.0}
ARM_OF = {key: chosen("m/split", WEIGHTS, {}, key.encode()) for key in KEYS}


class Counting:
    """Model `m` divided over arms a and b, whose outcomes are counted."""

    def __init__(self, remembered: int = 100, window_s: float = 10.0) -> None:
        self.now_ns = 1000 * SECOND_NS
        self.traffic = Traffic()
        self.outcomes = Outcomes(self.traffic, now_ns=lambda: self.now_ns, remembered=remembered)
        self.traffic.merged({"m": route(version("2"), version("1")), "n": route(version("1", "n"))})
        self.divide("a@1=50,b@2=50")
        self.outcomes.watch("m", METRICS, window_s=window_s)

    def divide(self, to: str | None) -> None:
        self.traffic.set_split("m", to and SplitPlan(parse_arms(to)))  # type: ignore[arg-type]
        self.traffic.merged({})

    def routed(self, identity: str, key: str) -> None:
        """As the core does with a request."""
        arm: Arm = self.traffic.arms["m"][ARM_OF[key]]
        assert arm.recent is not None
        arm.recent.put(hash_of(identity.encode()), hash_of(key.encode()),
                       ["a", "b"].index(ARM_OF[key]), self.now_ns)

    def record(self, *outcomes: Outcome) -> dict[str, int]:
        return dict(self.outcomes.record(outcomes))

    def sums(self) -> dict[str, dict[str, Sums]]:
        return {arm: dict(of) for arm, of in self.outcomes.sums("m").items()}


def of_key(key: str, value: float = 1.0, metric: str = "clicked") -> Outcome:
    return Outcome("m", metric, value, routing_key=key)


def of_request(identity: str, value: float = 1.0, metric: str = "clicked") -> Outcome:
    return Outcome("m", metric, value, request_id=identity)


def test_by_routing_key_and_by_request() -> None:
    counting = Counting()
    counting.routed("one", KEYS[0])
    counting.routed("two", KEYS[1])
    assert counting.record(of_request("one"), of_request("two", 0.0), of_key(KEYS[2]), of_key(KEYS[2], 2.5, "spend"),
                           of_request("never")) == {"accepted": 4, "unknown": 1}
    wanted: dict[str, dict[str, list[float]]] = {}
    for key, metric, value in ((KEYS[0], "clicked", 1.0), (KEYS[1], "clicked", 0.0), (KEYS[2], "clicked", 1.0),
                               (KEYS[2], "spend", 0.25)):
        wanted.setdefault(ARM_OF[key], {}).setdefault(metric, []).append(value)
    assert counting.sums() == {arm: {metric: Sums(len(values), sum(values), sum(v * v for v in values))
                                     for metric, values in of.items()} for arm, of in wanted.items()}
    assert counting.outcomes.results == {("m", "accepted"): 4, ("m", "unknown"): 1}


def test_of_a_unit_the_first_outcome_counts() -> None:
    counting = Counting()
    for identity in ("one", "two"):
        counting.routed(identity, KEYS[0])
    assert counting.record(of_request("one", 1.0), of_request("one", 0.0)) == {"accepted": 1, "duplicate": 1}
    # Another request of the same key, and the key itself, are the same unit.
    assert counting.record(of_request("two", 0.0), of_key(KEYS[0])) == {"duplicate": 2}
    assert counting.record(of_request("two", 5.0, "spend")) == {"accepted": 1}
    assert counting.sums()[ARM_OF[KEYS[0]]]["clicked"] == Sums(1, 1.0, 1.0)


def test_late_ones_within_the_window_count() -> None:
    counting = Counting(window_s=10.0)
    counting.routed("one", KEYS[0])
    counting.routed("two", KEYS[1])
    counting.now_ns += 10 * SECOND_NS
    assert counting.record(of_request("one")) == {"accepted": 1}
    counting.now_ns += 1
    assert counting.record(of_request("one"), of_request("two")) == {"late": 2}
    counting.routed("two", KEYS[1])
    assert counting.record(of_request("two")) == {"accepted": 1}


def test_what_is_remembered_is_bounded() -> None:
    counting = Counting(remembered=3)
    for number, key in enumerate(KEYS[:4]):
        counting.routed(str(number), key)
    assert counting.record(of_request("0")) == {"unknown": 1}
    assert counting.record(*(of_request(str(number)) for number in (1, 2, 3))) == {"accepted": 3}
    assert counting.record(of_key(KEYS[1]), of_key(KEYS[5])) == {"duplicate": 1, "accepted": 1}
    # The first of them is forgotten, so that it counts again.
    assert counting.record(of_key(KEYS[2]), of_key(KEYS[1])) == {"duplicate": 1, "accepted": 1}
    assert counting.outcomes.gauges["outcome_remembered"] == {("m", "requests"): 3, ("m", "reported"): 3}
    assert counting.outcomes.gauges["outcome_forgotten"] == {("m", "requests"): 1, ("m", "reported"): 2}


def test_arms_come_and_go() -> None:
    counting = Counting()
    counting.divide("a@1=0,b@2=100")
    assert counting.record(*(of_key(key) for key in KEYS[:6])) == {"accepted": 6}
    assert counting.sums()["b"]["clicked"].n == 6
    counting.divide(None)
    assert counting.record(of_key(KEYS[6])) == {"unknown": 1}
    # Arms of later splits are remembered with the same names.
    counting.divide("b@2=100")
    counting.routed("one", next(key for key in KEYS[7:] if ARM_OF[key] == "b"))
    assert counting.record(of_request("one")) == {"accepted": 1}
    assert counting.sums()["b"]["clicked"].n == 7
    counting.outcomes.unwatch("m")
    assert counting.traffic.arms["m"]["b"].recent is None
    assert counting.outcomes.sums("m") == {}


def test_a_share_without_a_version_counts_for_who_has_it() -> None:
    counting = Counting()
    counting.traffic.merged({"m": route(version("2"), unready={"1": (14, "it is loading")})})
    assert counting.record(*(of_key(key) for key in KEYS)) == {"accepted": len(KEYS)}
    assert {arm: of["clicked"].n for arm, of in counting.sums().items()} == {"b": len(KEYS)}


def test_sums_go_on_from_others() -> None:
    counting = Counting()
    counting.outcomes.unwatch("m")
    counting.outcomes.watch("m", METRICS, sums={"a": {"clicked": Sums(7, 3.0, 3.0)}})
    key = next(key for key in KEYS if ARM_OF[key] == "a")
    counting.record(of_key(key))
    assert counting.sums() == {"a": {"clicked": Sums(8, 4.0, 4.0)}}


@pytest.mark.parametrize(("outcome", "kind", "said"), [
    (Outcome("x", "clicked", 1.0, "a"), NotFound, "outcome 1, of model 'x': no such model"),
    (Outcome("n", "clicked", 1.0, "a"), FailedPrecondition, "outcome 1, of model 'n': nobody counts its outcomes"),
    (Outcome("m", "hits", 1.0, "a"), InvalidArgument, "metric 'hits' is none of clicked, spend"),
    (Outcome("m", "clicked", 1.0), InvalidArgument, "expected the id of a request or a routing key"),
    (Outcome("m", "clicked", 1.0, "a", "b"), InvalidArgument, "expected the id of a request or a routing key"),
    (Outcome("m", "clicked", 1.0, "a" * 1025), InvalidArgument, "at most 1024 bytes"),
    (Outcome("m", "clicked", 0.5, "a"), InvalidArgument, "outcome 1, of model 'm': metric 'clicked' is a rate"),
    (Outcome("m", "spend", 10.5, "a"), InvalidArgument, "a value from 0 to 10, got 10.5"),
    (Outcome("m", "spend", float("nan"), "a"), InvalidArgument, "a value from 0 to 10, got nan"),
])
def test_where_one_cannot_be_an_outcome_none_counts(outcome: Outcome, kind: type[InferError], said: str) -> None:
    counting = Counting()
    with pytest.raises(kind, match=said):
        counting.record(of_key(KEYS[0]), outcome)
    assert counting.sums() == {}
    assert counting.outcomes.results == {("", "refused"): 2}
    assert counting.record(of_key(KEYS[0])) == {"accepted": 1}


def test_without_memory_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(_: int) -> None:
        raise MemoryError

    counting = Counting()
    counting.outcomes.unwatch("m")
    monkeypatch.setattr("infer.traffic.outcomes.Recent", no_memory)
    with pytest.raises(ResourceExhausted, match="no memory to remember 100 requests and outcomes; a smaller --max-"):
        counting.outcomes.watch("m", METRICS)
    with pytest.raises(FailedPrecondition):
        counting.record(of_key(KEYS[0]))


@pytest.mark.parametrize("count", [0, MAX_OUTCOMES + 1])
def test_a_call_has_so_many(count: int) -> None:
    counting = Counting()
    with pytest.raises(InvalidArgument, match=f"expected 1 to 1000 outcomes in a call, got {count}"):
        counting.record(*[of_key(KEYS[0])] * count)
    assert counting.record(*[of_key(KEYS[0])] * MAX_OUTCOMES) == {"accepted": 1, "duplicate": MAX_OUTCOMES - 1}


STEPS = st.lists(st.one_of(
    st.tuples(st.just("call"), st.integers(0, 5), st.sampled_from(KEYS[:4])),
    st.tuples(st.just("wait"), st.integers(0, 6)),
    st.tuples(st.just("request"), st.integers(0, 6), st.sampled_from(["clicked", "spend"]),
              st.sampled_from([0.0, 1.0])),
    st.tuples(st.just("key"), st.sampled_from(KEYS[:5]), st.sampled_from(["clicked", "spend"]),
              st.sampled_from([0.0, 1.0])), st.tuples(st.just("restart"))), max_size=60)


@given(STEPS)
def test_against_plain_python(steps: list[Any]) -> None:
    counting = Counting(window_s=10.0)
    calls: dict[int, tuple[str, int]] = {}
    counted: dict[tuple[str, str], float] = {}
    totals: Counter[tuple[str, str]] = Counter()
    seconds = 0
    for kind, *rest in steps:
        if kind == "call":
            identity, key = rest
            counting.routed(str(identity), key)
            calls[identity] = key, seconds
        elif kind == "wait":
            seconds += rest[0]
            counting.now_ns += rest[0] * SECOND_NS
        elif kind == "restart":
            # What is remembered goes, what was counted stays.
            sums = counting.sums()
            counting.outcomes.unwatch("m")
            counting.outcomes.watch("m", METRICS, window_s=10.0, sums=sums)
            calls, counted = {}, {}
        else:
            name, metric, value = rest
            made: Callable[..., Outcome] = of_request if kind == "request" else of_key
            found = counting.record(made(str(name), value, metric))
            if kind == "request" and name not in calls:
                wanted = "unknown"
            elif kind == "request" and seconds - calls[name][1] > 10:
                wanted = "late"
            else:
                key = calls[name][0] if kind == "request" else name
                wanted = "duplicate" if (key, metric) in counted else "accepted"
                if wanted == "accepted":
                    counted[key, metric] = value
                    totals[ARM_OF[key], metric] += 1
            assert found == {wanted: 1}
    assert {(arm, metric): sums.n for arm, of in counting.sums().items() for metric, sums in of.items()} == totals
