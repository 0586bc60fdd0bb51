"""`infer health` over HTTP and over gRPC."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from infer.cli import main
from infer.cli.health import default_address
from infer.observe.http import HttpServer, pages
from infer.services.health import health_service
from tests.support.cold_server import FakeRoutes, FakeServer, FakeVersion, serving

SERVER = FakeServer(FakeRoutes({"m": [FakeVersion(b"m", "2")]}))


@pytest.fixture(autouse=True)
def ready() -> None:
    SERVER.live = SERVER.ready = True


@pytest.fixture(scope="module")
def http() -> Iterator[str]:
    server = HttpServer("127.0.0.1", 0, pages(SERVER, lambda _: (b"", "text/plain")))
    server.serve()
    yield f"127.0.0.1:{server.address[1]}"
    server.close()


@pytest.fixture(scope="module")
def grpc() -> Iterator[str]:
    with serving(health_service(SERVER)) as address:
        yield address


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["health", *arguments])


def test_over_http(http: str) -> None:
    result = run("--address", http)
    assert (result.exit_code, result.output) == (0, "serving\n")
    SERVER.ready = False
    result = run("--address", http, "--service", "readiness")
    assert result.exit_code == 1
    assert result.stderr == f"infer health: {http}: not serving (/v2/health/ready answered 503)\n"
    assert run("--address", http, "--service", "liveness").exit_code == 0
    SERVER.live = False
    assert run("--address", http, "--service", "liveness").exit_code == 1


def test_over_grpc(grpc: str) -> None:
    for service in ("", "readiness", "liveness", "m", "m/2"):
        assert run("--grpc", "--address", grpc, "--service", service).exit_code == 0
    SERVER.ready = False
    result = run("--grpc", "--address", grpc)
    assert (result.exit_code, result.stderr) == (1, f"infer health: {grpc}: not serving\n")
    result = run("--grpc", "--address", grpc, "--service", "n")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"infer health: {grpc}: NOT_FOUND: unknown service 'n'")


@pytest.mark.parametrize("arguments", [[], ["--grpc"]])
def test_nobody_there(arguments: list[str]) -> None:
    result = run("--address", "127.0.0.1:1", "--timeout", "2", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("infer health: 127.0.0.1:1: ")
    assert "refused" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["--grpc"]])
def test_nobody_answers(arguments: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        result = run("--address", f"127.0.0.1:{mute.getsockname()[1]}", "--timeout", "0.2", *arguments)
    assert result.exit_code == 1


@pytest.mark.parametrize(("arguments", "text"), [
    (["--service", "m"], "add --grpc"), (["--address", "localhost"], "expected HOST:PORT"),
    (["--address", "unix:/s"], "expected HOST:PORT")])
def test_usage_errors(arguments: list[str], text: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert text in result.stderr


def test_the_default_follows_the_settings_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFER_HTTP_PORT", raising=False)
    assert default_address("INFER_HTTP_PORT", 8002) == "localhost:8002"
    monkeypatch.setenv("INFER_HTTP_PORT", "9002")
    assert default_address("INFER_HTTP_PORT", 8002) == "localhost:9002"
    monkeypatch.setenv("INFER_PORT", "tcp://10.0.0.1:8001")
    assert default_address("INFER_PORT", 8001) == "localhost:8001"


def test_it_imports_nothing_heavy() -> None:
    script = ("import sys\nfrom infer.cli import main\n"
              "try: main(['health', '--address', '127.0.0.1:1'])\nexcept SystemExit: pass\n"
              "heavy = {'numpy', 'grpc', 'google.protobuf', 'pydantic', 'asyncio', 'infer.client'}\n"
              "print(sorted(heavy & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
