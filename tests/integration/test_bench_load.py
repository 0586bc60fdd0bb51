"""What the bench sets beside a load, against a real server: slow peers, attackers, good clients that give up, and the
loopback that large calls meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.load import loopback, payload, slow
from bench.load.attacks import ASKED_CALLS, attacks
from bench.load.cancels import CALLS
from bench.load.floods import attacking
from bench.load.held import held
from bench.load.limits import difference
from bench.load.patience import SCENARIOS, give_up, judged
from tests.support.calls import identity_request, slow_request, wide_request
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
            assert server.snapshot()["streams_total"] == PEERS * slow.CALLS
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


@pytest.mark.parametrize(
    "name", ["PING", "unknown frames", "preface byte by byte", "PRIORITY and WINDOW_UPDATE as allowed"])
def test_an_attacker_comes_back(repository: Path, body: Path, name: str) -> None:
    with in_process(repository) as server:
        host, port = server.address.rsplit(":", 1)
        done: dict[str, float] = {}
        with attacking(host, int(port), attacks(body.read_bytes())[name], body, done):
            server.until(lambda: server.server.transport.endpoint.snapshot()["connections_total"] > PEERS)
        assert done["connections"] > done["ended"] >= PEERS
        server.until(lambda: server.server.transport.endpoint.snapshot()["connections"] == 0)
        refused = sum(server.snapshot()["refused"].values())
        assert refused >= PEERS if attacks(b"")[name].cut else refused == 0


def test_a_peer_that_holds_on(repository: Path, tmp_path: Path) -> None:
    body = payload.write_body(tmp_path / "small", identity_request())
    with in_process(repository) as server:
        host, port = server.address.rsplit(":", 1)
        attack = attacks(body.read_bytes())["replies unread, windows of 0"]
        done: dict[str, float] = {}
        with attacking(host, int(port), attack, body, done):
            server.until(
                lambda: server.server.transport.endpoint.snapshot()["streams"] == ASKED_CALLS * attack.connections)
        assert done["connections"] == attack.connections
        server.until(lambda: server.server.transport.endpoint.snapshot()["connections"] == 0)


@pytest.mark.parametrize("kind", SCENARIOS)
def test_a_good_client_may_give_up(repository: Path, tmp_path: Path, kind: str) -> None:
    with in_process(repository, executors=1) as server:
        host, port = server.address.rsplit(":", 1)
        files = [tmp_path / "slow", tmp_path / "good"]
        for path, message in zip(files, (slow_request(5_000), identity_request()), strict=True):
            path.write_bytes(message)
        done = give_up(host, int(port), kind, 0.3, files)
        snapshot = server.snapshot()
        bars = judged(kind, done, snapshot["connections_total"], difference({}, snapshot["refused"]))
        assert [bar.met for bar in bars] == [True] * len(bars)
        assert done["calls"] >= (20 if kind.startswith("timeouts") else CALLS)
