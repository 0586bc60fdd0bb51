"""Health, metadata and configuration of the server and its models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infer import __version__
from infer.errors import InferError, InvalidArgument
from infer.proto import message
from infer.services.call import Handler, unary
from infer.services.control import EXPLICIT
from infer.services.model_config import PLATFORM, config_of, shape_of
from infer.services.server_view import ServerView
from infer.services.views import TensorView

SERVER_NAME = "infer"
# Triton's names of the extensions that are served in full: not parameters, which no model gets to see.
EXTENSIONS = ("model_configuration", "statistics", "logging")
# Where models can be loaded and unloaded.
CONTROL_EXTENSIONS = ("model_repository", "model_repository(unload_dependents)")


def metadata_rpcs(server: ServerView) -> Mapping[str, Handler]:
    """ServerLive, ServerReady, ModelReady, ServerMetadata, ModelMetadata, ModelConfig by method."""

    def server_live(_: Any) -> Any:
        return message("inference.ServerLiveResponse")(live=server.live)

    def server_ready(_: Any) -> Any:
        return message("inference.ServerReadyResponse")(ready=server.ready)

    def model_ready(request: Any) -> Any:
        try:
            ready = server.answers(request.name, request.version)
        except InferError as error:
            if error.code == InvalidArgument.code:
                raise
            # Clients poll this until it is true, so an unknown model is an answer and not an error.
            ready = False
        return message("inference.ModelReadyResponse")(ready=ready)

    def server_metadata(_: Any) -> Any:
        reply = message("inference.ServerMetadataResponse")
        more = CONTROL_EXTENSIONS if server.repository.control.mode == EXPLICIT else ()
        return reply(name=SERVER_NAME, version=__version__, extensions=(*EXTENSIONS, *more))

    def model_metadata(request: Any) -> Any:
        entry = server.routes.lookup(request.name, request.version)
        name = entry.name.decode()
        route = server.routes.route_of(name)
        versions = [entry.version]
        if not request.version and route is not None:
            versions = [other.version for other in route.versions]
        properties = dict(entry.properties)
        left_out = [tensor.name for tensor in entry.outputs if not tensor.served]
        if left_out:
            properties["outputs_not_served"] = ", ".join(left_out)
        labels = [label for label, other in route.labels.items() if other is entry] if route is not None else []
        if labels:
            properties["labels"] = ", ".join(sorted(labels))
        return message("inference.ModelMetadataResponse")(
            name=name,
            versions=sorted(versions, key=int),
            platform=PLATFORM,
            inputs=[_tensor(tensor) for tensor in entry.inputs],
            outputs=[_tensor(tensor) for tensor in entry.outputs if tensor.served],
            properties=properties,
        )

    def model_config(request: Any) -> Any:
        entry = server.routes.lookup(request.name, request.version)
        return message("inference.ModelConfigResponse")(config=config_of(entry))

    return {
        "ServerLive": unary("inference.ServerLiveRequest", server_live),
        "ServerReady": unary("inference.ServerReadyRequest", server_ready),
        "ModelReady": unary("inference.ModelReadyRequest", model_ready),
        "ServerMetadata": unary("inference.ServerMetadataRequest", server_metadata),
        "ModelMetadata": unary("inference.ModelMetadataRequest", model_metadata),
        "ModelConfig": unary("inference.ModelConfigRequest", model_config),
    }


def _tensor(tensor: TensorView) -> Any:
    kind = message("inference.ModelMetadataResponse.TensorMetadata")
    return kind(name=tensor.name, datatype=tensor.datatype, shape=shape_of(tensor))
