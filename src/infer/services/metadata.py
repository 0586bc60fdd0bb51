"""Health, metadata and configuration of the server and its models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infer import __version__
from infer.errors import InferError, InvalidArgument
from infer.proto import message
from infer.services.call import Handler, ServerView, TensorView, VersionView, unary
from infer.services.control import EXPLICIT

SERVER_NAME = "infer"
PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
# Triton's names of the extensions that are served in full: not parameters, which no model gets to see.
EXTENSIONS = ("model_configuration", "statistics", "logging")
# Where models can be loaded and unloaded.
CONTROL_EXTENSIONS = ("model_repository", "model_repository(unload_dependents)")
# Execution providers of one device each, which their option names.
_GPU_PROVIDERS = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})


def metadata_rpcs(server: ServerView) -> Mapping[str, Handler]:
    """ServerLive, ServerReady, ModelReady, ServerMetadata, ModelMetadata, ModelConfig by method."""

    def server_live(_: Any) -> Any:
        return message("inference.ServerLiveResponse")(live=server.live)

    def server_ready(_: Any) -> Any:
        return message("inference.ServerReadyResponse")(ready=server.ready)

    def model_ready(request: Any) -> Any:
        try:
            server.routes.lookup(request.name, request.version)
            ready = True
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
        versions = [entry.version]
        if not request.version:
            versions = [other.version for other in dict(server.routes.models()).get(name, [entry])]
        properties = dict(entry.properties)
        left_out = [tensor.name for tensor in entry.outputs if not tensor.served]
        if left_out:
            properties["outputs_not_served"] = ", ".join(left_out)
        labels = [label for row in server.repository.control.index()
                  if (row.model, row.version) == (name, entry.version) for label in row.labels]
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


def config_of(entry: VersionView) -> Any:
    """A version's ModelConfig: what Triton would have completed for a model that is served as this one is."""
    config = message("inference.ModelConfig")(
        name=entry.name.decode(),
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=entry.max_rows if entry.batched else 0,
        default_model_filename=entry.properties.get("file", ""),
    )
    config.version_policy.latest.num_versions = 1
    for tensor in entry.inputs:
        config.input.add(name=tensor.name, data_type=_data_type(tensor), dims=_dims(tensor, entry.batched),
                         optional=tensor.optional)
    for tensor in entry.outputs:
        if tensor.served:
            config.output.add(name=tensor.name, data_type=_data_type(tensor), dims=_dims(tensor, entry.batched))
    instances = config.instance_group.add(name=config.name, count=entry.max_running)
    provider, options = entry.session.providers[0]
    if provider in _GPU_PROVIDERS:
        instances.kind = instances.KIND_GPU
        instances.gpus.append(int(options.get("device_id", 0)))
    else:
        instances.kind = instances.KIND_CPU
    if entry.batched:
        # A batch gathers this much; only a single request may make a larger one.
        config.dynamic_batching.preferred_batch_size.append(min(entry.gather_rows, entry.max_rows))
        config.dynamic_batching.max_queue_delay_microseconds = entry.delay_ns // 1000
    return config


def _data_type(tensor: TensorView) -> int:
    names = message("inference.ModelConfig").DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_name
    number: int = names["TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"].number
    return number


def _dims(tensor: TensorView, batched: bool) -> tuple[int, ...]:
    # Empty for one value a row: Triton writes [1] with a reshape there, because its requests carry that dimension.
    return _shape(tensor)[1:] if batched else _shape(tensor)


def _tensor(tensor: TensorView) -> Any:
    kind = message("inference.ModelMetadataResponse.TensorMetadata")
    return kind(name=tensor.name, datatype=tensor.datatype, shape=_shape(tensor))


def _shape(tensor: TensorView) -> tuple[int, ...]:
    # A shape of unknown rank has no way to be written: an empty list would say 0-d, so one -1 stands for it.
    return (-1,) if tensor.shape is None else tensor.shape
