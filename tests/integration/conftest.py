"""The real server for tests over real sockets: one for most of them, more where a test wants its own settings."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import models
from tests.support.h2_peer import Peer
from tests.support.requests import add_raw, infer_request
from tests.support.server import InProcess, in_process, write_repository


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """identity FP32 [batch,4]; wide FP32 [batch,length]; slow INT64 [batch,1], busy for as many steps as it is sent."""
    return write_repository(tmp_path_factory.mktemp("models"), {
        "identity": models.identity(), "wide": models.identity(dims=("batch", "length")), "slow": models.slow(60_000)})


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[InProcess]:
    """One executor: what it runs keeps all else waiting."""
    with in_process(repository, executors=1) as served:
        request = infer_request("identity")
        add_raw(request, "x", "FP32", [1, 4], bytes(16))
        served.fill_scratch(request)
        yield served


@pytest.fixture
def peer(server: InProcess) -> Iterator[Peer]:
    with server.connect() as connected:
        yield connected
    server.settle()
