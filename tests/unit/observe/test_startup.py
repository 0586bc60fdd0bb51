"""The text at the start: a table, and lines that can be pasted."""

from __future__ import annotations

import io
import json
import logging
import re
import shlex
from dataclasses import replace
from typing import Any

import pytest

from infer.observe.startup import (
    MTLS,
    TLS,
    Start,
    Step,
    address_text,
    announce,
    client_address,
    paste_lines,
    print_start,
    render,
)
from infer.proto import message
from tests.support.cold_server import FakeTensor, FakeVersion

DIGITS = FakeVersion(
    b"digits", "1", [FakeTensor("image", "FP32", (-1, 4), ("batch", ""))],
    [FakeTensor("label", "INT64", (-1,), ("batch",)), FakeTensor("zip", "SEQUENCE", None, served=False)],
    {"batching": "up to 64 rows"})


def start(*models: FakeVersion) -> Start:
    steps = [Step("read", 1.2), Step("load", 30.0), Step("listen", 0.4)]
    return Start(models=models, executors=2, intra_op=1, grpc=["0.0.0.0:8001", "unix:/run/i.sock"],
                 http="0.0.0.0:8002", steps=steps)


def test_plain_table() -> None:
    lines = render(start(DIGITS, FakeVersion(b"other", "12"))).splitlines()
    assert lines[:4] == [
        "MODEL   VERSION  INPUTS                OUTPUTS                    BATCHING",
        "digits  1        image FP32 [batch,4]  label INT64 [batch]        up to 64 rows",
        "                                       zip SEQUENCE (not served)",
        "other   12       x FP32 [?,4]          y FP32 [?,2]",
    ]
    assert "executors  2 x 1 thread" in lines
    assert "gRPC       0.0.0.0:8001, unix:/run/i.sock" in lines
    assert "transport  native" in lines
    assert "HTTP       0.0.0.0:8002  /metrics  /v2/health/live  /v2/health/ready" in lines
    assert "ready in   32 ms: read 1 ms, load 30 ms, listen 0 ms" in lines


def test_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    print_start(start(DIGITS), stream)
    assert "image FP32 [batch,4]" in stream.getvalue()
    assert "infer call digits --address localhost:8001" in stream.getvalue()


def test_lines_for_tls() -> None:
    plain = render(start(DIGITS))
    for word in ("-plaintext", "--insecure"):
        assert word in plain
    assert "ca.pem" not in plain
    text = render(replace(start(DIGITS), security=TLS))
    assert "gRPC       0.0.0.0:8001 (TLS), unix:/run/i.sock" in text.splitlines()
    assert "infer call digits --address localhost:8001 --tls-ca ca.pem" in text
    assert 'InferenceServerClient("localhost:8001", ssl=True, root_certificates="ca.pem")' in text
    assert "grpcurl -cacert ca.pem -d" in text
    assert "ghz --cacert ca.pem --call" in text
    for word in ("-plaintext", "--insecure", "client-key.pem"):
        assert word not in text
    text = render(replace(start(DIGITS), security=MTLS))
    assert "--tls-ca ca.pem --tls-cert client.pem --tls-key client-key.pem" in text
    assert 'private_key="client-key.pem", certificate_chain="client.pem")' in text
    assert "-cert client.pem -key client-key.pem" in text
    assert "--cert client.pem --key client-key.pem" in text


def test_models_that_are_not_served_are_told() -> None:
    text = render(replace(start(DIGITS), failures={"bad": "model 'bad' version 1 is not served: it is cut short"}))
    assert "\nmodel 'bad' version 1 is not served: it is cut short\n" in text


def test_no_models() -> None:
    assert "ready in" in render(start())


def test_announce_logs_where_it_serves(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    with caplog.at_level(logging.INFO):
        announce(start(DIGITS), stream)
    assert stream.getvalue() == render(start(DIGITS))
    (record,) = caplog.records
    assert vars(record)["grpc"] == ["0.0.0.0:8001", "unix:/run/i.sock"]
    assert vars(record)["models"] == ["digits"]


@pytest.mark.parametrize(("bound", "address"), [
    ("0.0.0.0:1", "localhost:1"), ("[::]:1", "localhost:1"), ("127.0.0.1:1", "127.0.0.1:1"), ("unix:/s", "unix:/s")])
def test_client_address(bound: str, address: str) -> None:
    assert client_address(bound) == address


def test_address_text() -> None:
    assert (address_text("::1", 80), address_text("1.2.3.4", 80)) == ("[::1]:80", "1.2.3.4:80")


def lines_of(*inputs: FakeTensor) -> list[str]:
    return [line.strip() for line in paste_lines(FakeVersion(b"m", inputs=list(inputs)), "localhost:8001")]


def request_in(line: str) -> Any:
    """The request of a grpcurl or ghz line, as the protocol's own JSON parser reads it."""
    from google.protobuf import json_format

    words = shlex.split(line)
    return json_format.Parse(words[words.index("-d") + 1], message("inference.ModelInferRequest")())


@pytest.mark.parametrize("datatype", ["BOOL", "INT8", "INT64", "UINT16", "UINT64", "FP32", "FP64", "BYTES"])
def test_grpcurl_and_ghz_carry_a_valid_request(datatype: str) -> None:
    lines = lines_of(FakeTensor("x y", datatype, (-1, 3)))
    for tool in ("grpcurl", "ghz"):
        (line,) = (line for line in lines if line.startswith(tool + " -"))
        request = request_in(line)
        assert (request.model_name, request.inputs[0].name, list(request.inputs[0].shape)) == ("m", "x y", [1, 3])
        ((_, values),) = request.inputs[0].contents.ListFields()
        assert len(values) == 3
        assert shlex.split(line)[-2 if tool == "grpcurl" else -1] == "localhost:8001"


@pytest.mark.parametrize("inputs", [[FakeTensor("x", "FP32", (-1, 3, 224, 224))], [FakeTensor("x", "FP16", (2,))],
                                    [FakeTensor("it's", "FP32", (2,))]])
def test_requests_that_fit_no_command_line_come_from_a_file(inputs: list[FakeTensor]) -> None:
    lines = lines_of(*inputs)
    assert "infer call m --address localhost:8001 --print-request > request.json" in lines
    assert any(line.endswith("ModelInfer < request.json") for line in lines)
    assert any("-D request.json" in line for line in lines)


def test_ghz_counts_no_call_as_failed_that_it_cut_off() -> None:
    (line,) = (line for line in lines_of(FakeTensor("x")) if line.startswith("ghz "))
    assert "-z 10s --duration-stop wait" in line


def test_python_lines_compile_and_name_every_required_input() -> None:
    lines = lines_of(FakeTensor("2 in", "BF16", (-1, 2)), FakeTensor("text", "BYTES", (1,)), FakeTensor("in"),
                     FakeTensor("np"), FakeTensor("maybe", optional=True))
    python = [line for line in lines if re.match(r"(import|x_\w+|text|reply|print)\b", line)]
    compile("\n".join(python), "lines", "exec")
    filled = "np.zeros([1, 2], ml_dtypes.bfloat16)"
    assert "import ml_dtypes, numpy as np, tritonclient.grpc as triton" in python
    assert f'x_2_in = triton.InferInput("2 in", [1, 2], "BF16").set_data_from_numpy({filled})' in python
    assert 'reply = triton.InferenceServerClient("localhost:8001").infer("m", [x_2_in, text, x_in, x_np])' in python
    assert json.dumps("maybe") not in "\n".join(lines)
