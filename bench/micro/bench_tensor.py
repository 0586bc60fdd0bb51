"""A request read and bound, typed contents decoded, a reply's head written. Raw against typed, small against large."""

import struct
from collections.abc import Iterator, Sequence
from functools import partial

from bench.micro.timing import Row, measure
from infer._core._testing_tensor import Codec, write_bytes, write_varint

FORMATS = {"FP32": "f", "INT64": "q", "UINT8": "B", "BOOL": "B", "BYTES": ""}


def packed(values: Sequence[int]) -> bytes:
    return b"".join(map(write_varint, values))


def raw_bytes(data_type: str, count: int) -> bytes:
    if data_type == "BYTES":
        return b"".join(struct.pack("<I8s", 8, b"element%d" % (i % 10)) for i in range(count))
    return struct.pack(f"<{count}{FORMATS[data_type]}", *(i % 2 for i in range(count)))


def contents(data_type: str, count: int) -> bytes:
    """An InferTensorContents."""
    if data_type == "BYTES":
        return b"".join(write_bytes(8, b"element%d" % (i % 10)) for i in range(count))
    if data_type == "FP32":
        return write_bytes(6, raw_bytes(data_type, count))
    number = {"INT64": 3, "UINT8": 4, "BOOL": 1}[data_type]
    return write_bytes(number, packed([i % 2 if data_type == "BOOL" else i * 7 % 256 for i in range(count)]))


def request(names: Sequence[str], data_type: str, columns: int, typed: bool) -> bytes:
    """A ModelInferRequest of one row, as a client's protobuf writes it."""
    message = write_bytes(1, b"tiny")
    for name in names:
        tensor = write_bytes(1, name.encode()) + write_bytes(2, data_type.encode())
        tensor += write_bytes(3, packed([1, columns]))
        message += write_bytes(5, tensor + (write_bytes(5, contents(data_type, columns)) if typed else b""))
    return message + b"".join(write_bytes(7, raw_bytes(data_type, columns)) for _ in names if not typed)


def codec(names: Sequence[str], data_type: str) -> Codec:
    inputs = [(name, data_type, (-1, -1), False) for name in names]
    return Codec("tiny", inputs, [("output", "FP32", True)], batched=True)


def rows() -> Iterator[Row]:
    tiny = Codec("tiny", [("input", "FP32", (-1, 16), False)], [("output", "FP32", True)], batched=True)
    for typed in (False, True):
        message = request(["input"], "FP32", 16, typed)
        form = "typed" if typed else "raw"
        yield measure("tensor", f"read + bind, FP32 [1,16] {form}, {len(message)} bytes",
                      partial(tiny.time_bind, message))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    yield measure("tensor", "read + bind, three INT64 [1,128] raw",
                  partial(codec(names, "INT64").time_bind, request(names, "INT64", 128, False)))
    for data_type in ("FP32", "BOOL", "BYTES"):
        yield measure("tensor", f"read + bind, {data_type} [1,1000] raw",
                      partial(codec(["x"], data_type).time_bind, request(["x"], data_type, 1000, False)), rounds=20_000)
    for data_type, columns in (("FP32", 16), ("FP32", 1000), ("INT64", 1000), ("UINT8", 1000), ("BOOL", 1000),
                               ("BYTES", 1000)):
        yield measure("tensor", f"decode_contents, {data_type} [1,{columns}]",
                      partial(codec(["x"], data_type).time_contents, request(["x"], data_type, columns, True)),
                      rounds=20_000)
    yield measure("tensor", "reply head, FP32 [1,1]", partial(tiny.time_encode, b"", {0: ("FP32", (1, 1), b"")}))
    yield measure("tensor", "reply head with an id, FP32 [1,1000]",
                  partial(tiny.time_encode, b"request-0123456789", {0: ("FP32", (1, 1000), bytes(4000))}))
