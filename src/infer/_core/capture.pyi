from collections.abc import Callable

from infer._core.model_version import VersionEntry

# ns since the epoch, model, version, request, reply, the size to tell `did`.
Taken = tuple[int, bytes, str, bytes, bytes, int]

class Capture:
    versions: tuple[VersionEntry, ...]
    seen: int
    taken: int
    done: int
    per_second: int
    max_waiting: int
    max_waiting_bytes: int
    max_message_bytes: int
    def __init__(self, put: Callable[[Taken], object], *, fraction: float, per_second: int, max_waiting: int,
                 max_waiting_bytes: int, max_message_bytes: int) -> None: ...
    def capture_from(self, versions: tuple[VersionEntry, ...]) -> None: ...
    def drops(self) -> dict[str, int]: ...
    def did(self, size_bytes: int) -> None: ...
