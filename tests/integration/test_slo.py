"""slo_p99_ms on a server: what it chooses is in force, on /metrics, and gone with the setting."""

from __future__ import annotations

from pathlib import Path

import grpc

from tests.support import models
from tests.support.calls import SERVICE
from tests.support.requests import add_raw, infer_request, pack
from tests.support.server import in_process, scrape, write_repository

LABELS = frozenset({("model", "m"), ("version", "1")})


def call(address: str, rows: int) -> None:
    asked = infer_request("m")
    add_raw(asked, "x", "FP32", [rows, 4], pack("FP32", [0.0] * 4 * rows))
    with grpc.insecure_channel(address) as channel:
        channel.unary_unary(f"{SERVICE}ModelInfer")(asked.SerializeToString(), timeout=60)


def test_what_is_chosen_is_in_force_until_the_setting_is_gone(tmp_path: Path, transport: str) -> None:
    write_repository(tmp_path, {"m": models.identity("FP32", ("batch", 4))})
    settings = {"slo_p99_ms": 600_000.0, "gather_rows": 8, "max_queue_delay_us": 100, "transport": transport}
    with in_process(tmp_path, **settings) as served:
        server = served.server
        (entry,) = served.look(server.versions)

        def shown() -> tuple[float | None, float | None]:
            found = scrape(served.http_address)
            return found.get(("infer_slo_gather_rows", LABELS)), found.get(("infer_slo_delay_seconds", LABELS))

        served.until(lambda: bool(server.slo.choices()))
        assert shown() == (8, 0.0001)
        # Batches that are all alike, and far from late: as many rows as can be trusted, and no delay.
        call(served.address, 32)
        served.until(lambda: entry.gather_rows == 4 * 32)
        assert entry.delay_ns == 0
        assert shown() == (128, 0.0)

        def unset() -> None:
            server.slo.default_ms = 0.0

        served.look(unset)
        served.until(lambda: entry.gather_rows == 8)
        assert entry.delay_ns == 100_000
        assert shown() == (None, None)
