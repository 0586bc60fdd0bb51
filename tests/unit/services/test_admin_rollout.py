"""RPCs of rollouts, over a controller that is told when to go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infer.errors import NotFound
from infer.proto import message
from infer.rollouts import RolloutSettings
from infer.services.admin_rollout import rollout_service
from infer.services.call import Changes
from infer.traffic.rollout import Rollout, RolloutPlan
from tests.support.cold_server import FakeCall

ROLLOUT = Rollout(RolloutPlan(1, 2, RolloutSettings()), 0.0, "somebody")


class Rollouts:
    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = asyncio.Event()
        self.asked: list[tuple[Any, ...]] = []

    def settings_of(self, model: str) -> RolloutSettings:
        return RolloutSettings()

    async def start(self, model: str, **fields: Any) -> Rollout:
        return await self._work("start", model, fields["to"])

    async def change(self, model: str, verb: str, **fields: Any) -> Rollout:
        return await self._work(verb, model)

    async def _work(self, *asked: Any) -> Rollout:
        self.asked.append(asked)
        self.begun.set()
        await self.may_end.wait()
        self.ended.set()
        return ROLLOUT

    def rollouts(self, model: str = "") -> dict[str, Rollout]:
        return {}

    async def settled(self) -> None:
        pass


@pytest.mark.parametrize(("method", "request_name", "fields", "asked"), [
    ("RolloutStart", "RolloutStartRequest", {"to": 2}, ("start", "m", 2)),
    ("RolloutAbort", "RolloutChangeRequest", {}, ("abort", "m")),
    ("RolloutPause", "RolloutChangeRequest", {}, ("pause", "m")),
])
async def test_a_change_goes_to_its_end_when_its_caller_gives_up(
        method: str, request_name: str, fields: dict[str, int], asked: tuple[Any, ...]) -> None:
    rollouts = Rollouts()
    handlers = rollout_service(rollouts, Changes(), lambda: False)  # type: ignore[arg-type]
    handler: Any = handlers[f"/infer.v1.Admin/{method}"]
    content = message(f"infer.v1.{request_name}")(model="m", **fields).SerializeToString()
    given_up = asyncio.ensure_future(handler(FakeCall("/p", content)))
    await asyncio.wait_for(rollouts.begun.wait(), 60)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    rollouts.may_end.set()
    await asyncio.wait_for(rollouts.ended.wait(), 60)
    assert rollouts.asked == [asked]
    reply = message("infer.v1.Rollout").FromString(await handler(FakeCall("/p", content)))
    assert (reply.model, reply.to) == ("m", 2)


async def test_a_model_that_had_none() -> None:
    handlers = rollout_service(Rollouts(), Changes(), lambda: False)  # type: ignore[arg-type]
    handler: Any = handlers["/infer.v1.Admin/RolloutStatus"]
    with pytest.raises(NotFound, match="model 'gone' has had no rollout"):
        await handler(FakeCall("/p", message("infer.v1.RolloutRequest")(model="gone").SerializeToString()))
