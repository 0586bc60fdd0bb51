"""The second level of the cache with a real Redis: what servers share, and one that is down, hung or wrong."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.targets import free_port
from infer.cache_redis import FAILURES_IN_A_ROW, PREFIX
from infer.client import InferClient, InferError
from tests.support import models
from tests.support.server import InProcess, in_process, scrape

redis = pytest.importorskip("redis")
pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server to test with")
SECONDS = 60.0
SECRET = "0123456789abcdef0123456789abcdef"


class Redis:
    """A redis-server that ends with the test."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.directory = directory
        self.client = redis.Redis(port=self.port, socket_timeout=SECONDS)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir",
             str(self.directory)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(redis.RedisError):
                self.client.ping()
                return
            assert time.monotonic() < deadline
            assert self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


@pytest.fixture
def level(tmp_path: Path) -> Iterator[Redis]:
    started = Redis(tmp_path)
    yield started
    started.client.close()
    started.kill()


@pytest.fixture
def served(tmp_path: Path) -> dict[str, Any]:
    """What a server with a second level is started with; a secret; the repository."""
    models.write_version(tmp_path / "models", "m", 1, models.scale(3.0))
    (tmp_path / "secret").write_text(SECRET)
    return {"repository": tmp_path / "models", "cache": 1 << 20, "cache_redis_secret": tmp_path / "secret",
            # So long that a busy machine does not make misses of hits.
            "cache_redis_timeout": 10.0}


def infer(client: InferClient, value: float, timeout: float | None = SECONDS) -> float:
    return float(client.infer("m", {"x": np.full((1, 4), value, np.float32)}, timeout=timeout)["y"][0, 0])


def outcome(server: InProcess, name: str) -> float:
    return scrape(server.http_address)["infer_cache_second_total", frozenset({("outcome", name)})]


def until(condition: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline


def test_one_server_runs_and_another_has_the_answer(level: Redis, served: dict[str, Any], transport: str) -> None:
    served |= {"cache_redis": level.url, "transport": transport}
    with in_process(**served) as first, InferClient(first.address) as client:
        assert infer(client, 2.0) == 6.0
        until(lambda: outcome(first, "stored") == 1)
        assert infer(client, 2.0) == 6.0
        assert (outcome(first, "miss"), outcome(first, "hit"), first.stats("m")["rows"]) == (1, 0, 1)
    with in_process(**served) as second, InferClient(second.address) as client:
        assert infer(client, 2.0) == 6.0
        assert (outcome(second, "hit"), second.stats("m")["rows"]) == (1, 0)
        # The first level has it from now on.
        assert infer(client, 2.0) == 6.0
        assert (outcome(second, "hit"), second.stats("m")["rows"], second.calls("m")[0]) == (1, 0, 2)
        assert infer(client, 5.0) == 15.0
        until(lambda: outcome(second, "stored") == 1)
        assert second.stats("m")["rows"] == 1
    [key, _] = level.client.keys()
    assert key.startswith(PREFIX)
    assert level.client.pttl(key) > 0


def test_f41_what_nobody_of_the_fleet_has_stored_is_a_miss(level: Redis, served: dict[str, Any]) -> None:
    served |= {"cache_redis": level.url}
    with in_process(**served) as server, InferClient(server.address) as client:
        infer(client, 2.0)
        until(lambda: outcome(server, "stored") == 1)
    [key] = level.client.keys()
    good = level.client.get(key)
    for value in (b"", b"x" * 10, good[:-1] + bytes([good[-1] ^ 1]), b"\0" * len(good)):
        level.client.set(key, value)
        with in_process(**served) as server, InferClient(server.address) as client:
            assert infer(client, 2.0) == 6.0
            assert (outcome(server, "forged"), server.stats("m")["rows"]) == (1, 1)
    # Another version of the model, another secret: other keys.
    models.write_version(served["repository"], "m", 1, models.scale(4.0))
    with in_process(**served) as server, InferClient(server.address) as client:
        assert infer(client, 2.0) == 8.0
        assert outcome(server, "miss") == 1


def test_f40_down_at_the_start(level: Redis, served: dict[str, Any]) -> None:
    level.kill()
    with in_process(**served, cache_redis=level.url) as server, InferClient(server.address) as client:
        for value in range(20):
            assert infer(client, float(value)) == 3.0 * value
        # More where the machine is so slow that it was tried again.
        assert outcome(server, "failed") >= FAILURES_IN_A_ROW
        assert outcome(server, "failed") + outcome(server, "skipped") == 20


def test_show_7_killed_hung_and_flushed_under_load(level: Redis, served: dict[str, Any]) -> None:
    answers, failures = [0], list[BaseException]()
    stop = threading.Event()

    def work(address: str, seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            with InferClient(address) as client:
                while not stop.is_set():
                    value = float(random.integers(0, 1000))
                    assert infer(client, value) == 3.0 * value
                    answers[0] += 1
        except BaseException as error:
            failures.append(error)

    def go_on(calls: int = 200) -> None:
        before = answers[0]
        until(lambda: failures or answers[0] >= before + calls)
        assert failures == []

    # What has to be asked for again and again.
    served |= {"cache": 4096, "cache_redis_timeout": 0.005}
    with in_process(**served, cache_redis=level.url) as server:
        threads = [threading.Thread(target=work, args=(server.address, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        try:
            go_on()
            level.client.flushall()
            go_on()
            level.process.send_signal(signal.SIGSTOP)
            go_on()
            level.process.send_signal(signal.SIGCONT)
            go_on()
            level.kill()
            go_on()
            level.start()
            go_on()
        finally:
            level.process.send_signal(signal.SIGCONT)
            stop.set()
            for thread in threads:
                thread.join(60.0)
        assert failures == []
        assert outcome(server, "late") + outcome(server, "failed") > 0


def test_a_request_that_leaves_while_it_is_asked_for(level: Redis, served: dict[str, Any]) -> None:
    with in_process(**served, cache_redis=level.url) as server, InferClient(server.address) as client:
        infer(client, 1.0)
        level.process.send_signal(signal.SIGSTOP)
        with pytest.raises(InferError) as caught:
            infer(client, 2.0, timeout=0.3)
        assert caught.value.status == "DEADLINE_EXCEEDED"
        server.until(lambda: server.server.pipeline.in_flight == 0)
        level.process.send_signal(signal.SIGCONT)
        assert infer(client, 3.0) == 9.0
