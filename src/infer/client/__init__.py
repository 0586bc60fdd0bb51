"""A client of the Open Inference Protocol with numpy arrays in and out: of this server, and of others that speak it.

    with InferClient("localhost:8001") as client:
        label = client.infer("digits", {"image": image})["label"]

Over TLS: `credentials=tls_credentials("ca.pem")`. `AsyncInferClient` is the same for asyncio. A call that fails raises
an InferError: its class says the gRPC status, and `code`, `status` and `message` the details.
"""

from infer.client.aio import AsyncInferClient
from infer.client.calls import Outcome, Recorded
from infer.client.messages import Result, Tensor
from infer.client.retry import RetryPolicy
from infer.client.sync import InferClient
from infer.client.tls import tls_credentials
from infer.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InferError,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

__all__ = [
    "AsyncInferClient",
    "Cancelled",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InferClient",
    "InferError",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "Outcome",
    "PermissionDenied",
    "Recorded",
    "ResourceExhausted",
    "Result",
    "RetryPolicy",
    "Tensor",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "tls_credentials",
]
