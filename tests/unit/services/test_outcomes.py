"""RecordOutcome: what it hands on, and what it says came of it."""

from __future__ import annotations

import pytest

from infer.errors import InvalidArgument, NotFound
from infer.outcome_metrics import Outcome
from infer.proto import message
from infer.services.outcomes import outcome_rpcs
from tests.support.cold_server import FakeCall, FakeOutcomes

PATH = "/inference.GRPCInferenceService/RecordOutcome"


async def test_outcomes_go_on_and_their_counts_come_back() -> None:
    outcomes = FakeOutcomes(results={"accepted": 1, "duplicate": 2, "unknown": 3, "late": 4})
    request = message("inference.RecordOutcomeRequest")()
    request.outcomes.add(model="m", metric="clicked", value=1.0, request_id="a")
    request.outcomes.add(model="m", metric="spend", value=2.5, routing_key="bob")
    content = await outcome_rpcs(outcomes)["RecordOutcome"](FakeCall(PATH, request.SerializeToString()))
    reply = message("inference.RecordOutcomeResponse").FromString(content)
    assert (reply.accepted, reply.duplicates, reply.unknown, reply.late) == (1, 2, 3, 4)
    assert outcomes.outcomes == [Outcome("m", "clicked", 1.0, "a"), Outcome("m", "spend", 2.5, "", "bob")]


async def test_what_is_refused() -> None:
    request = message("inference.RecordOutcomeRequest")()
    request.outcomes.add(model="n")
    with pytest.raises(NotFound):
        await outcome_rpcs(FakeOutcomes())["RecordOutcome"](FakeCall(PATH, request.SerializeToString()))


async def test_too_many_are_refused_before_they_are_looked_at() -> None:
    content = b"\x0a\x00" * 1001
    outcomes = FakeOutcomes()
    with pytest.raises(InvalidArgument, match="too many"):
        await outcome_rpcs(outcomes)["RecordOutcome"](FakeCall(PATH, content))
    assert outcomes.outcomes == []
