"""What every independent client is made to do, and what has to come of it.

A client is a program that knows nothing of ours: CLIENT ADDRESS DESCRIPTORS STEPS RESULTS [CA [CERTIFICATE KEY]]. It
makes the calls of STEPS one after the other and writes what came of each: {"replies": [message...], "code": number,
"message": text, "initial": [[key, value]...], "trailing": [[key, value]...]}. Messages are in protobuf's JSON form, and
metadata values of -bin keys base64.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, json_format

from infer import __version__
from infer.client.messages import encode_request
from infer.client.tensors import decode
from infer.proto import files
from infer.proto import message as our_message
from tests.conformance.services import messages
from tests.support import models

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 2, 3, 4, 5
RESOURCE_EXHAUSTED, UNIMPLEMENTED = 8, 12

INFERENCE = "/inference.GRPCInferenceService/"
HEALTH = "/grpc.health.v1.Health/"
TESTING = "/grpc.testing.TestService/"
MODELS = {"simple": models.add_sub_int32(), "slow": models.slow(), "wide": models.identity(dims=("batch", "length"))}
MAX_MESSAGE_BYTES = 4 << 20
WIDE = 200_000
SECONDS = 30.0

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One call. `kind` is unary, server, client or bidi; `requests` are messages of the class `request`."""

    name: str
    path: str
    request: str
    reply: str
    requests: Sequence[Any] = ()
    kind: str = "unary"
    code: int = OK
    message: str = ""                                       # a pattern
    check: Callable[[list[Any]], None] | None = None        # of the replies
    metadata: Sequence[tuple[str, str | bytes]] = ()
    timeout: float = SECONDS
    lockstep: bool = False                                  # one reply is read after each request
    cancel_after: int | None = None                         # replies
    initial: Mapping[str, str] = field(default_factory=dict)
    trailing: Mapping[str, str] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """As a client reads it."""
        return {
            "name": self.name, "path": self.path, "request": self.request, "reply": self.reply, "kind": self.kind,
            "requests": [json_format.MessageToDict(each, preserving_proto_field_name=True) for each in self.requests],
            "metadata": [[key, text(value)] for key, value in self.metadata], "timeout": self.timeout,
            "lockstep": self.lockstep, "cancel_after": self.cancel_after}

    def judge(self, result: Result) -> None:
        """Asserts that a client's result is what is due."""
        assert result["code"] == self.code, result
        assert re.search(self.message, result["message"], re.S), result["message"]
        kind = message(self.reply)
        replies = [json_format.ParseDict(each, kind()) for each in result["replies"]]
        if self.check is not None:
            self.check(replies)
        for came, due in ((result["initial"], self.initial), (result["trailing"], self.trailing)):
            assert due.items() <= dict(came).items(), came


def text(value: str | bytes) -> str:
    return value if isinstance(value, str) else base64.b64encode(value).decode()


def message(full_name: str) -> Any:
    ours = full_name.startswith(("inference.", "grpc.health."))
    return (our_message if ours else messages.message)(full_name)


def write_descriptors(path: Path) -> Path:
    """Both servers' files in one set."""
    described = {**{file.name: file for file in messages.descriptors().file}, **files()}
    path.write_bytes(descriptor_pb2.FileDescriptorSet(file=described.values()).SerializeToString())
    return path


def write_steps(path: Path, steps: Sequence[Step]) -> Path:
    path.write_text(json.dumps([step.described() for step in steps]))
    return path


# Calls of the server of models.

def ask(rpc: str, **fields: Any) -> dict[str, Any]:
    request = f"inference.{rpc}Request"
    return {"path": INFERENCE + rpc, "request": request, "reply": f"inference.{rpc}Response",
            "requests": [message(request)(**fields)]}


def infer(model: str, inputs: Mapping[str, Any], request_id: str = "", version: str = "") -> Any:
    content = bytes(encode_request(model, inputs, version=version, request_id=request_id))
    return message("inference.ModelInferRequest").FromString(content)


def outputs_of(reply: Any) -> dict[str, Any]:
    return {tensor.name: decode(content, tensor.datatype, tuple(tensor.shape))
            for tensor, content in zip(reply.outputs, reply.raw_output_contents, strict=True)}


ROW = np.arange(16, dtype=np.int32).reshape(1, 16)


def simple(request_id: str, first: int = 0, model: str = "simple") -> Any:
    return infer(model, {"INPUT0": ROW + first, "INPUT1": ROW}, request_id)


def assert_simple(reply: Any, request_id: str, first: int = 0) -> None:
    assert (reply.model_name, reply.model_version, reply.id) == ("simple", "1", request_id)
    outputs = outputs_of(reply)
    np.testing.assert_array_equal(outputs["OUTPUT0"], ROW + ROW + first)
    np.testing.assert_array_equal(outputs["OUTPUT1"], np.full_like(ROW, first))


def assert_metadata(replies: list[Any]) -> None:
    (reply,) = replies
    assert (reply.name, list(reply.versions), reply.platform) == ("simple", ["1"], "onnxruntime_onnx")
    assert [(each.name, each.datatype, list(each.shape)) for each in reply.inputs] == [
        ("INPUT0", "INT32", [-1, 16]), ("INPUT1", "INT32", [-1, 16])]
    assert [each.name for each in reply.outputs] == ["OUTPUT0", "OUTPUT1"]


def assert_wide(replies: list[Any]) -> None:
    (reply,) = replies
    np.testing.assert_array_equal(outputs_of(reply)["y"], np.arange(WIDE, dtype=np.float32)[None])


def assert_stream(replies: list[Any]) -> None:
    assert len(replies) == STREAMED
    for number, reply in enumerate(replies):
        if number == BAD:
            assert "nobody" in reply.error_message
            assert reply.infer_response.id == str(number)
        else:
            assert reply.error_message == ""
            assert_simple(reply.infer_response, str(number), number)


def field_is(name: str, value: Any) -> Callable[[list[Any]], None]:
    def check(replies: list[Any]) -> None:
        assert [getattr(reply, name) for reply in replies] == [value]
    return check


STREAMED, BAD = 20, 7
STREAM = {"path": INFERENCE + "ModelStreamInfer", "kind": "bidi", "request": "inference.ModelInferRequest",
          "reply": "inference.ModelStreamInferResponse",
          "requests": [simple(str(number), number, "nobody" if number == BAD else "simple")
                       for number in range(STREAMED)]}
HEALTHY = {"request": "grpc.health.v1.HealthCheckRequest", "reply": "grpc.health.v1.HealthCheckResponse"}
CALL = {"path": INFERENCE + "ModelInfer", "request": "inference.ModelInferRequest",
        "reply": "inference.ModelInferResponse"}

UNARY_STEPS = [
    Step("live", **ask("ServerLive"), check=field_is("live", True)),
    Step("ready", **ask("ServerReady"), check=field_is("ready", True)),
    Step("model ready", **ask("ModelReady", name="simple"), check=field_is("ready", True)),
    Step("unknown model ready", **ask("ModelReady", name="nobody"), check=field_is("ready", False)),
    Step("server metadata", **ask("ServerMetadata"), check=field_is("version", __version__)),
    Step("model metadata", **ask("ModelMetadata", name="simple"), check=assert_metadata),
    Step("health", HEALTH + "Check", **HEALTHY, requests=[message(HEALTHY["request"])()], check=field_is("status", 1)),
    Step("infer", **CALL, requests=[simple("one", 5)], check=lambda replies: assert_simple(replies[0], "one", 5)),
    Step("infer with metadata", **CALL, requests=[simple("two")],
         metadata=[("x-trace", "a b"), ("x-trace", "c"), ("x-trace-bin", bytes(range(256)))],
         check=lambda replies: assert_simple(replies[0], "two")),
    Step("large", **CALL, requests=[infer("wide", {"x": np.arange(WIDE, dtype=np.float32)[None]})], check=assert_wide),
    Step("too large", **CALL, requests=[infer("wide", {"x": np.zeros((1, MAX_MESSAGE_BYTES // 4), np.float32)})],
         code=RESOURCE_EXHAUSTED, message="--max-message-bytes"),
    Step("unknown model", **CALL, requests=[simple("", model="nobody")], code=NOT_FOUND, message="nobody"),
    Step("wrong shape", **CALL, requests=[infer("simple", {"INPUT0": ROW[:, :3], "INPUT1": ROW[:, :3]})],
         code=INVALID_ARGUMENT, message="INPUT0"),
    Step("deadline", **CALL, requests=[infer("slow", {"x": np.array([[20_000]])})], timeout=0.05,
         code=DEADLINE_EXCEEDED),
    Step("after the deadline", **CALL, requests=[simple("three")],
         check=lambda replies: assert_simple(replies[0], "three")),
]

STREAM_STEPS = [
    Step("stream", **STREAM, check=assert_stream),
    Step("stream in lockstep", **STREAM, lockstep=True, check=assert_stream),
    Step("stream that fails", **STREAM, lockstep=True, metadata=[("triton_grpc_error", "true")], code=NOT_FOUND,
         message="nobody"),
    Step("watch", HEALTH + "Watch", **HEALTHY, requests=[message(HEALTHY["request"])()], kind="server",
         cancel_after=1, code=CANCELLED, check=field_is("status", 1)),
]

# Calls of the test service.

WHITESPACE = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
SIZES = (31415, 9, 2653, 58979)
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
ECHOED = {"metadata": [(INITIAL, "test_initial_metadata_value"), (TRAILING, b"\xab\xab\xab\x00")],
          "initial": {INITIAL: "test_initial_metadata_value"}, "trailing": {TRAILING: text(b"\xab\xab\xab\x00")}}


def body_sizes(*due: int) -> Callable[[list[Any]], None]:
    def check(replies: list[Any]) -> None:
        assert [len(reply.payload.body) for reply in replies] == list(due)
    return check


def testing(rpc: str, request: str, reply: str, *fields: Mapping[str, Any]) -> dict[str, Any]:
    kind = message("grpc.testing." + request)
    return {"path": TESTING + rpc, "request": "grpc.testing." + request, "reply": "grpc.testing." + reply,
            "requests": [kind(**each) for each in fields]}


def simple_call(**fields: Any) -> dict[str, Any]:
    return testing("UnaryCall", "SimpleRequest", "SimpleResponse", fields)


def output_call(rpc: str, *fields: Mapping[str, Any]) -> dict[str, Any]:
    return testing(rpc, "StreamingOutputCallRequest", "StreamingOutputCallResponse", *fields)


ONE_EACH = [{"response_parameters": [{"size": size}], "payload": {"body": bytes(size // 2)}} for size in SIZES]

TESTING_STEPS = [
    Step("empty", **testing("EmptyCall", "Empty", "Empty", {})),
    Step("large", **simple_call(response_size=314159, payload={"body": bytes(271828)}), check=body_sizes(314159)),
    Step("metadata", **simple_call(response_size=1), **ECHOED, check=body_sizes(1)),
    Step("metadata with a status", **simple_call(response_status={"code": 9, "message": "so"}), **ECHOED, code=9,
         message="^so$"),
    Step("status", **simple_call(response_status={"code": 2, "message": "test status message"}), code=UNKNOWN,
         message="^test status message$"),
    Step("whitespace in a status", **simple_call(response_status={"code": 2, "message": WHITESPACE}), code=UNKNOWN,
         message=f"^{re.escape(WHITESPACE)}$"),
    Step("unknown method", TESTING + "UnimplementedCall", "grpc.testing.Empty", "grpc.testing.Empty",
         [message("grpc.testing.Empty")()], code=UNIMPLEMENTED, message="UnimplementedCall"),
    Step("replies", **output_call("StreamingOutputCall", {"response_parameters": [{"size": size} for size in SIZES]}),
         kind="server", check=body_sizes(*SIZES)),
    Step("requests", **testing("StreamingInputCall", "StreamingInputCallRequest", "StreamingInputCallResponse",
                               *({"payload": {"body": bytes(size)}} for size in (27182, 8, 1828, 45904))),
         kind="client", check=field_is("aggregated_payload_size", 74922)),
    Step("no request", **testing("StreamingInputCall", "StreamingInputCallRequest", "StreamingInputCallResponse"),
         kind="client", check=field_is("aggregated_payload_size", 0)),
    Step("ping pong", **output_call("FullDuplexCall", *ONE_EACH), kind="bidi", lockstep=True, **ECHOED,
         check=body_sizes(*SIZES)),
    Step("half duplex", **output_call("HalfDuplexCall", *ONE_EACH), kind="bidi", check=body_sizes(*SIZES)),
    Step("empty stream", **output_call("FullDuplexCall"), kind="bidi", check=body_sizes()),
    Step("status of a stream", **output_call("FullDuplexCall", ONE_EACH[1], {"response_status": {
        "code": 2, "message": WHITESPACE}}), kind="bidi", code=UNKNOWN, message=f"^{re.escape(WHITESPACE)}$",
        check=body_sizes(9)),
    Step("deadline of a stream", **output_call("FullDuplexCall", {"response_parameters": [{
        "size": 1, "interval_us": 20_000_000}]}), kind="bidi", timeout=0.05, code=DEADLINE_EXCEEDED,
        check=body_sizes()),
    Step("cancelled", **output_call("FullDuplexCall", ONE_EACH[0], {"response_parameters": [{
        "size": 1, "interval_us": 20_000_000}]}), kind="bidi", cancel_after=1, code=CANCELLED,
        check=body_sizes(SIZES[0])),
    Step("after it", **simple_call(response_size=7), check=body_sizes(7)),
]
