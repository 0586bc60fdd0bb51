"""--adaptive-limit on a server: what is found is in force, on /metrics, and gone with the setting."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from tests.support import models
from tests.support.calls import SERVICE, slow_request
from tests.support.server import in_process, scrape, write_repository

LABELS = frozenset({("model", "slow"), ("version", "1")})
REFUSED = frozenset({("model", "slow"), ("version", "1"), ("limit", "adaptive_limit")})


def test_what_is_found_is_in_force_until_the_setting_is_gone(
        tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_repository(tmp_path, {"slow": models.slow(200_000)})
    with in_process(tmp_path, adaptive_limit=True, gather_rows=1, max_queue_rows=64, executors=1,
                    transport=transport) as served, grpc.insecure_channel(served.address) as channel:
        server = served.server
        infer = channel.unary_unary(f"{SERVICE}ModelInfer")
        served.until(lambda: bool(server.adaptive.rows()))
        assert scrape(served.http_address)["infer_adaptive_rows", LABELS] == 64
        # Most of them wait for far longer than a run takes.
        for call in [infer.future(slow_request(300), timeout=60) for _ in range(60)]:
            call.result()
        steps = []
        step = server.adaptive.step

        def counted() -> None:
            step()
            steps.append(server.adaptive.rows()["slow", "1"])

        monkeypatch.setattr(server.adaptive, "step", counted)
        # One that has seen the last of them.
        served.until(lambda: len(steps) > 0)
        limit = steps[0]
        assert limit < 64
        monkeypatch.undo()
        assert scrape(served.http_address)["infer_adaptive_rows", LABELS] == limit
        # It stays so while too few requests run for another one.
        running = infer.future(slow_request(100_000), timeout=60)
        served.until(lambda: (server.pipeline.in_flight, server.pipeline.queued_requests) == (1, 0))
        waiting = [infer.future(slow_request(1), timeout=60) for _ in range(limit)]
        served.until(lambda: server.pipeline.queued_requests == limit)
        with pytest.raises(grpc.RpcError, match="--adaptive-limit") as refused:
            infer(slow_request(1), timeout=60)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED   # type: ignore[attr-defined]

        def unset() -> None:
            server.adaptive.enabled = False

        served.look(unset)
        served.until(lambda: not server.adaptive.rows())
        waiting += [infer.future(slow_request(1), timeout=60) for _ in range(60 - limit)]
        served.until(lambda: server.pipeline.queued_requests == 60)
        for call in [running, *waiting]:
            assert call.result()
        found = scrape(served.http_address)
        assert ("infer_adaptive_rows", LABELS) not in found
        assert found["infer_queue_refused_total", REFUSED] == 1
