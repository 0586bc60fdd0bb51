"""`infer call`, `infer demo` and `infer bench` against a puppet server over real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from infer.cli import main
from infer.cli.bench import report
from infer.cli.demo import chosen_rows, draw, serving_address
from infer.cli.samples import EXAMPLES, examples_directory, load_sample
from infer.client.tensors import decode
from infer.errors import ResourceExhausted
from infer.proto import message
from infer.services.inference import inference_service
from tests.support.cold_server import FakeRoutes, FakeServer, FakeTensor, FakeVersion, serving

VERSIONS = {
    "digits": [FakeVersion(b"digits", "1", [FakeTensor("image", "FP32", (-1, 64))],
                           [FakeTensor("label", "INT64", (-1,))])],
    "trees": [FakeVersion(b"trees", "1", [FakeTensor("features", "FP32", (-1, 30))],
                          [FakeTensor("label", "INT64", (-1,))])],
    "sum": [FakeVersion(b"sum", "1", [FakeTensor("a", "FP32", (-1, 2)), FakeTensor("b", "INT32", (-1,))],
                        [FakeTensor("y", "FP32", (-1,)), FakeTensor("text", "BYTES", (1,))])],
    "full": [FakeVersion(b"full")],
}


def answers(request: Any) -> Mapping[str, tuple[str, Any]]:
    """Predictions of the examples from their samples; sums; a model whose queue is full."""
    if request.model_name == "full":
        raise ResourceExhausted("the queue of model 'full' is full")
    arrays = {tensor.name: decode(content, tensor.datatype, tuple(tensor.shape))
              for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)}
    if request.model_name == "sum":
        total = arrays["a"].sum(1) + arrays.get("b", 0)
        return {"y": ("FP32", total.astype(np.float32)), "text": ("BYTES", np.array([b"\xc3\xa9"], np.object_))}
    sample = load_sample(request.model_name)
    assert sample is not None
    ((name, rows),) = arrays.items()
    known = {row.tobytes(): label for row, label in zip(sample.inputs[name], sample.expected["label"], strict=True)}
    return {"label": ("INT64", np.array([known[row.tobytes()] for row in rows], np.int64))}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(inference_service(FakeServer(FakeRoutes(VERSIONS))), answers) as where:
        yield where


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_call_sends_the_bundled_sample(address: str) -> None:
    result = run("call", "digits", "--address", address)
    sample = load_sample("digits")
    assert sample is not None
    assert result.exit_code == 0, result.output
    assert "sent image [8, 64]" in result.output
    assert "label INT64 [8]" in result.output
    assert str(sample.expected["label"][:8]) in result.output
    assert str(sample.truth[:8]) in result.output.partition("truth")[2]


def test_call_with_inputs(address: str) -> None:
    result = run("call", "sum", "a=[[1,2],[3,4]]", "b=[10,20]", "--address", address, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {"model_name": "sum", "model_version": "1", "outputs": [
        {"name": "y", "datatype": "FP32", "shape": [2], "data": [13.0, 27.0]},
        {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["\u00e9"]}]}


def test_call_with_random_data_prints_readably(address: str) -> None:
    result = run("call", "sum", "--address", address)
    assert result.exit_code == 0, result.output
    assert "sent b [1]" in result.output
    assert "['\u00e9']" in result.output


def test_call_can_leave_an_input_out(address: str) -> None:
    assert run("call", "sum", "a=random", "--address", address).exit_code == 0


def test_print_request_is_what_the_other_tools_read(address: str) -> None:
    from google.protobuf import json_format

    result = run("call", "sum", "a=[[1,2]]", "b=[3]", "--address", address, "--print-request")
    request = json_format.Parse(result.output, message("inference.ModelInferRequest")())
    assert request.model_name == "sum"
    assert list(request.raw_input_contents) == [b"\0\0\x80?\0\0\0@", b"\3\0\0\0"]


@pytest.mark.parametrize(("arguments", "text"), [
    (["sum", "c=random"], "sum has no input 'c'; its inputs are a FP32 [-1, 2], b INT32 [-1]"),
    (["sum", "a"], "'a': expected NAME=@FILE.npy"), (["sum", "a=random", "a=random"], "given twice"),
    (["sum", "a=["], "input 'a': expected @file.npy, random or JSON of FP32"), (["sum", "--timeout", "0"], "--timeout"),
])
def test_call_usage_errors(address: str, arguments: list[str], text: str) -> None:
    result = run("call", *arguments, "--address", address)
    assert result.exit_code == 2
    assert text in " ".join(result.stderr.split())


def test_call_that_fails(address: str) -> None:
    result = run("call", "full", "--address", address)
    assert result.exit_code == 1
    assert result.stderr == "infer call: RESOURCE_EXHAUSTED: the queue of model 'full' is full\n"
    result = run("call", "nothing", "--address", address)
    assert result.exit_code == 1
    assert result.stderr.startswith("infer call: NOT_FOUND: unknown model 'nothing'")


def test_call_of_nobody() -> None:
    result = run("call", "m", "--address", "127.0.0.1:1", "--timeout", "5")
    assert result.exit_code == 1
    assert result.stderr.startswith("infer call: UNAVAILABLE: no server answers at 127.0.0.1:1; start one")


def test_call_that_takes_too_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        result = run("call", "m", "--address", address, "--timeout", "0.2")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"infer call: DEADLINE_EXCEEDED: no answer from {address} within 0.2 s")


def test_bench(address: str) -> None:
    result = run("bench", "digits", "--address", address, "--connections", "1", "--streams", "2", "--duration", "0.2",
                 "--warmup", "0", "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)
    assert figures["ok"] == figures["sent"] > 0
    assert (figures["model"], figures["connections"], figures["streams"]) == ("digits", 1, 2)
    assert figures["statuses"] == {"OK": figures["ok"]}


def test_bench_on_streams(address: str) -> None:
    result = run("bench", "digits", "--address", address, "--connections", "2", "--streams", "3", "--duration", "0.2",
                 "--warmup", "0", "--stream", "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)
    assert figures["ok"] == figures["sent"] > 0
    assert (figures["stream"], figures["statuses"], figures["peak_in_flight"]) == (True, {"OK": figures["ok"]}, 6)


@pytest.mark.parametrize(("metadata", "text"), [
    (["x-tenant"], "'x-tenant': expected KEY=VALUE"), (["X=a"], "'X=a': expected"), (["x=\t"], "expected KEY=VALUE"),
    ([f"x{number}=a" for number in range(10)], "at most 9 can be sent")])
def test_bench_metadata_that_cannot_be_sent(address: str, metadata: list[str], text: str) -> None:
    result = run("bench", "digits", "--address", address, *(f"--metadata={each}" for each in metadata))
    assert result.exit_code == 2
    assert text in " ".join(result.stderr.split())


def test_bench_of_a_model_that_fails(address: str) -> None:
    result = run("bench", "full", "--address", address)
    assert result.exit_code == 1
    assert "RESOURCE_EXHAUSTED" in result.stderr


def test_bench_report_warns_of_the_bottleneck() -> None:
    from infer._core.load_client import LoadResult

    result = LoadResult(
        sent=12, ok=10, statuses={"OK": 10, "UNAVAILABLE": 2}, failures={"stream_reset": 1}, reason="reset", measured=9,
        duration_s=1.0, rate=1234567.8, min_us=1, mean_us=2, p50_us=3, p90_us=4, p99_us=5, p999_us=6, max_us=7000,
        reply_bytes=3, first_reply=b"", peak_in_flight=1, cpu_share=0.93, bottleneck=True)
    lines = report(result, "m", 4, 64, 100.0).splitlines()
    assert lines[0].startswith("warning: the generator used 93% of its core and is the bottleneck")
    assert lines[1] == "m: 4 connections x 64 calls, open loop at 100/s, 1.0 s"
    assert "1,234,568 calls/s" in lines[2]
    assert any(line.split() == ["UNAVAILABLE", "2"] for line in lines)
    assert any(line.split() == ["stream_reset", "1"] for line in lines)
    assert "warning" not in report(replace(result, bottleneck=False), "m", 1, 1, None)
    assert "m: 4 connections x 64 messages on one stream, closed loop" in report(result, "m", 4, 64, None, stream=True)


class PuppetProcess:
    """Stands in for the server's process."""

    address = ""

    def __init__(self, _: str) -> None: ...

    def __enter__(self) -> PuppetProcess:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_demo_compares_with_scikit_learn(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer.cli.demo.ServerProcess", PuppetProcess)
    monkeypatch.setattr("infer.cli.demo.LOAD_SECONDS", 0.05)
    monkeypatch.setattr(PuppetProcess, "address", address)
    result = run("demo")
    assert result.exit_code == 0, result.output
    assert "digits: 540 held-out rows" in result.output
    assert "(527 of 540) through the server" in result.output
    assert "(164 of 171) through the server" in result.output
    assert "171 predictions are equal" in result.output
    assert result.output.count("throughput") == len(EXAMPLES)


def test_demo_with_another_accuracy_exits_1(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer.cli.demo.ServerProcess", PuppetProcess)
    monkeypatch.setattr("infer.cli.demo._show", lambda _, model: model != "trees")
    assert run("demo").exit_code == 1


def test_digits_are_drawn_with_a_mistake_among_them() -> None:
    image = np.zeros((7, 64), np.float32)
    image[:, 0] = 16
    assert chosen_rows([1] * 7, [1, 1, 1, 1, 1, 1, 2]) == [0, 1, 2, 3, 6]
    assert chosen_rows([1] * 2, [2, 1]) == [0, 1]
    lines = draw(image, [1] * 7, [1, 1, 1, 1, 1, 1, 2]).splitlines()
    assert lines[0].startswith("  @@")
    assert len(lines) == 9
    assert lines[8].split("  ")[-1].strip() == "got 1, is 2 !"


@pytest.mark.parametrize(("line", "address"), [
    ('{"msg": "serving", "grpc": ["127.0.0.1:5"]}\n', "127.0.0.1:5"), ('{"grpc": []}', ""), ('{"grpc": "x"}', ""),
    ('{"msg": "loading"}', ""), ("Traceback\n", ""), ("[1]", "")])
def test_serving_address(line: str, address: str) -> None:
    assert serving_address(line) == address


@pytest.mark.parametrize("model", EXAMPLES)
def test_samples_are_whole(model: str) -> None:
    sample = load_sample(model)
    assert sample is not None
    assert (examples_directory() / model / "1" / "model.onnx").is_file()
    assert {len(array) for array in (*sample.inputs.values(), *sample.expected.values(), sample.truth)} == {sample.rows}


def test_no_sample_of_another_model() -> None:
    assert load_sample("../digits") is None
