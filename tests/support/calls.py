"""Requests and replies of the models that the integration tests serve."""

from __future__ import annotations

from collections.abc import Sequence

from infer.proto import message
from tests.support.requests import add_raw, infer_request, pack

SERVICE = "/inference.GRPCInferenceService/"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"


def identity_request(values: Sequence[float] = (1, 2, 3, 4), model: str = "identity") -> bytes:
    request = infer_request(model)
    add_raw(request, "x", "FP32", [len(values) // 4, 4], pack("FP32", values))
    content: bytes = request.SerializeToString()
    return content


def wide_request(raw: bytes) -> bytes:
    request = infer_request("wide")
    add_raw(request, "x", "FP32", [1, len(raw) // 4], raw)
    content: bytes = request.SerializeToString()
    return content


def slow_request(steps: int) -> bytes:
    """Holds an executor for 10 to 25 us per step."""
    request = infer_request("slow")
    add_raw(request, "x", "INT64", [1, 1], pack("INT64", [steps]))
    content: bytes = request.SerializeToString()
    return content


def raw_output(reply: bytes) -> bytes:
    """The only output of a ModelInferResponse."""
    response = message("inference.ModelInferResponse").FromString(reply)
    (content,) = response.raw_output_contents
    return bytes(content)
