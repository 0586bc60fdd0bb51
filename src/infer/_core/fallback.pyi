from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infer._core.model_version import VersionEntry
from infer._core.router import RouteTable

class Guard:
    def __init__(
        self,
        entry: VersionEntry,
        *,
        on_change: Callable[[VersionEntry], object] | None = None,
        fallback: str,
        window_ns: int,
        min_calls: int,
        error_rate: float,
        slow_ns: int,
        slow_rate: float,
        open_ns: int,
        probes: int,
        reply: Sequence[tuple[str, str, Sequence[int], bytes]] = (),
    ) -> None: ...
    @property
    def state(self) -> str: ...
    @property
    def state_number(self) -> int: ...
    @property
    def opened(self) -> int: ...
    @property
    def wait_ns(self) -> int: ...
    @property
    def why(self) -> str: ...
    def answered_by(self) -> dict[str, int]: ...

def set_guard(
    entry: VersionEntry,
    limits: Mapping[str, Any] | None,
    on_change: Callable[[VersionEntry], object] | None = None,
) -> None: ...
def answers(routes: RouteTable, entry: VersionEntry, named: bool) -> bool: ...
