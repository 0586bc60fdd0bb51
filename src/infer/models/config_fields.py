"""A ModelConfig made into ModelSettings, wherever it was written; what is wrong or not honoured goes to its problems.

Pure; any thread.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from infer.models.config_scheduling import instances_of, optimization_of, scheduling_of
from infer.models.config_tensors import tensors_of, warmups_of
from infer.models.honoured import check_honoured
from infer.models.platforms import BACKENDS, PLATFORMS, is_served, platform_advice
from infer.models.settings import HISTOGRAMS, ModelSettings, VersionPolicy
from infer.models.typed import Typed

MAX_BATCH_SIZE_MAX = 1 << 20
VERSION_MAX = 10**18 - 1
BUCKETS_MAX = 64
# Triton's only histogram, in milliseconds, and ours that counts the same.
_TRITON_HISTOGRAM = ("nv_inference_first_response_histogram_ms", "infer_request_seconds", 1e-3)
# Parameters of Triton's ONNX Runtime backend that change nothing at these values.
_IDLE_PARAMETERS = {"inter_op_thread_count": ("", "0", "1"), "execution_mode": ("", "0")}
# By the paths of a ModelConfig: the settings that they make.
_MADE = {
    "default_model_filename": "filename", "max_batch_size": "max_batch_size", "input": "inputs", "output": "outputs",
    "version_policy": "policy", "model_warmup": "warmups", "response_cache": "response_cache",
    "optimization.graph.level": "graph_optimization", "optimization.execution_accelerators": "providers",
    "parameters": "parameters", "model_metrics": "histogram_buckets", "dynamic_batching": "dynamic_batching",
    "dynamic_batching.preferred_batch_size": "preferred_batch_sizes",
    "dynamic_batching.max_queue_delay_microseconds": "max_queue_delay_us",
    "dynamic_batching.default_queue_policy": "queue", "dynamic_batching.priority_levels": "priority_levels",
    "dynamic_batching.default_priority_level": "default_priority",
    "dynamic_batching.priority_queue_policy": "priority_queues",
}


def settings_of(config: Typed, name: str, base: Path | None = None) -> ModelSettings:
    """The settings of model `name`. With an error among the problems they are not to be used."""
    _check_identity(config, name)
    said: dict[str, Any] = {
        **scheduling_of(config), **instances_of(config), **optimization_of(config),
        "inputs": tensors_of(config, "input"), "outputs": tensors_of(config, "output"), "warmups": warmups_of(config),
        "histogram_buckets": _buckets(config), "parameters": _parameters(config),
    }
    content = config.content
    if config.is_given("version_policy"):
        said["policy"] = policy_of(config, content.version_policy, "version_policy")
    if config.is_given("response_cache"):
        said["response_cache"] = content.response_cache.enable
    if config.is_given("default_model_filename"):
        said["filename"] = content.default_model_filename
        if not re.fullmatch(r"[^/\\\0]+", content.default_model_filename) or content.default_model_filename in (
                ".", ".."):
            config.refuse("default_model_filename", "E103", expected="a file's name", got=repr(
                content.default_model_filename), fix="write the name that the file has in every version directory")
    if config.is_given("max_batch_size"):
        said["max_batch_size"] = content.max_batch_size
        if not 0 <= content.max_batch_size <= MAX_BATCH_SIZE_MAX:
            config.refuse("max_batch_size", "E103", expected=f"rows from 1 to {MAX_BATCH_SIZE_MAX}, or 0 for no "
                          "batching", got=str(content.max_batch_size))
    check_honoured(config)
    return ModelSettings(name, base, config.place_of(""), **said, places=_places(config))


def _check_identity(config: Typed, name: str) -> None:
    content = config.content
    if content.name and content.name != name:
        config.refuse("name", "E108", expected=f"{name!r}, as the model's directory is called",
                      got=repr(content.name), fix="rename one of them, or leave the field out")
    for field, names in (("platform", PLATFORMS), ("backend", BACKENDS)):
        written = getattr(content, field)
        if written and not is_served(written, names):
            config.refuse(field, "E107", expected=repr(names[0]), got=repr(written),
                          fix=platform_advice(written, names))


def policy_of(config: Typed, content: Any, path: str) -> VersionPolicy:
    """A version policy, Triton's or TensorFlow Serving's: both have the same fields."""
    choice = content.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy("all")
    if choice == "specific":
        versions = tuple(dict.fromkeys(content.specific.versions))
        for index, version in enumerate(content.specific.versions):
            if not 1 <= version <= VERSION_MAX:
                config.refuse(f"{path}.specific.versions[{index}]", "E103", expected="a version's number from 1",
                              got=str(version))
        if not versions:
            config.refuse(f"{path}.specific", "E106", cause="names no version", fix="write versions: [1]")
        return VersionPolicy("specific", versions=versions)
    count = content.latest.num_versions
    if config.is_given(f"{path}.latest.num_versions") and count < 1:
        config.refuse(f"{path}.latest.num_versions", "E103", expected="a whole number from 1", got="0")
    return VersionPolicy("latest", count or 1)


def _parameters(config: Typed) -> dict[str, str]:
    said = {key: value.string_value for key, value in sorted(config.content.parameters.items())}
    for key, value in said.items():
        path = f"parameters[{key}]"
        if key == "intra_op_thread_count":
            if not value.isdecimal() or not value.isascii():
                config.refuse(path, "E103", expected="a whole number from 0 in quotes", got=repr(value))
        elif value not in _IDLE_PARAMETERS.get(key, ()):
            config.warn(path, "W101", cause="is answered by ModelConfig and otherwise not honoured")
    return said


def _buckets(config: Typed) -> dict[str, tuple[float, ...]]:
    said: dict[str, tuple[float, ...]] = {}
    for index, control in enumerate(config.content.model_metrics.metric_control):
        path = f"model_metrics.metric_control[{index}]"
        family, scale = control.metric_identifier.family, 1.0
        bounds = tuple(control.histogram_options.buckets)
        if family == _TRITON_HISTOGRAM[0]:
            family, scale = _TRITON_HISTOGRAM[1:]
        if not bounds or len(bounds) > BUCKETS_MAX:
            config.refuse(f"{path}.histogram_options.buckets", "E106" if not bounds else "E103",
                          expected=f"1 to {BUCKETS_MAX} upper bounds", got=str(len(bounds)))
        elif list(bounds) != sorted(set(bounds)) or not 0 < bounds[0] <= bounds[-1] < float("inf"):
            config.refuse(f"{path}.histogram_options.buckets", "E103", expected="rising upper bounds above 0",
                          got=", ".join(map(str, bounds)))
        if family in HISTOGRAMS:
            said[family] = tuple(bound * scale for bound in bounds)
        else:
            config.warn(f"{path}.metric_identifier.family", "W101", cause=f"there is no histogram {family!r}",
                        fix=f"write one of {', '.join(HISTOGRAMS)}")
    return said


def _places(config: Typed) -> dict[str, str]:
    """Places by the settings' names."""
    made = {name: config.places[path] for path, name in _MADE.items() if config.is_given(path)}
    if config.is_given("instance_group"):
        made |= dict.fromkeys(("instances", "kind", "gpus"), config.places["instance_group"])
    for kind in ("input", "output"):
        for index, tensor in enumerate(getattr(config.content, kind)):
            for part in ("", ".data_type", ".dims", ".reshape"):
                if config.is_given(f"{kind}[{index}]{part}"):
                    made[f"{kind}s.{tensor.name}{part}"] = config.places[f"{kind}[{index}]{part}"]
    return made
