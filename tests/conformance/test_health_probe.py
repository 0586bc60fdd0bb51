"""grpc-health-probe, which clusters run beside a server: its exit status and its words."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.conformance.serving import KINDS, models, on_localhost, security
from tests.conformance.tools import go_tool
from tests.support.command import EXAMPLES, environment

pytestmark = pytest.mark.conformance

SECONDS = 30
UNHEALTHY, REFUSED = 4, 3


@pytest.fixture(scope="module", params=KINDS)
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    program = go_tool("grpc-health-probe", "github.com/grpc-ecosystem/grpc-health-probe", "v0.4.61")
    secured = security(request.param, tmp_path_factory.mktemp("certificates"))
    with models(secured, EXAMPLES) as serving:
        flags = ["-tls-ca-cert", "-tls-client-cert", "-tls-client-key"]
        given = [part for flag, file in zip(flags, secured.of_client, strict=False) for part in (flag, str(file))]
        yield [str(program), "-addr", on_localhost(serving.address), *(["-tls", *given] if given else [])]


@pytest.mark.parametrize(("service", "status", "words"), [
    ("", 0, "status: SERVING"), ("digits", 0, "status: SERVING"),
    ("inference.GRPCInferenceService", 0, "status: SERVING"), ("nobody", REFUSED, "nobody")])
def test_probe(command: list[str], service: str, status: int, words: str) -> None:
    done = subprocess.run([*command, "-service", service], env=environment(), capture_output=True, text=True,
                          timeout=SECONDS, check=False)
    assert done.returncode == status, done.stderr
    assert words in done.stdout + done.stderr
