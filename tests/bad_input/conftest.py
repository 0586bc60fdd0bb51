"""One server for all bad input over the wire, and for each test a connection of its own."""

from collections.abc import Iterator

import grpc
import pytest

from tests.support import models
from tests.support.h2_peer import Peer
from tests.support.server import InProcess, in_process, write_repository
from tests.support.transports import TRANSPORTS, seconds_of

MAX_ROWS = 8
MAX_MESSAGE_BYTES = 1 << 20


@pytest.fixture(scope="session", params=TRANSPORTS)
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[InProcess]:
    repository = write_repository(tmp_path_factory.mktemp("models"), {
        "identity": models.identity(), "pair": models.add_sub(), "texts": models.identity("BYTES", ("batch", 2)),
        **{each.lower(): models.identity(each) for each in ("FP16", "INT8", "UINT8", "BOOL")}})
    with in_process(repository, max_batch_size=MAX_ROWS, gather_rows=MAX_ROWS,
                    max_message_bytes=MAX_MESSAGE_BYTES, executors=1, transport=request.param) as served:
        yield served


@pytest.fixture
def peer(server: InProcess, request: pytest.FixtureRequest) -> Iterator[Peer]:
    waited = seconds_of(request)
    with server.connect(**{} if waited is None else {"seconds": waited}) as connected:
        yield connected
    server.settle()


@pytest.fixture
def channel(server: InProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, [("grpc.max_receive_message_length", -1)]) as connected:
        yield connected
    server.settle()
