"""grpcurl and ghz, with exactly the lines that the server prints at its start, and through reflection alone."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from infer.services.reflection import VERSIONS
from tests.conformance.scenario import ROW
from tests.conformance.serving import KINDS, PLAINTEXT, Security, models, on_localhost, security
from tests.conformance.tools import go_tool
from tests.support.command import EXAMPLES, Serving, environment, run, search_path
from tests.support.models import add_sub_int32, every_identity, write_version

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


class Secured(NamedTuple):
    address: str
    security: Security

    def flags(self, plaintext: str, ca: str, certificate: str, key: str) -> list[str]:
        """A tool's, by their names."""
        given = self.security.of_client
        return [part for flag, file in zip((ca, certificate, key), given, strict=False) for part in (flag, str(file))
                ] or [plaintext]


@pytest.fixture(scope="module", params=KINDS)
def simple(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secured = security(request.param, tmp_path_factory.mktemp("certificates"))
    repository = tmp_path_factory.mktemp("repository")
    write_version(repository, "simple", 1, add_sub_int32())
    with models(secured, repository) as serving:
        yield Secured(on_localhost(serving.address), secured)


METHOD = "inference.GRPCInferenceService/ModelInfer"
CALL = json.dumps({
    "model_name": "simple", "id": "one",
    "inputs": [{"name": name, "datatype": "INT32", "shape": [1, 16]} for name in ("INPUT0", "INPUT1")],
    "raw_input_contents": [base64.b64encode(array.tobytes()).decode() for array in (ROW, ROW)]})
NOT_FOUND = 5
RATE, BENCH_SECONDS = 5000, 10


def grpcurl(tools: list[Path], server: Secured, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The address goes ahead of the last argument's flags, as grpcurl wants it."""
    flags = server.flags("-plaintext", "-cacert", "-cert", "-key")
    *options, last = arguments
    return subprocess.run([tools[0] / "grpcurl", *flags, *options, server.address, *last.split(" ")],
                          env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)


def test_grpcurl_through_reflection(tools: list[Path], simple: Secured) -> None:
    done = grpcurl(tools, simple, "list")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"grpc.health.v1.Health", "inference.GRPCInferenceService", *(
        f"grpc.reflection.{version}.ServerReflection" for version in VERSIONS)}
    done = grpcurl(tools, simple, f"describe {METHOD.replace('/', '.')}")
    assert "rpc ModelInfer ( .inference.ModelInferRequest ) returns ( .inference.ModelInferResponse );" in done.stdout
    done = grpcurl(tools, simple, "describe inference.ModelInferRequest")
    assert "repeated bytes raw_input_contents = 7;" in done.stdout
    done = grpcurl(tools, simple, "-d", CALL, METHOD)
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout)
    sums, differences = (np.frombuffer(base64.b64decode(content), np.int32) for content in reply["rawOutputContents"])
    np.testing.assert_array_equal(sums, 2 * ROW[0])
    np.testing.assert_array_equal(differences, np.zeros(16))
    done = grpcurl(tools, simple, "-d", '{"model_name": "nobody"}', METHOD)
    # Its exit status is the call's, past 64.
    assert done.returncode == 64 + NOT_FOUND, done.stderr
    assert "Code: NotFound" in done.stderr


def ghz(tools: list[Path], server: Secured, *arguments: str) -> str:
    flags = server.flags("--insecure", "--cacert", "--cert", "--key")
    done = subprocess.run([tools[1] / "ghz", *flags, "--call", METHOD, "-d", CALL, *arguments, server.address],
                          env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ghz_through_reflection(tools: list[Path], simple: Secured) -> None:
    report = ghz(tools, simple, "-n", "500", "-c", "10", "--connections", "2")
    assert_all_ok(report)
    assert COUNTED.findall(report) == [("OK", "500")]


@pytest.mark.long
@pytest.mark.parametrize("simple", [PLAINTEXT], indirect=True)
def test_ghz_beside_infer_bench(tools: list[Path], simple: Secured, capsys: pytest.CaptureFixture[str]) -> None:
    """At 5,000 calls a second. Whether the two agree shows where nothing else runs: what they measured is printed."""
    report = json.loads(ghz(tools, simple, "--rps", str(RATE), "-n", str(RATE * BENCH_SECONDS), "-c", "64",
                            "--connections", "4", "-O", "json"))
    assert report["statusCodeDistribution"] == {"OK": RATE * BENCH_SECONDS}
    done = run("bench", "simple", "--address", simple.address, "--rate", RATE, "--duration", BENCH_SECONDS, "--json",
               seconds=SECONDS)
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout)
    assert ours["ok"] == ours["sent"] > 0
    median, = (each["latency"] / 1e6 for each in report["latencyDistribution"] if each["percentage"] == 50)
    with capsys.disabled():
        print(f"\nasked for {RATE:,}/s: ghz {report['rps']:,.0f}/s, median {median:.3f} ms; "
              f"infer bench {ours['rate']:,.0f}/s, median {ours['p50_us'] / 1e3:.3f} ms")
