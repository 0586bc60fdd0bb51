"""Tenants that wait for the same model, as they meet it: who sends much waits for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.calls import SERVICE, slow_request
from tests.support.server import in_process

# Steps of the model `slow`: what holds it until all others wait, and what it does for each.
HOLD, BRIEF = 100_000, 200
WEIGHTS = "[tenants.a]\nweight = %d\n[tenants.b]\nweight = %d\n"


@pytest.mark.parametrize(("weights", "order"), [((1, 1), "hbaaaaaa"), ((1, 2), "hbbaaaaaa"), ((3, 1), "hbaaabaaa")])
def test_one_that_sends_much_waits_for_itself(
        repository: Path, tmp_path: Path, transport: str, weights: tuple[int, int], order: str) -> None:
    toml = tmp_path / "infer.toml"
    toml.write_text(WEIGHTS % weights)
    ended: list[str] = []
    calls: list[Any] = []
    with in_process(repository, toml=toml, executors=1, transport=transport, tenant_metadata_key="x-tenant") as served:
        pipeline = served.server.pipeline
        with grpc.insecure_channel(served.address) as channel:
            infer = channel.unary_unary(f"{SERVICE}ModelInfer")

            def call(name: str, tenant: str, steps: int) -> None:
                calls.append(infer.future(slow_request(steps), timeout=120, metadata=[("x-tenant", tenant)]))
                # One thread of the channel's hands out what ends, in its order.
                calls[-1].add_done_callback(lambda _: ended.append(name))

            call("h", "a", HOLD)
            served.until(lambda: (pipeline.in_flight, pipeline.queued_requests) == (1, 0))
            for tenant in sorted(order[1:]):
                waiting = pipeline.queued_requests
                call(tenant, tenant, BRIEF)
                served.until(lambda expected=waiting + 1: pipeline.queued_requests == expected)   # type: ignore[misc]
            for each in calls:
                each.result()
            served.until_here(lambda: len(ended) == len(order))
    assert "".join(ended) == order
