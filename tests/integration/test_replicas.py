"""Replicas that share one cache, each a process of its own: what runs where, and replicas that are gone or hung."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from bench.targets import free_port
from infer.client import InferClient, InferError
from tests.support import models
from tests.support.certificates import Authority
from tests.support.command import SECONDS, Serving
from tests.support.server import scrape

# After so many the cache judges of what use it is.
WINDOW_LOOKUPS = 1024
OUTCOMES = ("answered", "refused", "late", "lost", "here")


def free_ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


class Replica:
    """One of them, which can be killed and started again under its name."""

    def __init__(self, root: Path, port: int, names: Sequence[str], *arguments: object) -> None:
        self.name = f"127.0.0.1:{port}"
        self._arguments = (root, "--host", "127.0.0.1", "--port", port, "--http-port", 0, "--drain-delay", 0, "--cache",
                           "1MiB", "--replicas", ",".join(names), "--replicas-timeout", "30s", *arguments)
        self.start()

    def start(self) -> None:
        self.stack = contextlib.ExitStack()
        self.serving = self.stack.enter_context(Serving(*self._arguments, defaults=False))

    def stop(self) -> None:
        self.stack.close()

    def metric(self, name: str, **labels: str) -> float:
        return scrape(self.serving.http)[name, frozenset(labels.items())]

    def outcomes(self) -> dict[str, int]:
        counted = {name: int(self.metric("infer_replica_forwards_total", outcome=name)) for name in OUTCOMES}
        return {name: count for name, count in counted.items() if count}

    def rows(self) -> int:
        return int(self.metric("infer_rows_total", model="m", version="1"))

    def sees(self, *others: Replica) -> None:
        until(lambda: all(self.metric("infer_replica_up", replica=other.name) == 1 for other in others))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline


@contextlib.contextmanager
def fleet(root: Path, count: int, *arguments: object) -> Iterator[list[Replica]]:
    ports = free_ports(count)
    names = [f"127.0.0.1:{port}" for port in ports]
    with contextlib.ExitStack() as stack:
        replicas = []
        for port in ports:
            replicas.append(Replica(root, port, names, *arguments))
            stack.callback(replicas[-1].stop)
        for replica in replicas:
            replica.sees(*(other for other in replicas if other is not replica))
        yield replicas


def infer(client: InferClient, value: float, name: str = "m") -> float:
    return float(client.infer(name, {"x": np.full((1, 4), value, np.float32)}, timeout=SECONDS)["y"][0, 0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    models.write_version(tmp_path / "models", "m", 1, models.scale(3.0))
    return tmp_path / "models"


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_each_answer_is_run_once_and_kept_once(root: Path, transport: str) -> None:
    with fleet(root, 3, "--transport", transport) as replicas, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(InferClient(each.name)) for each in replicas]
        for _ in range(2):
            for value in range(30):
                assert [infer(client, float(value)) for client in clients] == [3.0 * value] * 3
        assert sum(each.rows() for each in replicas) == 30
        assert sum(each.metric("infer_cache_entries", model="m", version="1") for each in replicas) == 30
        told = Counter[str]()
        for each in replicas:
            told.update(each.outcomes())
        # Of each key two replicas forward both times. At its owner one of the six was a miss, and perhaps its own.
        assert told.pop("answered") == 30 * 2 * 2
        assert set(told) <= {"here"}
        assert told["here"] <= 30


def test_one_that_is_asked_for_keys_of_others_alone_goes_on_asking_them(root: Path) -> None:
    """Its own cache has none of them, and is of use all the same."""
    with fleet(root, 2) as replicas, InferClient(replicas[0].name) as client:
        value = 0.0
        while "answered" not in replicas[0].outcomes():
            value += 1.0
            infer(client, value)
        ran = [each.rows() for each in replicas]
        for _ in range(WINDOW_LOOKUPS + 500):
            infer(client, value)
        assert [each.rows() for each in replicas] == ran
        assert replicas[0].outcomes()["answered"] == WINDOW_LOOKUPS + 501


def test_identical_requests_at_all_replicas_are_one_run(tmp_path: Path) -> None:
    models.write_version(tmp_path, "m", 1, models.slow(20_000))
    with fleet(tmp_path, 3) as replicas, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(InferClient(each.name)) for each in replicas]

        def call(client: InferClient) -> int:
            return int(client.infer("m", {"x": np.full((1, 1), 20_000, np.int64)}, timeout=SECONDS)["y"][0, 0])

        with ThreadPoolExecutor(30) as pool:
            assert set(pool.map(call, clients * 10)) == {20_000}
        assert sum(each.rows() for each in replicas) == 1


def test_one_that_is_killed_and_comes_back_costs_no_call(root: Path) -> None:
    with fleet(root, 3) as replicas, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(InferClient(each.name)) for each in replicas[:2]]
        ended = threading.Event()

        def call(client: InferClient) -> int:
            """Each call is another key's; all of them succeed."""
            count = 0
            while not ended.is_set():
                value = float(count % 2_000)
                assert infer(client, value) == 3.0 * value
                count += 1
            return count

        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(call, client) for client in clients]
            gone = replicas[2]
            try:
                gone.serving.process.kill()
                for each in replicas[:2]:
                    until(lambda each=each: each.metric("infer_replica_up", replica=gone.name) == 0)  # type: ignore[misc]
                gone.stop()
                gone.start()
                for each in replicas[:2]:
                    each.sees(gone)
                before = gone.rows()
                until(lambda: gone.rows() > before or any(each.done() for each in calls))
            finally:
                ended.set()
            assert all(each.result() > 0 for each in calls)


def test_a_forwarded_call_is_never_forwarded_again(root: Path) -> None:
    """Even where two replicas do not agree on who has a key."""
    first_port, second_port = free_ports(2)
    names = [f"127.0.0.1:{first_port}", f"127.0.0.1:{second_port}"]
    # Each believes that all keys are another's: its own name is one that nobody has.
    with contextlib.ExitStack() as stack:
        replicas = []
        for port, other in ((first_port, names[1]), (second_port, names[0])):
            replicas.append(Replica(root, port, [other, "127.0.0.1:1"], "--replicas-self", "127.0.0.1:1"))
            stack.callback(replicas[-1].stop)
        for each, other in zip(replicas, replicas[::-1], strict=True):
            each.sees(other)
        client = stack.enter_context(InferClient(names[0]))
        for value in range(20):
            assert infer(client, float(value)) == 3.0 * value
        outcomes = replicas[0].outcomes()
        assert outcomes["answered"] > 0
        assert (replicas[0].rows(), replicas[1].rows()) == (outcomes.get("here", 0), outcomes["answered"])
        assert replicas[1].outcomes() == {}


def test_one_that_hangs_is_waited_for_and_then_left_alone(root: Path) -> None:
    with fleet(root, 2, "--replicas-timeout", "50ms") as (replica, hung), InferClient(replica.name) as client:
        hung.serving.process.send_signal(signal.SIGSTOP)
        try:
            value = 0
            while replica.metric("infer_replica_up", replica=hung.name):
                assert infer(client, float(value)) == 3.0 * value
                value += 1
            # Its keys are this one's meanwhile.
            outcomes = replica.outcomes()
            assert outcomes["late"] >= 8
            assert replica.rows() == value
            assert infer(client, -1.0) == -3.0
        finally:
            hung.serving.process.send_signal(signal.SIGCONT)
        replica.sees(hung)


def test_other_files_under_the_same_version_are_not_asked(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    models.write_version(other, "m", 1, models.scale(5.0))
    ports = free_ports(2)
    names = [f"127.0.0.1:{port}" for port in ports]
    with contextlib.ExitStack() as stack:
        replicas = []
        for path, port in zip((root, other), ports, strict=True):
            replicas.append(Replica(path, port, names))
            stack.callback(replicas[-1].stop)
        for each, peer in zip(replicas, replicas[::-1], strict=True):
            each.sees(peer)
        client = stack.enter_context(InferClient(names[0]))
        for value in range(20):
            assert infer(client, float(value)) == 3.0 * value
        outcomes = replicas[0].outcomes()
        assert (set(outcomes), replicas[0].rows(), replicas[1].rows()) == ({"refused", "here"}, 20, 0)


def test_the_name_is_a_parameter_that_clients_may_not_use_for_other_files(root: Path) -> None:
    with fleet(root, 1) as (replica,), InferClient(replica.name) as client:
        with pytest.raises(InferError, match="other files of model 'm' version 1") as refused:
            client.infer("m", {"x": np.ones((1, 4), np.float32)}, parameters={"infer_forwarded": "0" * 64})
        assert refused.value.status == "FAILED_PRECONDITION"


def test_over_tls(root: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    arguments = ("--tls-cert", pair.cert, "--tls-key", pair.key, "--tls-client-ca", authority.file, "--replicas-ca",
                 authority.file)
    with fleet(root, 2, *arguments) as replicas, contextlib.ExitStack() as stack:
        credentials = grpc.ssl_channel_credentials(authority.file.read_bytes(), pair.key.read_bytes(),
                                                   pair.cert.read_bytes())
        clients = [stack.enter_context(InferClient(each.name, credentials=credentials)) for each in replicas]
        for value in range(20):
            assert [infer(client, float(value)) for client in clients] == [3.0 * value] * 2
        assert sum(each.rows() for each in replicas) == 20


def test_dns(root: Path) -> None:
    """One address is this server's own, which is all that there is."""
    [port] = free_ports(1)
    with Serving(root, "--host", "127.0.0.1", "--port", port, "--http-port", 0, "--cache", "1MiB", "--replicas-dns",
                 f"localhost:{port}", "--replicas-self", f"127.0.0.1:{port}", "--drain-delay", 0,
                 defaults=False) as serving, InferClient(serving.address) as client:
        assert [infer(client, 2.0), infer(client, 2.0)] == [6.0, 6.0]
