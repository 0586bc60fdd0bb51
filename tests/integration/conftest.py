"""The real server for tests over real sockets: one for most of them, more where a test wants its own settings."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import models
from tests.support.h2_peer import Peer
from tests.support.server import InProcess, in_process, write_repository
from tests.support.transports import TRANSPORTS, seconds_of


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """identity FP32 [batch,4]; wide FP32 [batch,length]; slow INT64 [batch,1], busy for as many steps as it is sent."""
    return write_repository(tmp_path_factory.mktemp("models"), {
        "identity": models.identity(), "wide": models.identity(dims=("batch", "length")), "slow": models.slow(200_000)})


@pytest.fixture(scope="session", params=TRANSPORTS)
def server(repository: Path, request: pytest.FixtureRequest) -> Iterator[InProcess]:
    """One executor: what it runs keeps all else waiting. On each transport. Runs of `slow` say nothing of the next."""
    with in_process(repository, executors=1, transport=request.param, judge_deadlines=False) as served:
        yield served


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """For a test that makes its own servers."""
    return str(request.param)


@pytest.fixture
def peer(server: InProcess, request: pytest.FixtureRequest) -> Iterator[Peer]:
    waited = seconds_of(request)
    with server.connect(**{} if waited is None else {"seconds": waited}) as connected:
        yield connected
    server.settle()
