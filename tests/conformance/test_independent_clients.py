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
from tests.conformance.serving import KINDS, Security, models, on_localhost, security, services
from tests.conformance.tools import go_program, node_packages, python_environment
from tests.support.command import REPOSITORY, environment
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


@pytest.fixture(scope="module", params=KINDS)
def secured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Security:
    return security(request.param, tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(secured: Security, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("repository")
    for name, model in scenario.MODELS.items():
        write_version(folder, name, 1, model)
    with models(secured, folder, "--max-message-bytes", scenario.MAX_MESSAGE_BYTES) as serving:
        yield on_localhost(serving.address)


@pytest.fixture(scope="module")
def interop(secured: Security) -> Iterator[str]:
    with services(secured) as address:
        yield on_localhost(address)


@pytest.mark.parametrize("client", CLIENTS)
def test_calls_of_models(client: str, server: str, secured: Security, tmp_path: Path) -> None:
    steps = [*scenario.UNARY_STEPS, *scenario.STREAM_STEPS]
    judge(run(client, server, steps, tmp_path, secured.of_client), steps)


@pytest.mark.parametrize("client", CLIENTS)
def test_calls_of_the_test_service(client: str, interop: str, secured: Security, tmp_path: Path) -> None:
    judge(run(client, interop, scenario.TESTING_STEPS, tmp_path, secured.of_client), scenario.TESTING_STEPS)
