from collections.abc import Sequence
from typing import final

from infer._core.arm import Arm
from infer._core.model_version import VersionEntry

ARMS_MAX: int
RULES_MAX: int

def hash_of(key: bytes) -> int: ...

@final
class Split:
    name: str
    arms: tuple[Arm | None, ...]
    entries: tuple[VersionEntry | None, ...]
    def __init__(
        self,
        name: str,
        arms: Sequence[tuple[str, float, Arm | None, VersionEntry | None]],
        rules: Sequence[tuple[bytes, int]],
        parameter: str,
    ) -> None: ...
    def choose(self, key: bytes) -> int: ...
