"""`--run-timeout` as clients of a server meet it."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import numpy as np
import pytest

from infer.client import InferError
from tests.support import models
from tests.support.repositories import Repository, repository_server
from tests.support.server import scrape

# A minute and longer.
ENDLESS = 6_000_000


def infer(repository: Repository, steps: int) -> int:
    return int(repository.client.infer("slow", {"x": np.full((1, 1), steps, np.int64)})["y"][0, 0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    models.write_version(tmp_path / "models", "slow", 1, models.slow(ENDLESS))
    return tmp_path / "models"


def test_a_wedged_run_ends_and_its_executor_comes_back(root: Path, transport: str) -> None:
    with repository_server(root, executors=1, run_timeout=0.2, transport=transport) as repository:
        with pytest.raises(InferError, match="model 'slow' version 1 ran for longer than 200 ms") as caught:
            infer(repository, ENDLESS)
        assert caught.value.status == "DEADLINE_EXCEEDED"
        assert infer(repository, 1) == 1
        metrics = scrape(repository.served.http_address)
        assert metrics["infer_runs_terminated_total", frozenset()] == 1
        assert metrics["infer_executors_stuck", frozenset()] == 0


def test_a_model_s_own_timeout_over_the_server_s(root: Path, tmp_path: Path) -> None:
    toml = tmp_path / "infer.toml"
    toml.write_text("[models.slow]\nrun_timeout = \"150ms\"\n")
    with repository_server(root, toml=toml, executors=1, run_timeout=3600.0) as repository:
        with pytest.raises(InferError, match="ran for longer than 150 ms"):
            infer(repository, ENDLESS)


def test_the_server_ends_while_a_run_would_not(root: Path) -> None:
    with repository_server(root, executors=1) as repository:
        served = repository.served

        def call() -> None:
            with contextlib.suppress(InferError):
                infer(repository, ENDLESS)

        thread = threading.Thread(target=call)
        thread.start()
        served.until(lambda: (served.server.pipeline.in_flight, served.server.pipeline.queued_requests) == (1, 0))
        served.run(served.server.stop)
        thread.join(30.0)
        assert not thread.is_alive()
