"""grpcio, grpc-js, grpclib and grpc-go make the calls of scenario.py, each in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import scenario
from tests.conformance.scenario import Step
from tests.conformance.services import messages
from tests.conformance.serving import Services, services
from tests.conformance.tools import go_program, node_packages, python_environment
from tests.support.command import REPOSITORY, Serving, environment
from tests.support.models import write_version

pytestmark = pytest.mark.conformance

FOLDER = Path(__file__).parent / "clients"
PACKAGES = ("@grpc/grpc-js@1.14.7", "@grpc/proto-loader@0.8.1")
PROTOS = (REPOSITORY / "protos", messages.PROTOS)
SECONDS = 120


def command_of(client: str) -> tuple[list[object], dict[str, str]]:
    """How a client is started, and what its environment has to hold."""
    if client.startswith("grpcio"):
        return [sys.executable, "-E", FOLDER / "grpcio_client.py", *(["--aio"] if client == "grpcio-aio" else [])], {}
    if client == "grpclib":
        python = python_environment("grpclib", ["grpclib==0.4.*", "protobuf>=6.30,<8"])
        return [python, "-E", FOLDER / "grpclib_client.py"], {}
    if client == "grpc-js":
        return ["node", FOLDER / "grpc_js" / "client.js"], {
            "NODE_PATH": str(node_packages("grpc_js", PACKAGES)), "PROTOS": os.pathsep.join(map(str, PROTOS))}
    return [go_program(FOLDER / "grpc_go")], {}


CLIENTS = ("grpcio", "grpcio-aio", "grpc-js", "grpclib", "grpc-go")


def run(client: str, address: str, steps: Sequence[Step], folder: Path, tls: Sequence[Path] = ()) -> Mapping[str, Any]:
    """What came of each step, by its name."""
    command, variables = command_of(client)
    descriptors = scenario.write_descriptors(folder / "descriptors.binpb")
    results = folder / "results.json"
    done = subprocess.run([*command, address, descriptors, scenario.write_steps(folder / "steps.json", steps), results,
                           *tls], env=environment(**variables), capture_output=True, text=True, timeout=SECONDS,
                          check=False)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, Any] = json.loads(results.read_text())
    return found


def judge(results: Mapping[str, Any], steps: Sequence[Step]) -> None:
    """Every step of a client, told together."""
    failures = []
    for step in steps:
        try:
            step.judge(results[step.name])
        except AssertionError as error:
            failures.append(f"{step.name}: {error}")
    assert not failures, "\n".join(failures)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("repository")
    for name, model in scenario.MODELS.items():
        write_version(folder, name, 1, model)
    with Serving(folder, "--max-message-bytes", scenario.MAX_MESSAGE_BYTES) as serving:
        yield serving
        assert serving.stop() == 0, serving.output


@pytest.mark.parametrize("client", CLIENTS)
def test_calls_of_models(client: str, server: Serving, tmp_path: Path) -> None:
    judge(run(client, server.address, scenario.UNARY_STEPS, tmp_path), scenario.UNARY_STEPS)


@pytest.mark.parametrize("client", CLIENTS)
def test_streams_of_the_server(client: str, server: Serving, tmp_path: Path) -> None:
    judge(run(client, server.address, scenario.STREAM_STEPS, tmp_path), scenario.STREAM_STEPS)


@pytest.fixture(scope="module")
def interop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services("plaintext", tmp_path_factory.mktemp("certificates")) as served:
        yield served


@pytest.mark.parametrize("client", CLIENTS)
def test_calls_of_the_test_service(client: str, interop: Services, tmp_path: Path) -> None:
    judge(run(client, interop.address, scenario.TESTING_STEPS, tmp_path), scenario.TESTING_STEPS)
