"""grpcurl and ghz, run with exactly the lines that the server prints at its start."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conformance.tools import go_tool
from tests.support.command import EXAMPLES, Serving, environment, search_path
from tests.support.models import every_identity, write_version

pytestmark = pytest.mark.conformance

# A line lasts as long as it says itself, which for ghz is 10 s.
SECONDS = 60
COUNTED = re.compile(r"^ *\[(\w+)\] +(\d+) responses", re.M)


@pytest.fixture(scope="module")
def tools() -> list[Path]:
    """The directories of both programs."""
    return [go_tool("grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl", "v1.9.3").parent,
            go_tool("ghz", "github.com/bojand/ghz/cmd/ghz", "v0.121.0").parent]


def paste(line: str, tools: list[Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    """A line as a user runs it, with `infer` and the tools on PATH."""
    return subprocess.run(["bash", "-c", line], cwd=cwd, env=environment(PATH=search_path(cwd, *tools)),
                          capture_output=True, text=True, timeout=SECONDS, check=False)


def printed(serving: Serving, tool: str) -> str:
    (line,) = (line.strip() for line in serving.stdout if re.match(rf" *{tool} -", line))
    return line


def assert_all_ok(report: str) -> None:
    counts = {name: int(count) for name, count in COUNTED.findall(report)}
    assert list(counts) == ["OK"], report
    assert counts["OK"] > 0
    assert "Error distribution" not in report


def test_lines_with_the_request_in_them(tools: list[Path], tmp_path: Path) -> None:
    with Serving(EXAMPLES) as serving:
        done = paste(printed(serving, "grpcurl"), tools, tmp_path)
        assert done.returncode == 0, done.stderr
        reply = json.loads(done.stdout)
        assert (reply["modelName"], reply["modelVersion"]) == ("digits", "1")
        assert [output["name"] for output in reply["outputs"]] == ["label", "probabilities"]
        done = paste(printed(serving, "ghz"), tools, tmp_path)
        assert done.returncode == 0, done.stderr
        assert_all_ok(done.stdout)
        assert serving.stop() == 0, serving.output


def test_lines_with_the_request_from_a_file(tools: list[Path], tmp_path: Path) -> None:
    write_version(tmp_path, "every_identity", 1, every_identity())
    with Serving(tmp_path / "every_identity") as serving:
        (request,) = (line for line in serving.stdout if "--print-request" in line)
        done = paste(request, tools, tmp_path)
        assert done.returncode == 0, done.stderr
        done = paste(printed(serving, "grpcurl"), tools, tmp_path)
        assert done.returncode == 0, done.stderr
        assert [output["datatype"] for output in json.loads(done.stdout)["outputs"]].count("BF16") == 1
        line = printed(serving, "ghz")
        done = paste(line.replace("-z 10s", "-n 200"), tools, tmp_path)
        assert line != line.replace("-z 10s", "-n 200")
        assert done.returncode == 0, done.stderr
        assert_all_ok(done.stdout)
        assert serving.stop() == 0, serving.output
