from typing import TypedDict

from infer._core.file_content import FileContent

# Name, kind of its type, element type by ONNX's number, and dims: a size, a symbol, None for one without either.
Value = tuple[str, str, int, tuple[int | str | None, ...] | None]

class OnnxFacts(TypedDict):
    ir_version: int
    producer: str
    producer_version: str
    domain: str
    model_version: int
    opsets: dict[str, int]
    metadata: dict[str, str]
    inputs: list[Value]
    outputs: list[Value]
    zipmap: bool
    weight_bytes: int

def onnx_facts(model: bytes | FileContent) -> OnnxFacts | None: ...
