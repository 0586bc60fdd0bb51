from os import PathLike

class FileContent:
    def __init__(self, path: str | PathLike[str]) -> None:
        """OSError as `open` and `read` have it."""
    def __len__(self) -> int: ...
    def startswith(self, prefix: bytes) -> bool: ...
