"""grpc-go's interoperability client, every case that needs no cloud, against `grpc.testing.TestService`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.serving import PLAINTEXT, TLS, security, services
from tests.conformance.tools import go_tool
from tests.support.command import environment

pytestmark = pytest.mark.conformance

VERSION = "v1.83.1"
SECONDS = 120
CASES = ("empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
         "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
         "special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service",
         "pick_first_unary", "rpc_soak", "channel_soak", "orca_per_rpc", "orca_oob")
# The client reads load reports under a policy of its own only.
LOAD_REPORTS = json.dumps({"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]})


@pytest.fixture(scope="module")
def program() -> Path:
    return go_tool("client", "google.golang.org/grpc/interop/client", VERSION)


@pytest.fixture(scope="module", params=(PLAINTEXT, TLS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The client's flags. It has none for a certificate of its own."""
    secured = security(request.param, tmp_path_factory.mktemp("certificates"))
    with services(secured) as address:
        flags = ["-server_host", "localhost", "-server_port", address.rsplit(":", 1)[1]]
        yield flags if secured.ca is None else [*flags, "-use_tls", "-use_test_ca", "-ca_file", str(secured.ca)]


@pytest.mark.parametrize("case", CASES)
def test_case(program: Path, server: list[str], case: str) -> None:
    policy = ["-service_config_json", LOAD_REPORTS] if case.startswith("orca") else []
    done = subprocess.run([program, *server, "-test_case", case, *policy],
                          env=environment(GRPC_GO_LOG_SEVERITY_LEVEL="info"), capture_output=True, text=True,
                          timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    # It says so once the case has passed, and stays silent about a case that it does not know.
    assert " done" in done.stderr, done.stderr[-4000:]
