"""What a replay sends, and calls and answers that it cannot read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from infer.capture_file import CapturedCall
from infer.cli.replay import answers, replayed
from infer.reply_comparison import ReplyComparison
from tests.support.protos import message_class
from tests.support.requests import add_raw, infer_request, pack


def reply(raw: bool = True) -> bytes:
    made = message_class("ModelInferResponse")(model_name="m")
    made.outputs.add(name="y", datatype="FP32", shape=[1, 1])
    if raw:
        made.raw_output_contents.append(pack("FP32", [5.0]))
    else:
        made.outputs[0].contents.fp32_contents.append(5.0)
    return bytes(made.SerializeToString())


class Server:
    """Answers with what it has, in turn."""

    def __init__(self, *replies: bytes) -> None:
        self.replies = list(replies)
        self.sent: list[Any] = []

    def call(self, path: str, request: bytes) -> bytes:
        self.sent.append(message_class("ModelInferRequest").FromString(request))
        return self.replies.pop(0)


def captured(**parameters: str) -> CapturedCall:
    request = infer_request(model_version="2")
    add_raw(request, "x", "FP32", [1, 1], pack("FP32", [1.0]))
    for name, value in parameters.items():
        request.parameters[name].string_param = value
    return CapturedCall(1, "m", "2", request.SerializeToString(), reply())


def test_a_call_that_was_forwarded_is_not_when_it_is_sent_again() -> None:
    server: Any = Server(reply())
    found = replayed(answers(server, [captured(infer_forwarded="0" * 64, note="n")], "other:3", 1),
                     ReplyComparison(0, 0))
    assert (found["agreed"], found["failed"]) == (1, 0)
    [sent] = server.sent
    assert (sent.model_name, sent.model_version) == ("other", "3")
    # The version is to run it, not to say what it has answered before.
    assert {name: value.string_param for name, value in sent.parameters.items()} == {
        "note": "n", "infer_cache": "no-store"}


def test_what_a_split_gave_to_another_model_is_that_ones() -> None:
    server: Any = Server(reply())
    replayed(answers(server, [replace(captured(), model="other")], "", 1), ReplyComparison(0, 0))
    assert (server.sent[0].model_name, server.sent[0].model_version) == ("other", "")


def test_what_cannot_be_read_fails_alone() -> None:
    broken = CapturedCall(1, "m", "2", b"\xff", reply())
    server: Any = Server(reply(), b"\xff", reply(raw=False))
    found = replayed(answers(server, [captured(), broken, captured(), captured()], "", 1), ReplyComparison(0, 0))
    assert (found["sent"], found["agreed"], found["statuses"]) == (4, 1, {"UNREADABLE": 3})
    assert found["failure"].startswith("request 2 cannot be read: ")
