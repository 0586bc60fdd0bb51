"""TLS and mTLS with clients of the field over real sockets."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from infer.cli import main
from infer.client import AsyncInferClient, InferClient, InferError, RetryPolicy, Unavailable, tls_credentials
from infer.proto import message
from tests.support.calls import identity_request
from tests.support.certificates import Authority, Pair
from tests.support.h2_peer import Peer
from tests.support.server import InProcess, in_process, scrape
from tests.support.transports import GRPCIO, TRANSPORTS

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
ONCE = RetryPolicy(attempts=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("server")


@pytest.fixture(scope="module", params=TRANSPORTS)
def tls_server(repository: Path, pair: Pair, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
               ) -> Iterator[InProcess]:
    with in_process(repository, transport=request.param, tls_cert=pair.cert, tls_key=pair.key,
                    uds=tmp_path_factory.mktemp("socket") / "grpc.sock") as made:
        yield made


@pytest.fixture(scope="module", params=TRANSPORTS)
def mtls_server(repository: Path, pair: Pair, authority: Authority, request: pytest.FixtureRequest
                ) -> Iterator[InProcess]:
    with in_process(repository, transport=request.param, tls_cert=pair.cert, tls_key=pair.key,
                    tls_client_ca=authority.file) as made:
        yield made


def localhost(server: InProcess) -> str:
    return f"localhost:{server.address.rpartition(':')[2]}"


def client(server: InProcess, authority: Authority, pair: Pair | None = None) -> InferClient:
    return InferClient(localhost(server), timeout=20, retry=ONCE,
                       credentials=tls_credentials(authority.file, *pair or (None, None)))


def served(connected: InferClient) -> bool:
    return bool((connected.infer("identity", {"x": ROWS})["y"] == ROWS).all())


def test_a_call(tls_server: InProcess, authority: Authority) -> None:
    with client(tls_server, authority) as connected:
        assert served(connected)
        assert connected.ready("identity")
        assert connected.healthy()
    tls_server.settle()


async def test_a_call_with_asyncio(tls_server: InProcess, authority: Authority) -> None:
    credentials = tls_credentials(authority.file)
    async with AsyncInferClient(localhost(tls_server), timeout=20, credentials=credentials) as connected:
        assert ((await connected.infer("identity", {"x": ROWS}))["y"] == ROWS).all()
    tls_server.settle()


def test_a_large_message(tls_server: InProcess, authority: Authority) -> None:
    rows = np.random.default_rng(7).standard_normal((1024, 4000), np.float32)
    with client(tls_server, authority) as connected:
        assert (connected.infer("wide", {"x": rows})["y"] == rows).all()
    tls_server.settle()


def test_the_unix_socket_stays_plaintext(tls_server: InProcess) -> None:
    with InferClient(tls_server.server.addresses[1], timeout=20) as connected:
        assert served(connected)
    tls_server.settle()


def test_plaintext_to_the_tls_port(tls_server: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "infer.transport"):
        with InferClient(localhost(tls_server), timeout=20, retry=ONCE) as connected:
            with pytest.raises(Unavailable):
                connected.ready()
        tls_server.settle()
    assert [record.getMessage() for record in caplog.records if "failed: HTTP_REQUEST" in record.getMessage()
            or "WRONG_VERSION_NUMBER" in record.getMessage()]


def test_a_ca_that_the_client_does_not_know(tls_server: InProcess, tmp_path: Path) -> None:
    with client(tls_server, Authority(tmp_path, "stranger")) as connected:
        with pytest.raises(Unavailable):
            connected.ready()
    tls_server.settle()


def test_a_name_that_the_certificate_is_not_for(repository: Path, authority: Authority) -> None:
    elsewhere = authority.issue("elsewhere", "elsewhere.example")
    with in_process(repository, tls_cert=elsewhere.cert, tls_key=elsewhere.key) as server:
        with client(server, authority) as connected:
            with pytest.raises(Unavailable):
                connected.ready()


def test_mtls(mtls_server: InProcess, authority: Authority) -> None:
    mine = authority.issue("client", "client.example")
    with client(mtls_server, authority, mine) as connected:
        assert served(connected)
        if mtls_server.transport == GRPCIO:
            # It does not show connections.
            return
        certificates = mtls_server.look(lambda: [
            each.peer_certificate() for each in mtls_server.server.transport.endpoint.open_connections()])
    assert certificates == [ssl.PEM_cert_to_DER_cert(mine.cert.read_text())]
    mtls_server.settle()


def test_mtls_names_who_asks(mtls_server: InProcess, authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    mine = authority.issue("client", "client.example")
    root = logging.getLogger()
    before = root.level
    request = message("inference.LogSettingsRequest")()
    request.settings["log_warning"].bool_param = True
    request.settings["log_info"].bool_param = before != logging.INFO
    try:
        with client(mtls_server, authority, mine) as connected:
            connected.call("/inference.GRPCInferenceService/LogSettings", request.SerializeToString())
    finally:
        root.setLevel(before)
    (line,) = (record for record in caplog.records if record.name == "infer.audit")
    assert re.fullmatch(r"ipv[46]:\S+ client\.example", line.__dict__["who"])
    mtls_server.settle()


@pytest.mark.parametrize("shown", ["none", "expired", "of another CA"])
def test_mtls_refuses(mtls_server: InProcess, authority: Authority, tmp_path: Path, shown: str) -> None:
    mine = {"none": lambda: None,
            "expired": lambda: authority.issue("expired", "client.example", expired=True),
            "of another CA": lambda: Authority(tmp_path, "stranger").issue("client", "client.example")}[shown]()
    before = failed_handshakes(mtls_server)
    with client(mtls_server, authority, mine) as connected:
        with pytest.raises(Unavailable):
            connected.ready()
    mtls_server.settle()
    # grpcio does not count them.
    assert mtls_server.transport == GRPCIO or failed_handshakes(mtls_server) > before


def failed_handshakes(server: InProcess) -> float:
    return scrape(server.http_address).get(("infer_tls_handshakes_total", frozenset({("outcome", "failed")})), 0)


def dial(server: InProcess, context: ssl.SSLContext) -> ssl.SSLSocket:
    link = socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2])), 20)
    return context.wrap_socket(link, server_hostname="localhost")


@pytest.mark.parametrize("alpn", [(), ("http/1.1",), ("h2", "http/1.1")])
def test_alpn(tls_server: InProcess, authority: Authority, alpn: tuple[str, ...]) -> None:
    with dial(tls_server, authority.client_context(alpn=alpn)) as link:
        if "h2" in alpn:
            with Peer(link) as peer:
                assert peer.call(message=identity_request()).code == 0
        else:
            assert link.selected_alpn_protocol() is None
            # An abort says no close_notify: a reset, an end of file, or an end.
            with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
                assert link.recv(1) == b""
    tls_server.settle()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
@pytest.mark.parametrize("narrow", ["version", "ciphers"])
def test_what_is_too_weak(tls_server: InProcess, authority: Authority, narrow: str) -> None:
    context = authority.client_context()
    context.set_ciphers("AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0")
    if narrow == "version":
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    else:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        dial(tls_server, context)
    tls_server.settle()


def test_tls_1_2(tls_server: InProcess, authority: Authority) -> None:
    context = authority.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with dial(tls_server, context) as link:
        with Peer(link) as peer:
            assert peer.call(message=identity_request()).code == 0
        assert link.version() is None
    tls_server.settle()


def s_client(server: InProcess, *arguments: str, said: bytes = b"") -> str:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    done = subprocess.run(
        [program, "s_client", "-connect", localhost(server), "-servername", "localhost", *arguments],
        input=said, capture_output=True, timeout=60, check=False)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def test_openssl_without_h2(tls_server: InProcess) -> None:
    assert "No ALPN negotiated" in s_client(tls_server, "-alpn", "http/1.1")
    tls_server.settle()


def test_renegotiation_is_refused(tls_server: InProcess) -> None:
    text = s_client(tls_server, "-alpn", "h2", "-tls1_2", said=b"R\n")
    assert "ALPN protocol: h2" in text
    # "no renegotiation", or "unexpected record" where a frame of ours comes before the alert.
    assert ":error:" in text.partition("RENEGOTIATING")[2]
    tls_server.settle()


def test_F43_F44_rotation(repository: Path, tmp_path: Path, transport: str) -> None:
    first = Authority(tmp_path, "first")
    pair = first.issue("server")
    with in_process(repository, transport=transport, tls_cert=pair.cert, tls_key=pair.key) as server:
        check = server.server.transport.check_certificates

        def alarm() -> float:
            return scrape(server.http_address)[("infer_tls_certificate_problem", frozenset())]

        with client(server, first) as old:
            assert served(old)
            pair.cert.write_text("half a certi")
            server.run(check)
            assert alarm() == 1
            with client(server, first) as other:
                assert served(other)
            second = Authority(tmp_path, "second")
            second.issue("server")
            server.run(check)
            assert alarm() == 0
            with client(server, second) as new:
                assert served(new)
            with client(server, first) as refused, pytest.raises(InferError):
                refused.ready()
            # Connections that are open stay.
            assert served(old)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_the_command_line_over_tls(tls_server: InProcess, authority: Authority) -> None:
    tls = ("--address", localhost(tls_server), "--tls-ca", authority.file)
    assert run("call", "identity", *tls)[0] == 0
    assert run("health", "--grpc", *tls) == (0, "serving\n")
    code, text = run("bench", "identity", *tls, "--duration", "0.2", "--warmup", "0", "--connections", "2")
    assert code == 0, text
    code, text = run("call", "identity", "--address", localhost(tls_server), "--tls")
    assert code == 1
    assert "UNAVAILABLE" in text
    tls_server.settle()


def test_the_command_line_over_mtls(mtls_server: InProcess, authority: Authority) -> None:
    mine = authority.issue("client", "client.example")
    tls = ("--address", localhost(mtls_server), "--tls-ca", authority.file, "--tls-cert", mine.cert, "--tls-key",
           mine.key)
    assert run("call", "identity", *tls)[0] == 0
    assert run("bench", "identity", *tls, "--duration", "0.2", "--warmup", "0", "--connections", "1")[0] == 0
    mtls_server.settle()


def test_wrong_options(authority: Authority, tmp_path: Path) -> None:
    code, text = run("call", "m", "--tls-cert", authority.file)
    assert code == 2
    assert "--tls: a client's certificate and its key go together" in text
    code, text = run("bench", "m", "--tls-ca", tmp_path / "missing.pem")
    assert code == 2
    assert "missing.pem: cannot be read: No such file or directory" in text
    code, text = run("health", "--tls")
    assert code == 2
    assert "--tls needs --grpc" in text
