"""Locust with the users of bench/load/locustfile.py, without its page."""

from __future__ import annotations

import csv
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import infer
from tests.conformance.serving import PLAINTEXT, models, security
from tests.conformance.tools import python_environment
from tests.support.command import EXAMPLES, REPOSITORY, environment

pytestmark = [pytest.mark.conformance, pytest.mark.long]

# Locust's, and what infer.client and its command line import.
REQUIREMENTS = ("locust==2.47.*", "grpcio>=1.71", "numpy>=1.26", "protobuf>=6.30,<8", "click>=8.1", "pydantic>=2.7")
SECONDS = 90


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with models(security(PLAINTEXT, tmp_path_factory.mktemp("certificates")), EXAMPLES) as serving:
        yield serving.address


def test_users_of_every_model(address: str, tmp_path: Path) -> None:
    python = python_environment("locust", REQUIREMENTS)
    done = subprocess.run(
        [python, "-m", "locust", "-f", REPOSITORY / "bench" / "load" / "locustfile.py", "--host", address, "--headless",
         "-u", "4", "-r", "4", "-t", "3s", "--csv", tmp_path / "report"],
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False,
        env=environment(PYTHONPATH=os.fspath(Path(infer.__file__).parents[1])))
    assert done.returncode == 0, done.stderr
    with (tmp_path / "report_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"digits", "trees", "Aggregated"}
    assert all(int(row["Request Count"]) > 0 and row["Failure Count"] == "0" for row in rows.values()), rows
