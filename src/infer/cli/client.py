"""A small client of the protocol on grpcio, for `infer call`, `demo` and `bench`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import grpc
import numpy as np

from infer.cli.samples import Sample, load_sample
from infer.cli.tensors import decode, encode, random_tensor
from infer.errors import InferError
from infer.proto import message

SERVICE = "/inference.GRPCInferenceService"
INFER_PATH = f"{SERVICE}/ModelInfer"
# No bound of our own: the server's is the one that counts. A proxy set for web traffic is not for this.
CHANNEL_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
                   ("grpc.enable_http_proxy", 0))
# grpcio's own words for a server that it cannot reach; whatever else is UNAVAILABLE comes from one.
_UNREACHED = re.compile("failed to connect|[Rr]esolv|name resolution|lookup")


class CallFailed(InferError):
    """The server, or the way to it, answered with a status other than OK."""

    def __init__(self, name: str, message: str, code: int) -> None:
        super().__init__(f"{name}: {message}", code)


class Tensor(NamedTuple):
    """An output."""

    name: str
    datatype: str
    values: Any


class Client:
    """One channel. Close it, or use it in a `with`."""

    def __init__(self, address: str, timeout: float) -> None:
        self._channel = grpc.insecure_channel(address, CHANNEL_OPTIONS)
        self._address, self._timeout = address, timeout

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(self, method: str, request: Any, reply: str) -> Any:
        """One unary call of the inference service; `reply` is the message's name in its package."""
        stub = self._channel.unary_unary(
            f"{SERVICE}/{method}", request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message(f"inference.{reply}").FromString)
        try:
            return stub(request, timeout=self._timeout)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            if code is grpc.StatusCode.UNAVAILABLE and _UNREACHED.search(details):
                details = (f"no server answers at {self._address}; start one with infer serve, or say where it is with "
                           f"--address: {details}")
            elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
                details = f"no answer from {self._address} within {self._timeout:g} s: {details}"
            raise CallFailed(code.name, details, code.value[0]) from None

    def metadata(self, model: str, version: str = "") -> Any:
        request = message("inference.ModelMetadataRequest")(name=model, version=version)
        return self.call("ModelMetadata", request, "ModelMetadataResponse")

    def infer(self, request: Any) -> Any:
        return self.call("ModelInfer", request, "ModelInferResponse")


def infer_request(metadata: Any, version: str, inputs: Mapping[str, Any]) -> Any:
    """ModelInferRequest of `inputs`, arrays by name, with raw contents, in the order of the model."""
    request = message("inference.ModelInferRequest")(model_name=metadata.name, model_version=version)
    for declared in metadata.inputs:
        if declared.name in inputs:
            array = inputs[declared.name]
            request.inputs.add(name=declared.name, datatype=declared.datatype, shape=array.shape)
            request.raw_input_contents.append(encode(array, declared.datatype))
    return request


def outputs_of(reply: Any) -> list[Tensor]:
    """The outputs of a ModelInferResponse with raw contents."""
    return [Tensor(output.name, output.datatype, decode(content, output.datatype, tuple(output.shape)))
            for output, content in zip(reply.outputs, reply.raw_output_contents, strict=True)]


def sample_of(metadata: Any) -> Sample | None:
    """The bundled sample of a model that is one of the examples by its name and inputs."""
    sample = load_sample(metadata.name)
    return sample if sample and set(sample.inputs) == {declared.name for declared in metadata.inputs} else None


def first_rows(sample: Sample, rows: int) -> dict[str, Any]:
    return {name: array[:rows] for name, array in sample.inputs.items()}


def random_inputs(metadata: Any, seed: int = 0) -> dict[str, Any]:
    """One row of every input."""
    generator = np.random.default_rng(seed)
    return {declared.name: random_tensor(declared.datatype, tuple(declared.shape), generator)
            for declared in metadata.inputs}
