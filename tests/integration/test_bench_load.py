"""What the bench sets beside a load, against a real server: slow peers, and the loopback that large calls meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.load import loopback, payload
from bench.load.held import held
from bench.load.slow import CALLS
from tests.support.calls import wide_request
from tests.support.server import in_process

REPLY_BYTES = 1 << 20
PEERS = 3


@pytest.fixture
def body(tmp_path: Path) -> Path:
    return payload.write_body(tmp_path / "body", wide_request(bytes(REPLY_BYTES)))


def test_slow_readers_leave_their_replies_with_the_server(repository: Path, body: Path) -> None:
    with in_process(repository) as server:
        host, port = server.address.rsplit(":", 1)
        with held("bench.load.slow", host, int(port), "readers", PEERS, body, count=PEERS):
            server.until(lambda: server.server.transport.endpoint.snapshot()["outbound_bytes"] > PEERS * REPLY_BYTES)
            assert server.snapshot()["streams_total"] == PEERS * CALLS
        server.until(lambda: server.server.transport.endpoint.snapshot()["connections"] == 0)
        assert server.snapshot()["outbound_bytes"] == 0


def test_slow_senders_send_byte_by_byte(repository: Path, body: Path) -> None:
    with in_process(repository) as server:
        host, port = server.address.rsplit(":", 1)
        with held("bench.load.slow", host, int(port), "senders", PEERS, body, count=PEERS):
            server.until(lambda: server.server.transport.endpoint.snapshot()["buffered_bytes"] > 2 * PEERS)
            assert server.snapshot()["buffered_bytes"] < 100 * PEERS
            assert server.snapshot()["streams"] == PEERS


@pytest.mark.parametrize(("connections", "in_bytes", "out_bytes"), [(1, 100_000, 1), (3, 300_000, 300_000)])
def test_loopback_moves_both_ways(connections: int, in_bytes: int, out_bytes: int) -> None:
    assert loopback.copies_per_s(0, connections, in_bytes, out_bytes, 0.05) > 0
