"""perf_analyzer, as its users run it, comes to its report, and its counts are the server's."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.scenario import MODELS
from tests.conformance.tools import debian_package, python_environment
from tests.support.command import Serving, environment
from tests.support.models import write_version
from tests.support.server import scrape

pytestmark = [pytest.mark.conformance, pytest.mark.long]

# The last version whose wheel carries the program.
REQUIREMENTS = ("tritonclient==2.50.0", "nvidia-cuda-runtime-cu12==12.*")
SECONDS = 120
WINDOW_REQUESTS = 500
STAGES = r"\(overhead \d+ usec" + "".join(rf" \+ {stage} \d+ usec" for stage in (
    "queue", "compute input", "compute infer", "compute output")) + r"\)"


@pytest.fixture(scope="module")
def program() -> tuple[Path, dict[str, str]]:
    """The program, and where its libraries are."""
    folder = python_environment("perf_analyzer", REQUIREMENTS).parents[1]
    found = folder / "bin" / "perf_analyzer"
    found.chmod(0o755)
    (runtime,) = folder.glob("lib/python*/site-packages/nvidia/cuda_runtime/lib")
    (base64,) = debian_package("libb64-0d").glob("usr/lib/*/libb64.so.0d")
    return found, {"LD_LIBRARY_PATH": os.pathsep.join([str(runtime), str(base64.parent)])}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("repository")
    write_version(folder, "simple", 1, MODELS["simple"])
    with Serving(folder) as serving:
        yield serving
        assert serving.stop() == 0, serving.output


@pytest.mark.parametrize("arguments", [(), ("--async",), ("--async", "--streaming")],
                         ids=["sync", "async", "streaming"])
def test_report(program: tuple[Path, dict[str, str]], server: Serving, arguments: tuple[str, ...], tmp_path: Path
                ) -> None:
    path, variables = program
    before = answered(server)
    done = subprocess.run(
        [path, "-m", "simple", "-i", "grpc", "-u", server.address, "--concurrency-range", "4", "--measurement-mode",
         "count_windows", "--measurement-request-count", str(WINDOW_REQUESTS), "--stability-percentage", "999",
         "--max-trials", "3", *arguments],
        cwd=tmp_path, env=environment(**variables), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    throughput = re.search(r"^Concurrency: 4, throughput: ([0-9.]+) infer/sec, latency [0-9]+ usec$", done.stdout, re.M)
    assert throughput, done.stdout
    assert float(throughput[1]) > 0
    # What it read of the server's statistics, which it tells apart by stage.
    counted = [int(count) for count in re.findall(r"^    Inference count: ([0-9]+)$", done.stdout, re.M)]
    assert counted, done.stdout
    assert all(count >= WINDOW_REQUESTS for count in counted)
    assert re.search(STAGES, done.stdout), done.stdout
    assert answered(server) - before >= sum(counted)


def answered(server: Serving) -> int:
    """Calls that the server answered with OK."""
    return int(scrape(server.http).get(
        ("infer_requests_total", frozenset({("model", "simple"), ("version", "1"), ("code", "OK")})), 0))
