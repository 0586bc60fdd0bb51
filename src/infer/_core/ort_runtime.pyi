from os import PathLike

MINIMUM_VERSION: tuple[int, int]

def find_library() -> str: ...
def give_back_memory() -> None: ...

class Runtime:
    library_path: str
    version: str
    providers: list[str]
    intra_op: int
    def __init__(self, library: str | PathLike[str] | None = None, intra_op: int = 1) -> None: ...
