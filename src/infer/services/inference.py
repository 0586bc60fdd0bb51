"""Health and metadata of inference.GRPCInferenceService; ModelInfer is the pipeline's."""

from __future__ import annotations

from typing import Any

from infer import __version__
from infer.errors import InferError, InvalidArgument
from infer.proto import message
from infer.services.call import Call, ServerView, Service, TensorView, decoded

SERVICE = "inference.GRPCInferenceService"
SERVER_NAME = "infer"
PLATFORM = "onnxruntime_onnx"
# Triton's names of the extensions whose RPCs are served here.
EXTENSIONS: tuple[str, ...] = ()


def inference_service(server: ServerView) -> Service:
    """The table of the service's cold RPCs."""

    async def server_live(call: Call) -> bytes:
        decoded(call, message("inference.ServerLiveRequest"))
        return _encoded(message("inference.ServerLiveResponse")(live=server.live))

    async def server_ready(call: Call) -> bytes:
        decoded(call, message("inference.ServerReadyRequest"))
        return _encoded(message("inference.ServerReadyResponse")(ready=server.ready))

    async def model_ready(call: Call) -> bytes:
        request = decoded(call, message("inference.ModelReadyRequest"))
        try:
            server.routes.lookup(request.name, request.version)
            ready = True
        except InvalidArgument:
            raise
        except InferError:
            # Clients poll this until it is true, so an unknown model is an answer and not an error.
            ready = False
        return _encoded(message("inference.ModelReadyResponse")(ready=ready))

    async def server_metadata(call: Call) -> bytes:
        decoded(call, message("inference.ServerMetadataRequest"))
        reply = message("inference.ServerMetadataResponse")
        return _encoded(reply(name=SERVER_NAME, version=__version__, extensions=EXTENSIONS))

    async def model_metadata(call: Call) -> bytes:
        request = decoded(call, message("inference.ModelMetadataRequest"))
        entry = server.routes.lookup(request.name, request.version)
        name = entry.name.decode()
        versions = [entry.version]
        if not request.version:
            versions = [other.version for other in dict(server.routes.models()).get(name, [entry])]
        properties = dict(entry.properties)
        left_out = [tensor.name for tensor in entry.outputs if not tensor.served]
        if left_out:
            properties["outputs_not_served"] = ", ".join(left_out)
        reply = message("inference.ModelMetadataResponse")(
            name=name,
            versions=sorted(versions, key=int),
            platform=PLATFORM,
            inputs=[_tensor(tensor) for tensor in entry.inputs],
            outputs=[_tensor(tensor) for tensor in entry.outputs if tensor.served],
            properties=properties,
        )
        return _encoded(reply)

    return {
        f"/{SERVICE}/ServerLive": server_live,
        f"/{SERVICE}/ServerReady": server_ready,
        f"/{SERVICE}/ModelReady": model_ready,
        f"/{SERVICE}/ServerMetadata": server_metadata,
        f"/{SERVICE}/ModelMetadata": model_metadata,
    }


def _tensor(tensor: TensorView) -> Any:
    # A shape of unknown rank has no way to be written: an empty list would say 0-d, so one -1 stands for it.
    shape = (-1,) if tensor.shape is None else tensor.shape
    kind = message("inference.ModelMetadataResponse.TensorMetadata")
    return kind(name=tensor.name, datatype=tensor.datatype, shape=shape)


def _encoded(reply: Any) -> bytes:
    content: bytes = reply.SerializeToString()
    return content
