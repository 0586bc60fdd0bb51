"""Which fields of a ModelConfig are honoured: every other that is written gets a warning or refuses the model. Pure.

A field is named by its path without indices and keys: `input.dims`, `parameters.string_value`. What is written with the
value that it has anyway says nothing and gets no warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

from infer.models.typed import Typed

_QUEUE_POLICY = ("timeout_action", "default_timeout_microseconds", "allow_timeout_override", "max_queue_size")

HONOURED = frozenset({
    "name", "platform", "backend", "max_batch_size", "default_model_filename",
    "version_policy.latest.num_versions", "version_policy.specific.versions",
    "input.name", "input.data_type", "input.dims", "input.reshape.shape", "input.optional",
    "output.name", "output.data_type", "output.dims", "output.reshape.shape",
    # A group's name is for people.
    "instance_group.name", "instance_group.count", "instance_group.kind", "instance_group.gpus",
    "dynamic_batching.preferred_batch_size", "dynamic_batching.max_queue_delay_microseconds",
    "dynamic_batching.priority_levels", "dynamic_batching.default_priority_level",
    *(f"dynamic_batching.default_queue_policy.{name}" for name in _QUEUE_POLICY),
    *(f"dynamic_batching.priority_queue_policy.{name}" for name in _QUEUE_POLICY),
    "model_warmup.name", "model_warmup.batch_size", "model_warmup.count",
    *(f"model_warmup.inputs.{name}" for name in ("data_type", "dims", "zero_data", "random_data", "input_data_file")),
    "response_cache.enable", "optimization.graph.level",
    *(f"optimization.execution_accelerators.{kind}_execution_accelerator.{name}"
      for kind in ("cpu", "gpu") for name in ("name", "parameters")),
    "parameters.string_value",
    "model_metrics.metric_control.metric_identifier.family", "model_metrics.metric_control.histogram_options.buckets",
})

# What holds something that is honoured.
_PARTLY = frozenset(outer for known in HONOURED
                    for outer in accumulate(known.split(".")[:-1], lambda left, right: f"{left}.{right}"))

# Without these the model would answer something else.
REFUSED: Mapping[str, tuple[str, str]] = {
    "sequence_batching": ("the state of a sequence is not kept",
                          "serve the model without it and send its state as inputs"),
    "ensemble_scheduling": ("ensembles are not served",
                            "call its models one after the other, or join them with onnx.compose.merge_models"),
    "batch_input": ("inputs that are made from a batch are not made", "make them part of the model"),
    "batch_output": ("outputs are not scattered by another tensor's shape", "leave it out"),
}

_WHY: Mapping[str, str] = {
    "input.allow_ragged_batch": "requests of different shapes do not share a batch",
    "input.format": "tensors are passed on as they are",
    "output.label_filename": "the classification extension is not served",
    "dynamic_batching.preserve_ordering": "replies go out as their batches finish",
    "instance_group.passive": "an instance that runs nothing is not made",
    "optimization.input_pinned_memory": "the execution provider decides which memory is pinned",
    "optimization.output_pinned_memory": "the execution provider decides which memory is pinned",
    "optimization.priority": "priorities are those of requests: priority_levels",
    "optimization.eager_batching": "batches gather while others run in any case",
    "model_transaction_policy": "an ONNX model has one reply to a request",
    "metric_tags": "metrics have the labels model and version",
}


def check_honoured(config: Typed) -> None:
    """A problem for every field that was written and is not honoured."""
    for name, (cause, fix) in REFUSED.items():
        if config.is_given(name):
            config.refuse(name, "E110", cause=cause, fix=fix)
    warned: set[str] = set()
    for trail in config.leaves:
        names = [step.name for step in trail]
        if names[0] in REFUSED or ".".join(names) in HONOURED:
            continue
        # The outermost field in which nothing is honoured.
        depth = next(depth for depth in range(1, len(names) + 1) if ".".join(names[:depth]) not in _PARTLY)
        outer, path = ".".join(names[:depth]), trail[depth - 1].path
        if path not in warned:
            warned.add(path)
            why = _WHY.get(outer, "")
            config.warn(path, "W101", cause=f"is not honoured{': ' if why else ''}{why}")
