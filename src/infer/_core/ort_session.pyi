from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal

from infer._core.model_version import TensorInfo, VersionEntry
from infer._core.ort_runtime import Runtime

Tensor = tuple[str, tuple[int, ...], bytes]
Providers = Literal["auto"] | Sequence[tuple[str, dict[str, str]]]

class OrtSession:
    runtime: Runtime
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    metadata: dict[str, Any]
    providers: list[tuple[str, dict[str, str]]]
    messages: list[str]
    def __init__(
        self,
        runtime: Runtime,
        path: str | PathLike[str],
        *,
        providers: Providers = "auto",
        intra_op: int | None = None,
        inter_op: int | None = None,
        parallel: bool = False,
        graph_optimization: Literal["off", "basic", "extended", "all"] = "all",
    ) -> None: ...
    def run(self, inputs: list[Tensor | None]) -> list[Tensor]: ...
    def close(self) -> None: ...

def attach(entry: VersionEntry, session: OrtSession) -> None: ...
def take_session(entry: VersionEntry) -> OrtSession: ...
