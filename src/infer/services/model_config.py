"""A served version's ModelConfig: what its operator wrote, completed as Triton would complete it.

What runs is told as it runs: rows, instances and devices are the version's own. Loop thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infer.proto import message
from infer.services.views import TensorView, VersionView

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
# Execution providers of one device each, which their option names.
_GPU_PROVIDERS = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})
_GRAPH_LEVELS = {"basic": -1, "all": 0, "extended": 1, "off": 2}
_CPU_ACCELERATORS = frozenset({"openvino"})


def config_of(entry: VersionView) -> Any:
    """The ModelConfig of a version."""
    config = message("inference.ModelConfig")(name=entry.name.decode(), platform=PLATFORM, backend=BACKEND)
    settings = entry.settings
    _put_instances(config, entry, settings)
    if settings is None:
        _put_served(config, entry)
    else:
        config.default_model_filename = settings.filename or entry.properties.get("file", "")
        config.max_batch_size = settings.max_batch_size or 0
        _put_policy(config.version_policy, settings.policy)
        _put_tensors(config.input, settings.inputs)
        _put_tensors(config.output, settings.outputs)
        if settings.dynamic_batching or settings.queue is not None or settings.priority_levels:
            _put_batching(config.dynamic_batching, entry, settings)
        _put_warmups(config, settings)
        _put_rest(config, settings)
    return config


def _put_served(config: Any, entry: VersionView) -> None:
    """Of a version that nothing was written for: what it does."""
    config.max_batch_size = entry.max_rows if entry.batched else 0
    config.default_model_filename = entry.properties.get("file", "")
    config.version_policy.latest.num_versions = 1
    for tensor in entry.inputs:
        config.input.add(name=tensor.name, data_type=_data_type(tensor.datatype), dims=_dims(tensor, entry.batched),
                         optional=tensor.optional)
    for tensor in entry.outputs:
        if tensor.served:
            config.output.add(name=tensor.name, data_type=_data_type(tensor.datatype),
                              dims=_dims(tensor, entry.batched))
    if entry.batched:
        # A batch gathers this much; only a single request may make a larger one.
        config.dynamic_batching.preferred_batch_size.append(min(entry.gather_rows, entry.max_rows))
        config.dynamic_batching.max_queue_delay_microseconds = entry.delay_ns // 1000


def _put_instances(config: Any, entry: VersionView, settings: Any) -> None:
    provider, options = entry.session.providers[0]
    # Triton numbers the groups that are written, and gives one that it makes the model's name.
    written = settings is not None and settings.instances is not None
    group = config.instance_group.add(name=f"{config.name}_0" if written else config.name, count=entry.max_running)
    if provider in _GPU_PROVIDERS:
        group.kind = group.KIND_GPU
        group.gpus.extend(settings.gpus if settings and settings.gpus else [int(options.get("device_id", 0))])
    else:
        group.kind = group.KIND_CPU


def _put_policy(content: Any, policy: Any) -> None:
    if policy.kind == "all":
        content.all.SetInParent()
    elif policy.kind == "specific":
        content.specific.versions.extend(policy.versions)
    else:
        content.latest.num_versions = policy.count


def _put_tensors(contents: Any, tensors: Sequence[Any]) -> None:
    for tensor in tensors:
        content = contents.add(name=tensor.name, data_type=_data_type(tensor.datatype), dims=tensor.dims)
        if tensor.reshape is not None:
            content.reshape.shape.extend(tensor.reshape)
            content.reshape.SetInParent()
        if tensor.optional:
            content.optional = True


def _put_batching(content: Any, entry: VersionView, settings: Any) -> None:
    content.SetInParent()
    content.preferred_batch_size.extend(settings.preferred_batch_sizes)
    delay_us = settings.max_queue_delay_us
    content.max_queue_delay_microseconds = entry.delay_ns // 1000 if delay_us is None else delay_us
    if settings.queue is not None:
        _put_queue_policy(content.default_queue_policy, settings.queue)
    content.priority_levels = settings.priority_levels
    content.default_priority_level = settings.default_priority
    for level, policy in settings.priority_queues.items():
        _put_queue_policy(content.priority_queue_policy[level], policy)


def _put_queue_policy(content: Any, policy: Any) -> None:
    content.SetInParent()
    content.timeout_action = content.DELAY if policy.timeout_action == "delay" else content.REJECT
    content.default_timeout_microseconds = policy.default_timeout_us
    content.allow_timeout_override = policy.allow_timeout_override
    content.max_queue_size = policy.max_size


def _put_warmups(config: Any, settings: Any) -> None:
    for warmup in settings.warmups:
        content = config.model_warmup.add(name=warmup.name, batch_size=warmup.batch_size)
        if warmup.count != 1:
            content.count = warmup.count
        for each in warmup.inputs:
            made = content.inputs[each.name]
            made.data_type = _data_type(each.datatype)
            made.dims.extend(each.dims)
            if each.kind == "file":
                made.input_data_file = each.path
            else:
                setattr(made, f"{each.kind}_data", True)


def _put_rest(config: Any, settings: Any) -> None:
    if settings.response_cache is not None:
        config.response_cache.enable = settings.response_cache
    if settings.graph_optimization is not None:
        config.optimization.graph.level = _GRAPH_LEVELS[settings.graph_optimization]
    for name, options in settings.providers:
        accelerators = config.optimization.execution_accelerators
        kind = accelerators.cpu_execution_accelerator if name in _CPU_ACCELERATORS else (
            accelerators.gpu_execution_accelerator)
        kind.add(name=name, parameters=options)
    for key, value in settings.parameters.items():
        config.parameters[key].string_value = value
    for family, bounds in settings.histogram_buckets.items():
        control = config.model_metrics.metric_control.add()
        control.metric_identifier.family = family
        control.histogram_options.buckets.extend(bounds)


def _data_type(datatype: str) -> int:
    names = message("inference.ModelConfig").DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_name
    number: int = names["TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"].number
    return number


def _dims(tensor: TensorView, batched: bool) -> tuple[int, ...]:
    # Empty for one value a row: Triton writes [1] with a reshape there, because its requests carry that dimension.
    return shape_of(tensor)[1:] if batched else shape_of(tensor)


def shape_of(tensor: TensorView) -> tuple[int, ...]:
    # A shape of unknown rank has no way to be written: an empty list would say 0-d, so one -1 stands for it.
    return (-1,) if tensor.shape is None else tensor.shape
