"""How requests of a model wait and run: dynamic_batching, instance_group, optimization of a ModelConfig. Pure."""

from __future__ import annotations

from typing import Any

from infer.config_values import PROVIDERS, Provider
from infer.models.settings import DeviceKind, GraphOptimization, QueuePolicy
from infer.models.typed import Typed

# A batcher looks through every level, so their number is bounded.
PRIORITY_LEVELS_MAX = 64
DELAY_US_MAX = 10_000_000
INSTANCES_MAX = 1024

_GRAPH: dict[int, GraphOptimization] = {-1: "basic", 0: "all", 1: "extended", 2: "off"}
# Triton's parameters of an accelerator by the execution provider's own options; values are passed on as they are.
_ACCELERATORS: dict[str, dict[str, str]] = {
    "tensorrt": {"max_workspace_size_bytes": "trt_max_workspace_size", "max_cached_engines": "",
                 "trt_engine_cache_enable": "trt_engine_cache_enable",
                 "trt_engine_cache_path": "trt_engine_cache_path", "minimum_subgraph_size": "trt_min_subgraph_size"},
    "openvino": {"device_type": "device_type", "num_of_threads": "num_of_threads", "cache_dir": "cache_dir"},
    "cuda": {},
}


def scheduling_of(config: Typed) -> dict[str, Any]:
    """The settings that dynamic_batching makes, by their names; only what was written."""
    if not config.is_given("dynamic_batching"):
        return {}
    content = config.content.dynamic_batching
    path = "dynamic_batching"
    said: dict[str, Any] = {"dynamic_batching": True}
    most = config.content.max_batch_size
    if config.is_given("max_batch_size") and most == 0:
        config.warn(path, "W102", cause="gathers nothing with max_batch_size: 0, though its queue policies and "
                    "priorities count", fix="write a max_batch_size from 1, or leave the rest out")
    for index, rows in enumerate(content.preferred_batch_size):
        if rows < 1 or (most > 0 and rows > most):
            bound = f" to max_batch_size, {most}" if most > 0 else ""
            config.refuse(f"{path}.preferred_batch_size[{index}]", "E103", expected=f"rows from 1{bound}",
                          got=str(rows))
    if content.max_queue_delay_microseconds > DELAY_US_MAX:
        config.refuse(f"{path}.max_queue_delay_microseconds", "E103", expected=f"microseconds up to {DELAY_US_MAX}",
                      got=str(content.max_queue_delay_microseconds))
    for name, field, value in (
            ("preferred_batch_size", "preferred_batch_sizes", tuple(sorted(set(content.preferred_batch_size)))),
            ("max_queue_delay_microseconds", "max_queue_delay_us", content.max_queue_delay_microseconds),
            ("default_queue_policy", "queue", _queue_policy(content.default_queue_policy)),
            ("priority_levels", "priority_levels", content.priority_levels),
            ("default_priority_level", "default_priority", content.default_priority_level)):
        if config.is_given(f"{path}.{name}"):
            said[field] = value
    _check_priorities(config, content)
    if config.is_given(f"{path}.priority_queue_policy"):
        said["priority_queues"] = {level: _queue_policy(policy)
                                   for level, policy in sorted(content.priority_queue_policy.items())}
    return said


def _check_priorities(config: Typed, content: Any) -> None:
    path, levels = "dynamic_batching", content.priority_levels
    if levels > PRIORITY_LEVELS_MAX:
        config.refuse(f"{path}.priority_levels", "E103", expected=f"at most {PRIORITY_LEVELS_MAX}", got=str(levels))
        return
    if levels and not 1 <= content.default_priority_level <= levels:
        config.refuse(f"{path}.default_priority_level", "E109", expected=f"a level from 1 to {levels}",
                      got=str(content.default_priority_level), fix="write which level a request without one has")
    elif not levels and content.default_priority_level:
        config.refuse(f"{path}.default_priority_level", "E109", cause="there are no priority levels",
                      fix="write priority_levels too")
    for level in sorted(content.priority_queue_policy):
        if not 1 <= level <= levels:
            config.refuse(f"{path}.priority_queue_policy[{level}]", "E109",
                          expected=f"a level from 1 to {levels}" if levels else "priority_levels beside it",
                          got=str(level))


def _queue_policy(content: Any) -> QueuePolicy:
    return QueuePolicy(content.max_queue_size, content.default_timeout_microseconds,
                       "delay" if content.timeout_action == content.DELAY else "reject",
                       content.allow_timeout_override)


def instances_of(config: Typed) -> dict[str, Any]:
    """`instances`, `kind` and `gpus` from the groups: their number on each device, all on devices of one kind."""
    groups = config.content.instance_group
    if not groups:
        return {}
    kinds: list[DeviceKind] = []
    for index, group in enumerate(groups):
        path = f"instance_group[{index}]"
        kinds.append("gpu" if group.kind == group.KIND_GPU else "cpu" if group.kind == group.KIND_CPU else "auto")
        if config.is_given(f"{path}.count") and not 1 <= group.count <= INSTANCES_MAX:
            config.refuse(f"{path}.count", "E103", expected=f"a whole number from 1 to {INSTANCES_MAX}",
                          got=str(group.count))
        if group.gpus and group.kind in (group.KIND_CPU, group.KIND_MODEL):
            config.refuse(f"{path}.gpus", "E109", cause="names GPUs for instances that run on none",
                          fix="write kind: KIND_GPU, or leave gpus out")
        for at, gpu in enumerate(group.gpus):
            if gpu < 0:
                config.refuse(f"{path}.gpus[{at}]", "E103", expected="a device's number from 0", got=str(gpu))
        if group.kind == group.KIND_MODEL:
            config.warn(f"{path}.kind", "W102", cause="an ONNX model does not choose its devices; taken as KIND_AUTO")
        if kinds[-1] != kinds[0]:
            config.warn(path, "W102", cause="a model runs on devices of one kind; this group is left aside",
                        fix="serve the model a second time under another name")
    chosen = [group for group, kind in zip(groups, kinds, strict=True) if kind == kinds[0]]
    gpus = tuple(dict.fromkeys(gpu for group in chosen for gpu in group.gpus))
    counts = [group.count for group in chosen]
    return {"instances": sum(count or 1 for count in counts) if any(counts) else None, "kind": kinds[0], "gpus": gpus}


def optimization_of(config: Typed) -> dict[str, Any]:
    """`graph_optimization` and `providers`."""
    said: dict[str, Any] = {}
    content = config.content.optimization
    if config.is_given("optimization.graph.level"):
        if content.graph.level not in _GRAPH:
            config.refuse("optimization.graph.level", "E103",
                          expected="-1 (basic), 0 (all), 1 (extended) or 2 (none)", got=str(content.graph.level))
        said["graph_optimization"] = _GRAPH.get(content.graph.level)
    if config.is_given("optimization.execution_accelerators"):
        providers: list[Provider] = []
        for kind in ("gpu", "cpu"):
            name = f"{kind}_execution_accelerator"
            for index, accelerator in enumerate(getattr(content.execution_accelerators, name)):
                path = f"optimization.execution_accelerators.{name}[{index}]"
                options = _accelerator_options(config, accelerator, path)
                if options is not None:
                    providers.append((accelerator.name, options))
        said["providers"] = tuple(providers)
    return said


def _accelerator_options(config: Typed, accelerator: Any, path: str) -> dict[str, str] | None:
    known = _ACCELERATORS.get(accelerator.name)
    if known is None:
        names = ", ".join(name for name in PROVIDERS if name in _ACCELERATORS)
        config.warn(f"{path}.name", "W101", cause=f"accelerator {accelerator.name!r} is not honoured",
                    fix=f"write one of {names}")
        return None
    options = {}
    for key, value in sorted(accelerator.parameters.items()):
        if accelerator.name == "tensorrt" and key == "precision_mode":
            if value.upper() in ("FP16", "INT8"):
                options[f"trt_{value.lower()}_enable"] = "1"
            elif value.upper() != "FP32":
                config.refuse(f"{path}.parameters[{key}]", "E103", expected="FP32, FP16 or INT8", got=value)
        elif known.get(key):
            options[known[key]] = value
        elif key.startswith("trt_") and accelerator.name == "tensorrt":
            options[key] = value
        else:
            config.warn(f"{path}.parameters[{key}]", "W101", cause="is not honoured")
    return options
