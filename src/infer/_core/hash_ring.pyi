from collections.abc import Iterable

class HashRing:
    names: tuple[str, ...]
    """Sorted."""
    def __init__(self, names: Iterable[str]) -> None: ...
    def owner(self, key: int, up: list[bool], loads: list[int]) -> int: ...
