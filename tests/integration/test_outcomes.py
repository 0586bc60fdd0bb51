"""RecordOutcome as clients of a server meet it, on both transports."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from infer.outcome_metrics import parse_metrics
from infer.proto import message
from tests.integration.test_split import ARM, SECONDS, USERS, divide, request, write
from tests.support.calls import SERVICE
from tests.support.server import InProcess, in_process, scrape
from tests.support.transports import TRANSPORTS


@pytest.fixture(params=TRANSPORTS)
def counting(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[InProcess]:
    root, toml = write(tmp_path_factory.mktemp("outcomes"))
    with in_process(root, toml=toml, transport=request.param, max_outcomes=64) as served:
        divide(served, "1=50,2=50")
        served.look(lambda: served.server.outcomes.watch("m", parse_metrics(["clicked:rate"])))
        yield served


def record(channel: grpc.Channel, *outcomes: dict[str, object]) -> tuple[int, int, int, int]:
    """Accepted, duplicates, unknown, late."""
    made = message("inference.RecordOutcomeRequest")()
    for each in outcomes:
        made.outcomes.add(**{"model": "m", "metric": "clicked", "value": 1.0, **each})
    reply = message("inference.RecordOutcomeResponse").FromString(
        channel.unary_unary(f"{SERVICE}RecordOutcome")(made.SerializeToString(), timeout=SECONDS))
    return reply.accepted, reply.duplicates, reply.unknown, reply.late


def call(channel: grpc.Channel, identity: str, user: str, version: str = "") -> None:
    made = message("inference.ModelInferRequest").FromString(request(version=version, routing_key=user))
    made.id = identity
    channel.unary_unary(f"{SERVICE}ModelInfer")(made.SerializeToString(), timeout=SECONDS)


def test_outcomes_find_the_arms_of_their_requests(counting: InProcess) -> None:
    with grpc.insecure_channel(counting.address) as channel:
        for user in USERS:
            call(channel, f"id of {user}", user)
        call(channel, "named", USERS[0], version="1")
        assert record(channel, *({"request_id": f"id of {user}"} for user in USERS)) == (len(USERS), 0, 0, 0)
        assert record(channel, {"request_id": "named"}, {"request_id": "never"}) == (0, 0, 2, 0)
        assert record(channel, *({"routing_key": user} for user in [*USERS, "carol"])) == (1, len(USERS), 0, 0)
        sums = counting.look(lambda: counting.server.outcomes.sums("m"))
        by_arm = {arm: of["clicked"].n for arm, of in sums.items()}
        assert sum(by_arm.values()) == len(USERS) + 1
        assert all(0 <= count - list(ARM.values()).count(arm) <= 1 for arm, count in by_arm.items())
    counting.settle()
    found = {dict(labels)["result"]: value for (name, labels), value in scrape(counting.http_address).items()
             if name == "infer_outcomes_total"}
    assert found == {"accepted": len(USERS) + 1, "duplicate": len(USERS), "unknown": 2}


@pytest.mark.parametrize(("fields", "status", "said"), [
    ({"model": "x", "routing_key": "a"}, grpc.StatusCode.NOT_FOUND, "no such model"),
    ({"metric": "x", "routing_key": "a"}, grpc.StatusCode.INVALID_ARGUMENT, "none of clicked"),
    ({"value": float("nan"), "routing_key": "a"}, grpc.StatusCode.INVALID_ARGUMENT, "from 0 to 1, got nan"),
    ({}, grpc.StatusCode.INVALID_ARGUMENT, "the id of a request or a routing key"),
])
def test_what_is_no_outcome(counting: InProcess, fields: dict[str, object], status: grpc.StatusCode, said: str) -> None:
    with grpc.insecure_channel(counting.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            record(channel, fields)
        assert caught.value.code() is status
        assert said in caught.value.details()
        counting.look(lambda: counting.server.outcomes.unwatch("m"))
        with pytest.raises(grpc.RpcError) as caught:
            record(channel, {"routing_key": "a"})
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "infer experiment start" in caught.value.details()
