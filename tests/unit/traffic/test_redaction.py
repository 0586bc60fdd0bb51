"""What of a call is left out: the contents that were named, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from infer.capture_file import CapturedCall
from infer.traffic.redaction import redacted
from tests.support.protos import message_class
from tests.support.requests import CONTENTS, add_raw, add_typed, infer_request, pack


def call_of(request: Any) -> CapturedCall:
    reply = message_class("ModelInferResponse")(model_name="m", id="who")
    for name in ("y", "x"):
        reply.outputs.add(name=name, datatype="FP32", shape=[1, 1])
        reply.raw_output_contents.append(pack("FP32", [5.0]))
    return CapturedCall(1, "m", "1", request.SerializeToString(), reply.SerializeToString())


def parsed(call: CapturedCall) -> tuple[Any, Any]:
    return (message_class("ModelInferRequest").FromString(call.request),
            message_class("ModelInferResponse").FromString(call.reply))


def test_raw_contents_are_zeros_and_empty_texts() -> None:
    request = infer_request(id="who")
    add_raw(request, "x", "FP32", [1, 2], pack("FP32", [1.0, 2.0]))
    add_raw(request, "s", "BYTES", [1, 3], pack("BYTES", [b"secret", b"", b"too"]))
    add_raw(request, "z", "FP32", [1, 1], pack("FP32", [3.0]))
    call = call_of(request)
    assert redacted(call, ()) is call
    message, reply = parsed(redacted(call, ("x", "s")))
    assert list(message.raw_input_contents) == [bytes(8), pack("BYTES", [b"", b"", b""]), pack("FP32", [3.0])]
    assert [(each.name, each.datatype, list(each.shape)) for each in message.inputs] == [
        ("x", "FP32", [1, 2]), ("s", "BYTES", [1, 3]), ("z", "FP32", [1, 1])]
    assert list(reply.raw_output_contents) == [pack("FP32", [5.0]), bytes(4)]
    assert (message.id, reply.id) == ("who", "who")
    message, reply = parsed(redacted(call, ("id",)))
    assert (message.id, reply.id) == ("", "")
    assert message.raw_input_contents[0] == pack("FP32", [1.0, 2.0])


@pytest.mark.parametrize("datatype", sorted(CONTENTS))
def test_typed_contents_are_as_many_and_say_nothing(datatype: str) -> None:
    values: list[Any] = [b"secret", b"b"] if datatype == "BYTES" else [1, 1]
    request = infer_request()
    add_typed(request, "x", datatype, [1, 2], values)
    message, _ = parsed(redacted(call_of(request), ("x",)))
    found = list(getattr(message.inputs[0].contents, CONTENTS[datatype]))
    assert found == ([b"", b""] if datatype == "BYTES" else [0, 0])
