"""What a version's settings come to on this server: the session's options, the tensors it serves, its limits. Pure.

`settings` of a VersionEntry are those that `complete` made; what they leave to the server is in LoadOptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from infer._core.model_version import TensorInfo
from infer.config_values import Provider
from infer.errors import ModelLoadError
from infer.models.breaker_settings import DEFAULTS, SERVER_SETTINGS, BreakerSettings, guard_limits
from infer.models.complete import Defaults
from infer.models.memory import PEAK_FACTOR
from infer.models.settings import LIVE_FIELDS, ModelSettings, QueuePolicy, TensorSetting

# Providers of one device, on which a second batch at once would only queue inside the driver.
DEVICE_PROVIDERS = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})
# A century: what is longer is no bound, and cannot be added to a time in ns.
LONGEST_TIMEOUT_US = 100 * 365 * 86_400 * 1_000_000
_DEVICES = frozenset({"cuda", "tensorrt"})
# Parameters of Triton's backend for ONNX Runtime that change how a model runs, but for those that are honoured.
_PARAMETERS = frozenset({"enable_mem_arena", "enable_mem_pattern", "memory.enable_memory_arena_shrinkage",
                         "optimized_model_filepath", "session.use_device_allocator_for_initializers"})


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded and served where their settings do not say, and what bounds them all."""

    providers: Sequence[Provider] = ()      # in order of preference; empty: a working GPU, else CPU
    intra_op: int | None = None             # threads per operator, of its own; None: the runtime's
    max_rows: int = 1024
    gather_rows: int = 64
    delay_ns: int = 0
    queue_limit_rows: int = 4096
    queue_limit_bytes: int = 1 << 62
    max_running: int = 1
    breaker: BreakerSettings = DEFAULTS     # every one is given
    run_timeout_s: float = 0.0              # 0: a run may take as long as it likes
    require_checksums: bool = False
    cache: bool = False                     # answers of every model are kept, not only of those that ask for it
    cache_ttl_s: float = 0.0                # as in ModelSettings
    cache_bytes: int = 0                    # of one model; 0: as much as there is
    cache_rows: bool = False                # row by row, where that can be done
    memory_bytes: int = 0                   # that there are in all; 0: what a load needs is not looked at
    memory_factor: float = PEAK_FACTOR      # memory at the height of a load, in bytes of its files; 0: as above

    def defaults(self, gpus: int) -> Defaults:
        """For `complete`. `gpus`: devices that a provider of the runtime can use."""
        usable = not self.providers or any(_short(name) in _DEVICES for name, _ in self.providers)
        return Defaults(self.max_rows, self.gather_rows, tuple(range(gpus)) if usable else (), self.cache)


# Settings of the server that apply to versions that serve.
LIVE_SETTINGS = (*SERVER_SETTINGS, "run_timeout")


def changed_options(options: LoadOptions, name: str, value: Any) -> LoadOptions:
    """With another value of one of LIVE_SETTINGS."""
    if name == "run_timeout":
        return replace(options, run_timeout_s=value)
    return replace(options, breaker=replace(options.breaker, **{SERVER_SETTINGS[name]: value}))


def session_options(settings: ModelSettings, options: LoadOptions) -> dict[str, Any]:
    """The keyword arguments of its OrtSession. Raises ModelLoadError for a parameter that says nothing."""
    mode = settings.parameters.get("execution_mode", "0")
    if mode not in ("0", "1"):
        raise _wrong(settings, "execution_mode", "0 (sequential) or 1 (parallel)")
    intra_op = _threads(settings, "intra_op_thread_count")
    return {"providers": providers_of(settings, options), "parallel": mode == "1",
            "intra_op": options.intra_op if intra_op is None else intra_op,
            "inter_op": _threads(settings, "inter_op_thread_count"),
            "graph_optimization": settings.graph_optimization or "all"}


def not_honoured(settings: ModelSettings) -> list[str]:
    """What is asked for and has no effect, by the names that it is written with."""
    asked = {"instance_group.gpus but the first": len(settings.gpus) > 1}
    return [name for name, is_asked in asked.items() if is_asked] + [
        f"parameters.{name}" for name in sorted(_PARAMETERS & settings.parameters.keys())]


def providers_of(settings: ModelSettings, options: LoadOptions) -> Sequence[Provider]:
    """The model's own, else the server's, on the device that the model asks for."""
    chosen = settings.providers or options.providers
    if settings.kind == "cpu":
        return [each for each in chosen if _short(each[0]) not in _DEVICES] or [("cpu", {})]
    if settings.kind == "gpu" or settings.gpus:
        devices = [each for each in chosen if _short(each[0]) in _DEVICES] or [("cuda", {})]
        if not settings.gpus:
            return devices
        return [(name, {**given, "device_id": str(settings.gpus[0])}) for name, given in devices]
    return chosen


def limits_of(settings: ModelSettings, options: LoadOptions) -> dict[str, Any]:
    """Those limits of a version, under completed settings, that change without a reload."""
    delay_us = settings.max_queue_delay_us
    return {"delay_ns": options.delay_ns if delay_us is None else delay_us * 1000,
            "queue_limit_rows": options.queue_limit_rows, "queue_limit_bytes": options.queue_limit_bytes,
            "weight": settings.weight, "default_level": settings.default_priority, "policies": queue_policies(settings)}


def cache_limits(settings: ModelSettings, options: LoadOptions) -> dict[str, Any] | None:
    """A version's part of the cache, under completed settings; None: its answers are not kept."""
    if not settings.response_cache:
        return None
    ttl_s = options.cache_ttl_s if settings.cache_ttl_s is None else settings.cache_ttl_s
    size = options.cache_bytes if settings.cache_bytes is None else settings.cache_bytes
    return {"ttl_ns": round(ttl_s * 1e9), "model_bytes": size,
            "rows": options.cache_rows if settings.cache_rows is None else settings.cache_rows}


def guard_of(settings: ModelSettings, options: LoadOptions) -> dict[str, Any] | None:
    """The limits of its breaker, as `fallback.set_guard` takes them; None: it has none."""
    return guard_limits(options.breaker if settings.breaker is None else settings.breaker.over(options.breaker))


def run_timeout_ns(settings: ModelSettings, options: LoadOptions) -> int:
    return round((options.run_timeout_s if settings.run_timeout_s is None else settings.run_timeout_s) * 1e9)


def queue_policies(settings: ModelSettings) -> list[tuple[int, int, bool, bool]]:
    """Of each level, of a model without levels of all requests: requests that may wait (0: no bound of their own), ns
    that one may (0: no bound), whether it is delayed then, and whether it may ask for a shorter time itself."""
    levels = range(1, settings.priority_levels + 1) or (0,)
    return [(policy.max_size, min(policy.default_timeout_us, LONGEST_TIMEOUT_US) * 1000,
             policy.timeout_action == "delay", policy.allow_timeout_override)
            for policy in (settings.priority_queues.get(level) or settings.queue or QueuePolicy() for level in levels)]


def shape_limits(settings: ModelSettings, options: LoadOptions, providers: Sequence[Provider]) -> dict[str, Any]:
    """Those that do not: requests stand in a queue by the number of its levels."""
    own = 1 if providers[0][0] in DEVICE_PROVIDERS else options.max_running
    gathered = settings.preferred_batch_sizes
    return {"batched": bool(settings.max_batch_size), "max_rows": settings.max_batch_size or 1,
            "gather_rows": gathered[-1] if gathered else 1, "max_running": settings.instances or own,
            "levels": settings.priority_levels}


def served_tensors(declared: Iterable[TensorInfo], written: Sequence[TensorSetting], batched: bool,
                   optional: bool) -> list[TensorInfo]:
    """The model's tensors as they are served: sizes that the settings fix where the model leaves them free, another
    shape where they reshape, and of the outputs only those that are listed. `optional`: an input that is not listed may
    be left out of a request."""
    by_name = {each.name: each for each in written}
    return [_served(tensor, by_name.get(tensor.name), batched, optional) for tensor in declared]


def applied(old: ModelSettings, new: ModelSettings) -> ModelSettings:
    """Completed settings with what an edit asks for that needs no reload."""
    return replace(old, origin=new.origin, places=new.places, **{name: getattr(new, name) for name in LIVE_FIELDS})


def _served(tensor: TensorInfo, setting: TensorSetting | None, batched: bool, optional: bool) -> TensorInfo:
    if setting is None:
        return tensor if optional else _with(tensor, tensor.shape, served=False)
    skipped = 1 if batched else 0
    written = setting.dims if setting.reshape is None else setting.reshape
    if tensor.shape is None or len(tensor.shape) != skipped + len(written):
        return tensor
    sizes = tuple(size if own < 0 else own for size, own in zip(written, tensor.shape[skipped:], strict=True))
    model = (*tensor.shape[:skipped], *sizes)
    if written == setting.dims:
        return _with(tensor, model, served=tensor.served)
    carried = map_sizes(sizes, written, setting.dims)
    return _with(tensor, (*tensor.shape[:skipped], *carried), served=tensor.served, reshape=model)


def map_sizes(sizes: Sequence[int], pattern: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """A shape of `pattern` as one of `other`: those that are free (-1) in both stand for each other, in order."""
    free = iter(size for size, own in zip(sizes, pattern, strict=True) if own < 0)
    return tuple(next(free) if size < 0 else size for size in other)


def as_model_has(tensors: Iterable[TensorInfo]) -> list[TensorInfo]:
    """Tensors as they are served, in the shapes that the model itself takes and gives."""
    return [each if each.reshape is None else _with(each, each.reshape, served=each.served) for each in tensors]


def _with(tensor: TensorInfo, shape: tuple[int, ...] | None, *, served: bool,
          reshape: tuple[int, ...] | None = None) -> TensorInfo:
    symbols = tensor.symbols if shape is not None and len(shape) == len(tensor.symbols) else ()
    return TensorInfo(tensor.name, tensor.data_type, shape, symbols, served=served, optional=tensor.optional,
                      datatype=tensor.datatype, reshape=reshape)


def _threads(settings: ModelSettings, name: str) -> int | None:
    written = settings.parameters.get(name, "0")
    if not written.isdecimal() or int(written) > 1024:
        raise _wrong(settings, name, "a number of threads up to 1024; 0 for the server's")
    return int(written) or None


def _wrong(settings: ModelSettings, name: str, expected: str) -> ModelLoadError:
    return ModelLoadError(f"{settings.place_of('parameters.' + name)}: parameters.{name}: expected {expected}, got "
                          f"{settings.parameters[name]!r}")


def _short(name: str) -> str:
    return name.lower().removesuffix("executionprovider")
