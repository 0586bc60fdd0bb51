"""What a model's operator asked for, however it was written: config.pbtxt, a model_config_list or infer.toml. Pure.

A field that was not written has its default, which for most means "as the server decides"; `places` tells the two apart
and says where each was written. `overlaid` puts one writing over another. Any thread; immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from infer.config_values import Provider
from infer.experiments import ExperimentPlan
from infer.models.breaker_settings import BreakerSettings
from infer.rollouts import RolloutSettings
from infer.shadow_plan import ShadowPlan
from infer.split_plan import SplitPlan

PolicyKind = Literal["latest", "all", "specific"]
DeviceKind = Literal["auto", "cpu", "gpu"]
TimeoutAction = Literal["reject", "delay"]
FillKind = Literal["zero", "random", "file"]
GraphOptimization = Literal["off", "basic", "extended", "all"]

# A weight more would let one model run for seconds before another has its turn.
WEIGHT_MAX = 1000
# Histograms of a version whose buckets can be set.
HISTOGRAMS = ("infer_request_seconds", "infer_queue_seconds", "infer_compute_seconds", "infer_batch_rows")


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions that are there shall be served."""

    kind: PolicyKind = "latest"
    count: int = 1                          # of latest
    versions: tuple[int, ...] = ()          # of specific, in the order they were written


@dataclass(frozen=True)
class TensorSetting:
    """An input or output. `dims` are without the batch dimension where max_batch_size > 0; -1 for any size."""

    name: str
    datatype: str                           # FP32, BYTES: the protocol's name, not TYPE_FP32
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None  # what the model sees where requests carry `dims`; None: `dims`
    optional: bool = False


@dataclass(frozen=True)
class QueuePolicy:
    """How requests wait for a batch."""

    max_size: int = 0                       # requests, as Triton counts them; 0: the server's own bound in rows
    default_timeout_us: int = 0             # 0: none
    timeout_action: TimeoutAction = "reject"
    allow_timeout_override: bool = False    # by a request's `timeout` parameter


@dataclass(frozen=True)
class WarmupInput:
    """How one input of a warm-up request is made; `dims` as in a TensorSetting."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    kind: FillKind
    path: str | None = None                 # of `file`: below the model's `warmup` directory


@dataclass(frozen=True)
class Warmup:
    """A request that is run before a version is published."""

    name: str
    batch_size: int = 1
    count: int = 1
    inputs: tuple[WarmupInput, ...] = ()


@dataclass(frozen=True)
class ModelSettings:
    """Everything that can be said about one model."""

    name: str
    base: Path | None = None                # the model's directory, where the writing names it
    origin: str = ""                        # "file:line" of the writing; "" where there is none
    filename: str | None = None             # None: model.onnx

    max_batch_size: int | None = None       # rows; 0: not batched, dims are whole shapes; None: completed at load
    inputs: tuple[TensorSetting, ...] = ()
    outputs: tuple[TensorSetting, ...] = ()

    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=dict)
    availability_preserving: bool = True    # False: the old version is unloaded before the new one is loaded
    keep_versions: int | None = None        # version directories that stay, the highest; None: all
    keep_age_s: float | None = None         # version directories younger than that stay; None: all

    instances: int | None = None            # batches at once, on each device
    kind: DeviceKind = "auto"
    gpus: tuple[int, ...] = ()

    dynamic_batching: bool | None = None    # None: completed at load
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int | None = None   # None: the server's
    queue: QueuePolicy | None = None        # None: the server's
    slo_p99_ms: float | None = None         # that rows and delay of batches are chosen for; 0: not; None: the server's
    weight: int = 1                         # by which it shares executors with other models
    priority_levels: int = 0                # 0: no priorities; 1 is the most urgent
    default_priority: int = 0
    priority_queues: Mapping[int, QueuePolicy] = field(default_factory=dict)

    breaker: BreakerSettings | None = None  # None: the server's
    rollout: RolloutSettings | None = None  # how a new version gets traffic; None: as nobody says
    run_timeout_s: float | None = None      # how long one run may take; 0: as long as it likes; None: the server's

    shadow: ShadowPlan | None = None        # which version has copies of what the others answer
    split: SplitPlan | None = None          # how requests that name no version are divided
    experiment: ExperimentPlan | None = None    # that begins by itself, once

    warmups: tuple[Warmup, ...] = ()
    response_cache: bool | None = None      # None: the server's
    cache_ttl_s: float | None = None        # time that an answer is kept, 0: no bound; None: the server's
    cache_bytes: int | None = None          # None: the server's bound for one model
    cache_rows: bool | None = None          # answers are kept row by row, where that can be done; None: the server's
    graph_optimization: GraphOptimization | None = None     # None: the server's
    providers: tuple[Provider, ...] = ()    # in order of preference, as in the server's settings; empty: the server's
    parameters: Mapping[str, str] = field(default_factory=dict)
    histogram_buckets: Mapping[str, tuple[float, ...]] = field(default_factory=dict)    # upper bounds by metric family

    # Where each field that was written stands, as path:line:column, by the field's name here; below it parts of it,
    # such as `inputs.x.dims`. Positions are no part of what was asked for.
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def place_of(self, name: str) -> str:
        """Where a field, or a part of one, was written; the nearest enclosing place that is known."""
        while name:
            if name in self.places:
                return self.places[name]
            name = name.rpartition(".")[0]
        return self.origin

    def is_given(self, name: str) -> bool:
        return name in self.places

    @property
    def intra_op(self) -> int | None:
        """Threads inside one run, where the operator set their number."""
        written = self.parameters.get("intra_op_thread_count", "")
        return int(written) if written.isdecimal() and int(written) > 0 else None


# A change of these is applied to versions that serve; a change of any other field loads them anew.
LIVE_FIELDS = frozenset({
    "policy", "labels", "availability_preserving", "keep_versions", "keep_age_s", "max_queue_delay_us", "queue",
    "priority_queues", "default_priority", "weight", "slo_p99_ms", "breaker", "run_timeout_s", "shadow",
    "split", "rollout", "experiment",
})
# Where it was written is not what was asked for.
_UNSEEN = frozenset({"origin", "places"})


def changed_fields(old: ModelSettings, new: ModelSettings) -> frozenset[str]:
    """The names of the fields that ask for something else."""
    names = (each.name for each in fields(ModelSettings) if each.name not in _UNSEEN)
    return frozenset(name for name in names if getattr(old, name) != getattr(new, name))


def reload_needed(old: ModelSettings, new: ModelSettings) -> bool:
    """Whether versions that serve under `old` have to be loaded again to serve under `new`."""
    return not changed_fields(old, new) <= LIVE_FIELDS


def overlaid(under: ModelSettings, over: ModelSettings) -> ModelSettings:
    """What `under` says, but for the fields that `over` was written with."""
    known = {each.name for each in fields(ModelSettings)}
    given = {name: getattr(over, name) for name in over.places if name in known}
    kept = {name: place for name, place in under.places.items() if name.partition(".")[0] not in given}
    return replace(under, **given, origin=over.origin or under.origin, places={**kept, **over.places})


def written_shadows(written: Mapping[str, ModelSettings]) -> dict[str, ShadowPlan]:
    """By model, of those that are to have one."""
    return {name: settings.shadow for name, settings in written.items() if settings.shadow is not None}


def written_splits(written: Mapping[str, ModelSettings]) -> dict[str, SplitPlan]:
    """By model, of those whose traffic is to be divided."""
    return {name: settings.split for name, settings in written.items() if settings.split is not None}


def written_experiments(written: Mapping[str, ModelSettings]) -> dict[str, ExperimentPlan]:
    """By model, of those that are to have one."""
    return {name: settings.experiment for name, settings in written.items() if settings.experiment is not None}
