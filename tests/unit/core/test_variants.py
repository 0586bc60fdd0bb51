"""Where requests go whose model's traffic is divided, and what they and their arms are told of it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from infer._core import clock
from infer._core.arm import Arm
from infer._core.cache import Cache
from infer._core.fallback import set_guard
from infer._core.model_version import VersionEntry
from infer._core.recent import Recent
from infer._core.router import ModelRoute, RouteTable, route_to_highest
from infer._core.variants import Split, hash_of
from infer.quotas import Limits, Quotas
from tests.support import models
from tests.support.engine import AGES_NS, set_budget
from tests.support.protos import message_class
from tests.support.puppets import SECOND_NS, Bench, codes_of, make_entry
from tests.support.requests import add_raw, infer_request, pack
from tests.support.splits import chosen

OK, INVALID_ARGUMENT, CANCELLED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE = 0, 3, 1, 8, 13, 14
GOOD, BAD = 1.0, models.FRAGILE
SALT = "m/split"
WEIGHTS = {"1": 50.0, "2": 50.0}
LIMITS: dict[str, Any] = {"fallback": "previous", "window_ns": 10 * SECOND_NS, "min_calls": 4, "error_rate": 0.5,
                          "slow_ns": 0, "slow_rate": 0.5, "open_ns": 2 * SECOND_NS, "probes": 2}


def request(value: float = GOOD, *, model: str = "m", version: str = "", columns: int = 4, identity: str = "",
            **parameters: Any) -> bytes:
    message = infer_request(model, model_version=version, id=identity)
    for name, given in parameters.items():
        kind = {str: "string_param", int: "int64_param", bool: "bool_param", float: "double_param"}[type(given)]
        setattr(message.parameters[name], kind, given)
    add_raw(message, "x", "FP32", [1, columns], pack("FP32", [value] * columns))
    return bytes(message.SerializeToString())


def key_of(arm: str, weights: Mapping[str, float] = WEIGHTS, salt: str = SALT) -> bytes:
    """A key that goes to the arm."""
    return next(key for i in range(10_000) if chosen(salt, weights, {}, key := b"user-%d" % i) == arm)


class Divided:
    """Model m, whose version N multiplies by N, divided over its versions; model other beside it."""

    def __init__(self, weights: Mapping[str, float] = WEIGHTS, rules: Mapping[bytes, str] | None = None,
                 **bench: Any) -> None:
        self.entries = {number: make_entry(models.fragile(float(number)), "m", number, gather_rows=1)
                        for number in ("1", "2")}
        self.entries["other:7"] = make_entry(models.fragile(7.0), "other", "7", gather_rows=1)
        for entry in self.entries.values():
            set_budget(entry, AGES_NS, 0)
        self.bench = Bench(executors=1, **bench)
        for entry in self.entries.values():
            self.bench.publish(entry)
        self.arms = {name: Arm("m", "split", name) for name in weights}
        self.publish(self.split(weights, rules))

    def split(self, weights: Mapping[str, float], rules: Mapping[bytes, str] | None = None,
              unready: tuple[str, ...] = ()) -> Split:
        names = list(weights)
        return Split(SALT, [
            (name, weight, None if name in unready else self.arms[name],
             None if name in unready else self.entries[name]) for name, weight in weights.items()],
            [(key, names.index(arm)) for key, arm in (rules or {}).items()], "user")

    def publish(self, split: Split | None, default: str | None = "2") -> None:
        own = [self.entries["2"], self.entries["1"]]
        route = ModelRoute(own, {"stable": own[1]}, None if default is None else self.entries[default],
                           reason=None if default else (UNAVAILABLE, "no default"), split=split)
        other = route_to_highest([self.entries["other:7"]])
        self.bench.pipeline.set_routes(RouteTable([("m", route), ("other", other)]))

    def call(self, content: bytes | None = None, **how: Any) -> int:
        call = self.bench.call(content or request(), **how)
        self.bench.run_all()
        return call

    def answer(self, content: bytes | None = None, **how: Any) -> tuple[str, str, float, bytes | None]:
        """Model and version that answered, the reply's parameter, what it multiplied by, the trailer."""
        call = self.call(content, **how)
        reply = self.bench.reply(call)
        mark = reply.parameters["infer_variant"].string_param if "infer_variant" in reply.parameters else ""
        return (f"{reply.model_name}:{reply.model_version}", mark,
                float(np.frombuffer(reply.raw_output_contents[0], np.float32)[0]), self.bench.outcome(call).variant)

    def close(self) -> None:
        for entry in self.entries.values():
            set_guard(entry, None)
        for outcome in self.bench.outcomes:
            _ = outcome.data
        self.bench.close()


@pytest.fixture
def divided(stepped_clock: None) -> Iterator[Divided]:
    made = Divided()
    yield made
    made.close()


def test_a_key_goes_to_its_arm_and_the_reply_says_so(divided: Divided) -> None:
    for arm in WEIGHTS:
        for _ in range(3):
            assert divided.answer(routing_key=key_of(arm)) == (f"m:{arm}", arm, float(arm), arm.encode())
    assert {name: (arm.calls[OK], arm.rows) for name, arm in divided.arms.items()} == {"1": (3, 3), "2": (3, 3)}
    assert sum(count for _, count in divided.arms["1"].buckets()) == 3


@pytest.mark.parametrize("version", ["1", "2", "stable"])
def test_who_names_a_version_or_label_is_never_rerouted(divided: Divided, version: str) -> None:
    number = "1" if version == "stable" else version
    for arm in WEIGHTS:
        assert divided.answer(request(version=version), routing_key=key_of(arm)) == (
            f"m:{number}", "", float(number), None)
    assert all(sum(arm.calls) == 0 for arm in divided.arms.values())
    assert divided.answer(request(model="other"), routing_key=key_of("1")) == ("other:7", "", 7.0, None)


def test_the_sources_of_a_key_in_their_order(divided: Divided) -> None:
    one, two = key_of("1"), key_of("2")
    text = {"1": one.decode(), "2": two.decode()}
    for arm, other in (("1", "2"), ("2", "1")):
        metadata, tenant = key_of(arm), key_of(other)
        assert divided.answer(request(user=text[other]), routing_key=metadata, tenant=tenant)[1] == arm
        assert divided.answer(request(user=text[arm]), tenant=tenant)[1] == arm
        assert divided.answer(request(nobody=text[other]), tenant=key_of(arm))[1] == arm


def test_a_number_is_the_key_that_its_digits_are(divided: Divided) -> None:
    for number in (*range(20), -5, 2**63 - 1):
        arm = chosen(SALT, WEIGHTS, {}, b"%d" % number)
        assert divided.answer(request(user=number))[1] == arm
        assert divided.answer(request(user=str(number)))[1] == arm
        message = message_class("ModelInferRequest").FromString(request())
        message.parameters["user"].uint64_param = number % (1 << 64)
        assert divided.answer(message.SerializeToString())[1] == chosen(
            SALT, WEIGHTS, {}, b"%d" % (number % (1 << 64)))


@pytest.mark.parametrize("parameters", [{}, {"user": ""}, {"user": True}, {"user": 1.5}, {"users": "a"}])
def test_without_a_key_it_goes_by_chance(divided: Divided, parameters: Any) -> None:
    found = Counter(divided.answer(request(**parameters))[1] for _ in range(64))
    # Once in 2 ** 63 times all go one way.
    assert set(found) == {"1", "2"}


def test_of_a_parameter_that_comes_twice_the_last_counts(divided: Divided) -> None:
    for arm, other in (("1", "2"), ("2", "1")):
        twice = request(user=key_of(other).decode()) + message_class("ModelInferRequest")(
            parameters={"user": message_class("InferParameter")(string_param=key_of(arm).decode())}).SerializeToString()
        assert divided.answer(twice)[1] == arm


def test_rules_come_first(stepped_clock: None) -> None:
    divided = Divided({"1": 1.0, "2": 0.0}, {b"alice": "2"})
    assert divided.answer(routing_key=b"alice")[1] == "2"
    assert {divided.answer(routing_key=b"user-%d" % i)[1] for i in range(20)} == {"1"}
    divided.close()


def test_an_arm_may_be_of_another_model(stepped_clock: None) -> None:
    divided = Divided({"1": 1.0, "other:7": 1.0})
    key = key_of("other:7", {"1": 1.0, "other:7": 1.0})
    assert divided.answer(routing_key=key) == ("other:7", "other:7", 7.0, b"other:7")
    assert (divided.arms["other:7"].calls[OK], codes_of(divided.entries["other:7"])) == (1, {OK: 1})
    divided.close()


def test_what_an_arm_that_is_not_ready_would_get_goes_to_the_default(divided: Divided) -> None:
    key = key_of("1")
    divided.publish(divided.split(WEIGHTS, unready=("1",)))
    # No arm is said to have answered: none did.
    assert divided.answer(routing_key=key) == ("m:2", "", 2.0, None)
    assert divided.answer(routing_key=key_of("2"))[:2] == ("m:2", "2")
    divided.publish(divided.split(WEIGHTS, unready=("1",)), default=None)
    outcome = divided.bench.outcome(divided.call(routing_key=key))
    assert (outcome.code, outcome.message, outcome.variant) == (UNAVAILABLE, "no default", None)
    assert divided.bench.pipeline.unrouted_calls()[UNAVAILABLE] == 1
    assert divided.answer(routing_key=key_of("2"))[:2] == ("m:2", "2")
    # The text of the default that it does not need is not the error of its own.
    outcome = divided.bench.outcome(divided.call(request(columns=3), routing_key=key_of("2")))
    assert outcome.code == INVALID_ARGUMENT
    assert outcome.message.startswith("input 'x' of model 'm'")


def test_an_arm_whose_version_is_being_unloaded_is_unavailable(divided: Divided) -> None:
    divided.entries["1"].close(None)
    outcome = divided.bench.outcome(divided.call(routing_key=key_of("1")))
    assert (outcome.code, outcome.variant) == (UNAVAILABLE, b"1")
    assert "is being unloaded" in outcome.message
    assert divided.arms["1"].calls[UNAVAILABLE] == 1
    assert divided.answer(routing_key=key_of("2"))[1] == "2"


def test_errors_count_for_the_arm_and_name_it(divided: Divided) -> None:
    wrong = divided.bench.outcome(divided.call(request(columns=3), routing_key=key_of("1")))
    failed = divided.bench.outcome(divided.call(request(BAD), routing_key=key_of("1")))
    assert [(each.code, each.variant) for each in (wrong, failed)] == [(INVALID_ARGUMENT, b"1"), (INTERNAL, b"1")]
    gone = divided.bench.call(request(), routing_key=key_of("1"))
    divided.bench.transport.cancel(gone)
    calls = divided.arms["1"].calls
    assert {code: count for code, count in enumerate(calls) if count} == {CANCELLED: 1, INVALID_ARGUMENT: 1,
                                                                         INTERNAL: 1}
    assert divided.arms["1"].rows == 0
    assert divided.arms["1"].snapshot((1,))[0] == 3
    assert divided.arms["1"].buckets() == []


def test_its_time_is_from_the_first_byte_to_the_reply(divided: Divided) -> None:
    call = divided.bench.call(request(), routing_key=key_of("2"))
    clock.advance(3_000_000)
    divided.bench.run_all()
    assert divided.bench.outcome(call).code == OK
    assert divided.arms["2"].snapshot((2_999_999, 4_000_000)) == (1, 3_000_000, (0, 1))
    assert 2.6e6 < divided.arms["2"].quantile_ns(0.5) < 3.4e6


def test_a_table_without_the_split_leaves_what_is_under_way(divided: Divided) -> None:
    arm = divided.arms["1"]
    before = sys.getrefcount(arm)
    call = divided.bench.call(request(), routing_key=key_of("1"))
    assert sys.getrefcount(arm) == before + 1
    divided.publish(None)
    divided.bench.run_all()
    assert (divided.bench.outcome(call).variant, arm.calls[OK]) == (b"1", 1)
    # The table's share of it is gone, and the request's.
    assert sys.getrefcount(arm) < before
    assert divided.answer(routing_key=key_of("1")) == ("m:2", "", 2.0, None)


def test_an_open_breaker_is_answered_by_the_version_below_and_counts_for_the_arm(divided: Divided) -> None:
    set_guard(divided.entries["2"], LIMITS)
    while divided.entries["2"].guard.state != "open":
        divided.call(request(BAD), routing_key=key_of("2"))
    call = divided.call(routing_key=key_of("2"))
    reply = divided.bench.reply(call)
    assert reply.model_version == "1"
    assert {name: value.string_param for name, value in reply.parameters.items()} == {
        "infer_fallback": "previous", "infer_variant": "2"}
    assert divided.arms["2"].calls[OK] == 1
    assert divided.arms["1"].calls[OK] == 0
    # The caller insists on no version: it may be answered by another.
    set_guard(divided.entries["1"], LIMITS | {"fallback": "unavailable"})


def test_each_version_keeps_its_own_answers(stepped_clock: None) -> None:
    divided = Divided(cache=Cache(1 << 20))
    for arm in ("1", "2", "1", "2"):
        assert divided.answer(routing_key=key_of(arm)) == (f"m:{arm}", arm, float(arm), arm.encode())
    assert {number: (stats["hits"], stats["misses"]) for number in ("1", "2")
            if (stats := divided.entries[number].cache_stats)} == {"1": (1, 1), "2": (1, 1)}
    assert [divided.arms[arm].calls[OK] for arm in WEIGHTS] == [2, 2]
    # Two keys of one arm share an answer, and one that names the version does too, unmarked.
    assert divided.answer(request(version="1")) == ("m:1", "", 1.0, None)
    # One that waits for the run of another is marked for itself.
    first = divided.bench.call(request(5.0), routing_key=key_of("1"))
    second = divided.bench.call(request(5.0, version="1"))
    divided.bench.run_all()
    replies = [divided.bench.reply(call) for call in (first, second)]
    assert ["infer_variant" in reply.parameters for reply in replies] == [True, False]
    assert divided.entries["1"].cache_stats["joined"] == 1   # type: ignore[index]
    divided.close()


def test_quotas_are_those_of_the_model_that_answers(stepped_clock: None) -> None:
    weights = {"1": 1.0, "other:7": 1.0}
    divided = Divided(weights, quotas=Quotas(models={"other": Limits(max_concurrent=1)}))
    key = key_of("other:7", weights)
    held = divided.bench.call(request(), routing_key=key)
    refused = divided.bench.call(request(2.0), routing_key=key)
    assert (divided.bench.outcome(refused).code, divided.bench.outcome(refused).variant) == (
        RESOURCE_EXHAUSTED, b"other:7")
    divided.bench.run_all()
    assert divided.bench.outcome(held).code == OK
    assert divided.answer(routing_key=key_of("1", weights))[1] == "1"
    divided.close()


def test_what_is_no_split() -> None:
    entry: VersionEntry = make_entry(models.scale(), "m", "1")
    arm = Arm("m", "split", "1")
    with pytest.raises(ValueError, match="0 arms"):
        Split("s", [], [], "k")
    with pytest.raises(ValueError, match="leads to arm 1 of 1"):
        Split("s", [("1", 1.0, arm, entry)], [(b"a", 1)], "k")
    with pytest.raises(ValueError, match="or comes twice"):
        Split("s", [("1", 1.0, arm, entry)], [(b"a", 0), (b"a", 0)], "k")
    with pytest.raises(TypeError):
        Split("s", [("1", 1.0, "no arm", entry)], [], "k")  # type: ignore[list-item]
    assert repr(Split("s", [("1", 1.0, arm, entry)], [], "k")) == "<Split s of 1 arms>"


def test_ids_of_requests_are_remembered_where_somebody_asks(divided: Divided) -> None:
    recent = Recent(4)
    divided.call(request(identity="before"))
    for number, arm in enumerate(divided.arms.values(), 5):
        arm.remember(recent, number)
    keys = {arm: key_of(arm) for arm in WEIGHTS}
    for arm, key in keys.items():
        divided.call(request(identity=f"of-{arm}"), routing_key=key)
    divided.call(request(version="1", identity="named"))
    divided.call(request(), routing_key=keys["1"])      # without an id
    divided.call(request(columns=3, identity="wrong"), routing_key=keys["2"])
    found = {text: recent.find(hash_of(text.encode())) for text in ("before", "of-1", "of-2", "named", "wrong")}
    assert {text: known and known[:2] for text, known in found.items()} == {
        "before": None, "of-1": (hash_of(keys["1"]), 5), "of-2": (hash_of(keys["2"]), 6), "named": None,
        "wrong": (hash_of(keys["2"]), 6)}
    assert found["of-1"] is not None
    assert found["of-1"][2] == clock.now()
    for arm in divided.arms.values():
        arm.remember(None)
    divided.call(request(identity="after"))
    assert recent.find(hash_of(b"after")) is None
