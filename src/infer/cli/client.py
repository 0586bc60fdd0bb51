"""The client of `infer call`, `demo` and `bench`: infer.client, whose errors say on a command line what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import grpc

from infer.cli.samples import Sample, load_sample
from infer.cli.tensors import random_tensor
from infer.client import DeadlineExceeded, InferClient, InferError, RetryPolicy, Tensor, Unavailable
from infer.client.calls import Metadata, failure

# grpcio's own words for a server that it cannot reach; whatever else is UNAVAILABLE comes from one.
_UNREACHED = re.compile("failed to connect|[Rr]esolv|name resolution|lookup")


class CallFailed(InferError):
    """The server, or the way to it, answered with a status other than OK."""


class Client(InferClient):
    """One attempt a call; raises CallFailed."""

    def __init__(self, address: str, timeout: float, credentials: grpc.ChannelCredentials | None = None) -> None:
        super().__init__(address, timeout=timeout, credentials=credentials, retry=RetryPolicy(attempts=1))
        self._address, self._seconds = address, timeout

    def call(self, path: str, request: bytes, *, timeout: float | None = None,
             metadata: Metadata | None = None) -> bytes:
        try:
            return super().call(path, request, timeout=timeout, metadata=metadata)
        except InferError as error:
            raise self._failed(error) from None

    def stream(self, path: str, request: bytes) -> Iterator[bytes]:
        """The replies of a call whose client sends one message, as they come, without a deadline."""
        try:
            yield from self._channel.unary_stream(path)(request)
        except grpc.RpcError as error:
            raise self._failed(failure(error)[0]) from None

    def _failed(self, error: InferError) -> CallFailed:
        details = error.message
        if isinstance(error, Unavailable) and _UNREACHED.search(details):
            details = (f"no server answers at {self._address}; start one with infer serve, or say where it is with "
                       f"--address: {details}")
        elif isinstance(error, DeadlineExceeded):
            details = f"no answer from {self._address} within {self._seconds:g} s: {details}"
        return CallFailed(f"{error.status}: {details}", error.code)


def typed_inputs(metadata: Any, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """The arrays with the types that the model declares, in its order."""
    return {declared.name: Tensor(arrays[declared.name], declared.datatype)
            for declared in metadata.inputs if declared.name in arrays}


def sample_of(metadata: Any) -> Sample | None:
    """The bundled sample of a model that is one of the examples by its name and inputs."""
    sample = load_sample(metadata.name)
    return sample if sample and set(sample.inputs) == {declared.name for declared in metadata.inputs} else None


def first_rows(sample: Sample, rows: int) -> dict[str, Any]:
    return {name: array[:rows] for name, array in sample.inputs.items()}


def random_inputs(metadata: Any, seed: int = 0) -> dict[str, Any]:
    """One row of every input."""
    import numpy as np

    generator = np.random.default_rng(seed)
    return {declared.name: random_tensor(declared.datatype, tuple(declared.shape), generator)
            for declared in metadata.inputs}
