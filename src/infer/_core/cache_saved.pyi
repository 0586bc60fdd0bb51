from infer._core.cache import Cache
from infer._core.model_version import VersionEntry

Input = tuple[int, list[int], bytes]
Saved = tuple[VersionEntry, int, int, list[int], list[Input | None], bytes]

def saved(cache: Cache, limit_bytes: int) -> list[Saved]: ...
def warm(
    cache: Cache,
    version: VersionEntry,
    age_ns: int,
    left_ns: int,
    outputs: list[int],
    inputs: list[Input | None],
    tail: bytes,
) -> bool: ...
