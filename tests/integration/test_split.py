"""A model whose traffic is divided, as clients of a server meet it, on both transports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from infer.proto import message
from infer.split_plan import SplitPlan, parse_arms
from tests.support import models
from tests.support.calls import SERVICE
from tests.support.requests import add_raw, infer_request, pack
from tests.support.server import InProcess, in_process, scrape
from tests.support.splits import chosen
from tests.support.transports import TRANSPORTS

SECONDS = 30
KEY = "infer-routing-key"
USERS = [f"user-{i}" for i in range(40)]
WEIGHTS = {"1": 50.0, "2": 50.0}
ARM = {user: chosen("m/split", WEIGHTS, {}, user.encode()) for user in USERS}
TOML = "[models.m]\nversion_policy = { latest = 2 }\n"


def request(model: str = "m", version: str = "", columns: int = 4, **parameters: str) -> bytes:
    made = infer_request(model, model_version=version)
    for name, value in parameters.items():
        made.parameters[name].string_param = value
    add_raw(made, "x", "FP32", [1, columns], pack("FP32", [1.0] * columns))
    content: bytes = made.SerializeToString()
    return content


def write(path: Path, more: str = "") -> tuple[Path, Path]:
    """Model m, whose version N multiplies by N, and the settings that serve both."""
    for version in (1, 2):
        models.write_version(path / "models", "m", version, models.scale(float(version)))
    toml = path / "infer.toml"
    toml.write_text(TOML + more)
    return path / "models", toml


def divide(served: InProcess, to: str, **fields: Any) -> None:
    served.look(lambda: served.server.models.set_split("m", SplitPlan(parse_arms(to), **fields)))


@pytest.fixture(scope="module", params=TRANSPORTS)
def divided(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[InProcess]:
    root, toml = write(tmp_path_factory.mktemp("split"))
    with in_process(root, toml=toml, transport=request.param, tenant_metadata_key="x-tenant") as served:
        divide(served, "1=50,2=50")
        yield served


@pytest.fixture
def channel(divided: InProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(divided.address) as made:
        yield made
    divided.settle()


def call(channel: grpc.Channel, content: bytes, *metadata: tuple[str, str]) -> tuple[str, str, str]:
    """The version that answered, the variant by the reply's parameter, and by the trailer."""
    made = channel.unary_unary(f"{SERVICE}ModelInfer").with_call(content, timeout=SECONDS, metadata=metadata)
    reply = message("inference.ModelInferResponse").FromString(made[0])
    return (reply.model_version, reply.parameters["infer_variant"].string_param if reply.parameters else "",
            dict(made[1].trailing_metadata()).get("infer-variant", ""))


def test_a_key_goes_the_same_way_wherever_it_is_written(channel: grpc.Channel) -> None:
    for user, arm in ARM.items():
        assert call(channel, request(), (KEY, user)) == (arm, arm, arm)
        assert call(channel, request(routing_key=user)) == (arm, arm, arm)
        assert call(channel, request(), ("x-tenant", user)) == (arm, arm, arm)
    one, two = (next(user for user, arm in ARM.items() if arm == wanted) for wanted in "12")
    assert call(channel, request(routing_key=two), (KEY, one), ("x-tenant", two))[0] == "1"
    assert call(channel, request(routing_key=one), ("x-tenant", two))[0] == "1"
    assert call(channel, request(), (KEY, two), (KEY, one))[0] == "1"
    assert call(channel, request(routing_key=one), (KEY, ""))[0] == "1"


def test_who_names_a_version_is_never_rerouted(channel: grpc.Channel) -> None:
    for user in USERS[:10]:
        assert [call(channel, request(version=version), (KEY, user)) for version in "12"] == [
            ("1", "", ""), ("2", "", "")]


def test_a_refusal_names_the_variant_too(channel: grpc.Channel) -> None:
    for user, arm in list(ARM.items())[:10]:
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, request(columns=3), (KEY, user))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert dict(caught.value.trailing_metadata())["infer-variant"] == arm


def test_each_message_of_a_stream_is_divided(channel: grpc.Channel) -> None:
    stream = channel.stream_stream(f"{SERVICE}ModelStreamInfer", response_deserializer=message(
        "inference.ModelStreamInferResponse").FromString)
    replies = stream(iter([request(routing_key=user) for user in USERS]), timeout=SECONDS)
    assert [reply.infer_response.parameters["infer_variant"].string_param for reply in replies] == list(ARM.values())
    # The stream's own key is that of all of them.
    user = USERS[0]
    replies = stream(iter([request(routing_key=other) for other in USERS]), timeout=SECONDS, metadata=[(KEY, user)])
    assert {reply.infer_response.model_version for reply in replies} == {ARM[user]}


def test_metrics_by_variant(divided: InProcess, channel: grpc.Channel) -> None:
    def counts() -> dict[tuple[str, str], float]:
        return {(dict(labels)["variant"], dict(labels).get("code", "")): value
                for (name, labels), value in scrape(divided.http_address).items()
                if name in ("infer_variant_requests_total", "infer_variant_request_seconds_count")}

    before = counts()
    for user in USERS:
        call(channel, request(), (KEY, user))
    with pytest.raises(grpc.RpcError):
        call(channel, request(columns=3), (KEY, USERS[0]))
    grown = {key: value - before.get(key, 0) for key, value in counts().items() if value != before.get(key, 0)}
    arms = list(ARM.values())
    wrong = ARM[USERS[0]]
    assert grown == {(arm, ""): arms.count(arm) + (arm == wrong) for arm in "12"} | {
        (arm, "OK"): arms.count(arm) for arm in "12"} | {(wrong, "INVALID_ARGUMENT"): 1}


def test_weights_change_without_a_call_lost(divided: InProcess, channel: grpc.Channel) -> None:
    infer = channel.unary_unary(f"{SERVICE}ModelInfer")
    pending = []
    try:
        for turn in range(10):
            pending += [infer.future(request(), timeout=SECONDS, metadata=[(KEY, user)]) for user in USERS]
            divide(divided, "1=100,2=0" if turn % 2 else "1=0,2=100")
        versions = {message("inference.ModelInferResponse").FromString(each.result()).model_version for each in pending}
        assert versions <= {"1", "2"}
        assert {call(channel, request(), (KEY, user))[0] for user in USERS} == {"1"}
        assert scrape(divided.http_address)["infer_variant_requests_total", frozenset(
            {"model": "m", "variant": "1", "code": "OK"}.items())] > 0
        divide(divided, "9=50,2=50")
        assert scrape(divided.http_address)["infer_variant_unready", frozenset(
            {"model": "m", "variant": "9"}.items())] == 1
        assert {call(channel, request(), (KEY, user))[0] for user in USERS} == {"2"}
    finally:
        divide(divided, "1=50,2=50")


def test_without_a_metadata_key_the_metadata_says_nothing(tmp_path: Path, transport: str) -> None:
    root, toml = write(tmp_path)
    with in_process(root, toml=toml, transport=transport, routing_metadata_key="") as served:
        divide(served, "1=50,2=50", rules={"alice": "1", "bob": "2"})
        with grpc.insecure_channel(served.address) as channel:
            assert call(channel, request(routing_key="alice"), (KEY, "bob"))[0] == "1"
            assert call(channel, request(routing_key="bob"), (KEY, "alice"))[0] == "2"
