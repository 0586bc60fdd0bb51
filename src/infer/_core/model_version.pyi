from collections.abc import Callable, Sequence
from typing import Any

LEFT: tuple[str, ...]

class TensorInfo:
    name: str
    data_type: int
    datatype: str
    shape: tuple[int, ...] | None
    symbols: tuple[str, ...]
    served: bool
    optional: bool
    reshape: tuple[int, ...] | None
    def __init__(
        self,
        name: str,
        data_type: int,
        shape: Sequence[int] | None,
        symbols: Sequence[str] = (),
        *,
        served: bool = True,
        optional: bool = False,
        datatype: str | None = None,
        reshape: Sequence[int] | None = None,
    ) -> None: ...

class VersionEntry:
    name: bytes
    version: str
    prefix: bytes
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    properties: dict[str, Any]
    session: Any
    guard: Any
    settings: Any
    on_drained: Callable[[], object] | None
    def __init__(
        self,
        name: str,
        version: str,
        session: Any,
        inputs: list[TensorInfo],
        outputs: list[TensorInfo],
        *,
        batched: bool,
        max_rows: int,
        gather_rows: int,
        delay_ns: int,
        queue_limit_rows: int,
        max_running: int,
        properties: dict[str, Any],
        queue_limit_bytes: int = ...,
        weight: int = 1,
        levels: int = 0,
        default_level: int = 0,
        policies: Sequence[tuple[int, int, bool, bool]] = (),
    ) -> None:
        """`policies`: as queue_policy.policy_new takes them."""
    @property
    def batched(self) -> bool: ...
    @property
    def max_rows(self) -> int: ...
    @property
    def gather_rows(self) -> int: ...
    @property
    def delay_ns(self) -> int: ...
    @property
    def queue_limit_rows(self) -> int: ...
    @property
    def queue_limit_bytes(self) -> int: ...
    @property
    def weight(self) -> int: ...
    @property
    def levels(self) -> int: ...
    @property
    def max_running(self) -> int: ...
    @property
    def handles(self) -> int: ...
    @property
    def cache_stats(self) -> dict[str, int] | None: ...
    def close(self, on_drained: Callable[[], object] | None) -> None: ...
    def stats_snapshot(self, second_bounds_ns: tuple[int, ...], row_bounds: tuple[int, ...]) -> dict[str, Any]: ...

class Hold:
    def __init__(self, entry: VersionEntry) -> None: ...
    def drop(self) -> None: ...
