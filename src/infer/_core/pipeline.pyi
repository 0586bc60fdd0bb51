from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence

from infer._core.cache import Cache
from infer._core.executor import ExecutorPool
from infer._core.model_version import VersionEntry
from infer._core.request import RequestSink
from infer._core.router import RouteTable
from infer._core.second_level import SecondLevel
from infer._core.tenants import Tenants

class Pipeline(RequestSink):
    in_flight: int
    tenants: Tenants
    after_turn: Callable[[], object] | None
    on_run_failure: Callable[[VersionEntry, str], object] | None
    on_stopped_run: Callable[[VersionEntry, int, bool], object] | None
    runs_stopped: int
    cache: Cache | None
    second: SecondLevel | None
    def __init__(
        self,
        loop: AbstractEventLoop,
        pool: ExecutorPool,
        routes: RouteTable,
        tenants: Tenants,
        cache: Cache | None = None,
        *,
        judge_deadlines: bool = True,
        codel_target_ns: int = 0,
        codel_interval_ns: int = ...,
        triton_codes: bool = False,
    ) -> None: ...
    def attach(self, entry: VersionEntry, cached: Mapping[str, int] | None = None) -> None: ...
    def detach(self, entry: VersionEntry) -> None: ...
    def set_bounds(self, *, queued_rows: int, queued_bytes: int) -> None: ...
    def set_limits(
        self,
        entry: VersionEntry,
        *,
        delay_ns: int,
        queue_limit_rows: int,
        queue_limit_bytes: int = ...,
        weight: int = 1,
        default_level: int = 0,
        policies: Sequence[tuple[int, int, bool, bool]] = (),
    ) -> None: ...
    def set_adaptive_rows(self, entry: VersionEntry, rows: int) -> None: ...
    def set_run_timeout(self, entry: VersionEntry, timeout_ns: int) -> None: ...
    def set_batching(self, entry: VersionEntry, *, gather_rows: int, delay_ns: int) -> None: ...
    def set_routes(self, routes: RouteTable) -> None: ...
    def close(self) -> None: ...
    def queued_rows_of(self, entry: VersionEntry) -> int: ...
    def queued_bytes_of(self, entry: VersionEntry) -> int: ...
    @property
    def queued_rows(self) -> int: ...
    @property
    def queued_requests(self) -> int: ...
    def unrouted_calls(self) -> list[int]: ...
    def on_second(self, address: int, ticket: int, tail: bytes | None) -> bool: ...
    def on_timer(self) -> None: ...
    def on_wake(self) -> None: ...
