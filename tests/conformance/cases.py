"""What a client of the protocol is made to send, and which models it talks to.

`MODELS` fills one repository; `CASES` are the calls. A case without `error` and `expected` is judged by onnxruntime run
directly on the same file; `expected` is for what onnxruntime's Python cannot carry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.support import models
from tests.support.command import EXAMPLES

Array = Any

MAX_BATCH_SIZE = 16

NUMPY = {"BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8,
         "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "FP16": np.float16, "BF16": np.uint16,
         "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_}
"""BF16 as its bits."""

MODELS: dict[str, bytes] = {
    **{f"rows_{datatype}": models.identity(datatype, ("batch", "length")) for datatype in NUMPY},
    **{f"scalar_{datatype}": models.identity(datatype, ()) for datatype in NUMPY},
    **{f"empty_{datatype}": models.identity(datatype, ("batch", 0, 2)) for datatype in NUMPY},
    "unknown_rank": models.identity("FP32", None),
    "every_identity": models.every_identity(),
    "scalar": models.scalar(),
    "empty_columns": models.empty_columns(),
    "dense": models.dense(),
    "add_sub": models.add_sub(),
    "simple": models.add_sub_int32(),
    "two_in_three_out": models.two_in_three_out(),
    "string_join": models.string_join(),
    "embedding": models.embedding(),
    "gather": models.gather(),
    "slow": models.slow(),
    "batch_mean_subtracted": models.batch_mean_subtracted(),
    "row_numbers": models.row_numbers(),
    "mixed_first_dims": models.mixed_first_dims(),
    "fixed_rows": models.fixed_rows(),
    "doubled_rows": models.doubled_rows(),
    "positive_rows": models.positive_rows(),
    "nonzero": models.nonzero(),
    "reshape": models.reshape(),
    "zipmap": models.zipmap(),
    "digits": (EXAMPLES / "digits" / "1" / "model.onnx").read_bytes(),
    "trees": (EXAMPLES / "trees" / "1" / "model.onnx").read_bytes(),
}

@dataclass
class Case:
    name: str
    model: str
    inputs: dict[str, tuple[str, Array]]
    kind: str = "alone"                         # or "burst": under way together with the others
    exact: bool = True
    version: str = ""
    outputs: list[str] | None = None
    request_id: str = ""
    parameters: dict[str, Any] | None = None
    timeout: float | None = None
    priority: int = 0
    expected: dict[str, Array] | None = None
    error: tuple[str, str] | None = None        # status, and a pattern of the message
    reply: dict[str, Any] = field(default_factory=dict)


def objects(*items: bytes, shape: tuple[int, ...]) -> Array:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array.reshape(shape)


def values(datatype: str, shape: tuple[int, ...]) -> Array:
    """The edges of a type, over and over, in a shape."""
    kind = NUMPY[datatype]
    if datatype == "BYTES":
        edges: Any = objects(b"", b"a", b"a\0b\0", "\u00e9\u4e16".encode(), b"x" * 300, b"\0", shape=(6,))
    elif datatype == "BOOL":
        edges = np.array([True, False, False, True, True], kind)
    elif datatype == "BF16":
        # One, minus two and a half, infinities, a NaN with a payload, minus zero, a subnormal.
        edges = np.array([0x3F80, 0xC020, 0x7F80, 0xFF80, 0x7FC1, 0x8000, 0x0001], kind)
    elif datatype.startswith("FP"):
        limits = np.finfo(kind)
        edges = np.array([0.1, -2.5, np.inf, -np.inf, np.nan, -0.0, limits.max, limits.smallest_subnormal], kind)
    else:
        limits = np.iinfo(kind)
        edges = np.array([limits.min, limits.max, 0, 1, limits.max - 1, limits.min + 1], kind)
    return np.resize(edges, shape) if np.prod(shape) else np.empty(shape, kind)


def fp32(*rows: list[float]) -> tuple[str, Array]:
    return "FP32", np.array(rows, np.float32)


def int64(*rows: list[int]) -> tuple[str, Array]:
    return "INT64", np.array(rows, np.int64)


def _every_type() -> list[Case]:
    cases = []
    for datatype in NUMPY:
        for shape in ((1, 7), (3, 5), (MAX_BATCH_SIZE, 1), (2, 0)):
            tensor = (datatype, values(datatype, shape))
            cases.append(Case(f"rows {datatype} {shape}", f"rows_{datatype}", {"x": tensor}))
        cases.append(Case(f"scalar {datatype}", f"scalar_{datatype}", {"x": (datatype, values(datatype, ()))}))
        cases.append(Case(f"empty {datatype}", f"empty_{datatype}", {"x": (datatype, values(datatype, (3, 0, 2)))}))
    wild = objects(b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b"\0\xff\0", shape=(2, 2))
    cases += [
        Case("not UTF-8", "rows_BYTES", {"x": ("BYTES", wild)}, expected={"y": wild}),
        Case("not UTF-8, twice", "string_join", {"x": ("BYTES", wild)},
             expected={"y": np.concatenate([wild, wild], axis=1)}),
        Case("every type at once", "every_identity",
             {f"in_{datatype.lower()}": (datatype, values(datatype, (2, 6))) for datatype in reversed(NUMPY)},
             expected={f"out_{datatype.lower()}": values(datatype, (2, 6)) for datatype in NUMPY}),
        *(Case(f"unknown rank {shape}", "unknown_rank", {"x": ("FP32", values("FP32", shape))})
          for shape in ((), (3,), (2, 0, 4), (2, 3, 4, 1))),
        Case("0-d sum", "scalar", {"x": ("FP32", np.array(41, np.float32))}),
        Case("nothing beside something", "empty_columns",
             {"x": ("FP32", np.empty((2, 0), np.float32)), "z": fp32([1, 2, 3], [4, 5, 6])}),
    ]
    return cases


def _alone() -> list[Case]:
    rng = np.random.default_rng(7)
    x, z = fp32([1, 2, 3, 4], [5, -6, 7, 8]), fp32([1, -1], [0, 2])
    two = {"x": x, "z": z}
    integers = {"x": int64([1, 2, 3, 2**62], [-5, 6, 7, 8]),
                "z": ("INT32", np.array([[4, 3, 2, 1], [0, -1, 9, 9]], "i4"))}
    simple = {name: ("INT32", rng.integers(-9, 9, (3, 16)).astype("i4")) for name in ("INPUT0", "INPUT1")}
    return [
        Case("dense one row", "dense", {"x": ("FP32", rng.standard_normal((1, 4)).astype("f4"))}),
        Case("dense many rows", "dense", {"x": ("FP32", rng.standard_normal((13, 4)).astype("f4"))}),
        Case("two in, three out", "two_in_three_out", two),
        Case("inputs the other way round", "two_in_three_out", dict(reversed(two.items()))),
        Case("one of the outputs", "two_in_three_out", two, outputs=["w"]),
        Case("two of the outputs", "two_in_three_out", two, outputs=["v", "y"]),
        Case("integers", "add_sub", integers),
        Case("Triton's simple", "simple", simple),
        Case("an id", "dense", {"x": x}, request_id="caller/17 \u00e9", reply={"id": "caller/17 \u00e9"}),
        Case("parameters", "dense", {"x": x}, parameters={"a": 1, "b": "text", "c": True}, priority=2,
             reply={"parameters": []}),
        Case("a version", "dense", {"x": x}, version="1", reply={"version": "1", "model": "dense"}),
        Case("strings", "string_join", {"x": ("BYTES", values("BYTES", (3, 2)))}),
        Case("ids of words", "embedding", {"x": int64([1, 2, 3], [9, 0, -1])}),
        Case("rows that see one another", "batch_mean_subtracted", {"x": x}),
        Case("row numbers", "row_numbers", {"x": int64([5], [5], [5])}),
        Case("one input with rows", "mixed_first_dims", {"x": x, "z": fp32([2, 3, 4, 5])}),
        Case("fixed rows", "fixed_rows", {"x": x}),
        Case("more rows out", "doubled_rows", {"x": x}),
        Case("fewer rows out", "positive_rows", {"x": fp32([1, 0, 0, 0], [-1, 0, 0, 0])}),
        Case("no rows out", "positive_rows", {"x": fp32([-1, 0, 0, 0])}),
        Case("a shape known afterwards", "nonzero", {"x": x}),
        Case("a shape asked for", "reshape",
             {"x": ("FP32", np.arange(6, dtype="f4")), "z": ("INT64", np.array([3, 1, 2]))}),
        Case("beside a map", "zipmap", {"x": fp32([3, 1, 2], [0, 0, 9])}, outputs=["label", "probabilities"]),
        Case("beside a map, all", "zipmap", {"x": fp32([3, 1, 2], [0, 0, 9])}),
    ]


def _wrong() -> list[Case]:
    x = fp32([1, 2, 3, 4])
    wide = ("FP32", np.zeros((MAX_BATCH_SIZE + 1, 4), "f4"))

    def bad(name: str, model: str, inputs: dict[str, tuple[str, Array]], pattern: str, **more: Any) -> Case:
        return Case(name, model, inputs, error=("StatusCode.INVALID_ARGUMENT", pattern), **more)

    return [
        Case("unknown model", "nobody", {"x": x}, error=("StatusCode.NOT_FOUND", "'nobody'")),
        Case("unknown version", "dense", {"x": x}, version="7", error=("StatusCode.NOT_FOUND", "'dense'.*'7'")),
        bad("a version that none can be", "dense", {"x": x}, "'01' of model 'dense'", version="01"),
        Case("unknown label", "dense", {"x": x}, version="latest",
             error=("StatusCode.NOT_FOUND", "'dense' has no label 'latest'")),
        bad("name with a path", "../dense", {"x": x}, "'../dense'.*expected"),
        bad("another type", "dense", {"x": ("FP64", np.zeros((1, 4)))}, r"'x' of model 'dense'.*\[-1,4\], got FP64"),
        bad("another shape", "dense", {"x": fp32([1, 2, 3])}, r"'x' of model 'dense'.*\[-1,4\], got FP32 \[1,3\]"),
        bad("another rank", "dense", {"x": ("FP32", np.zeros(4, "f4"))}, r"'x' of model 'dense'.*, got FP32 \[4\]"),
        bad("too many rows", "dense", {"x": wide}, f"'x' of model 'dense'.* at most {MAX_BATCH_SIZE} rows"),
        bad("missing input", "two_in_three_out", {"x": x}, "'two_in_three_out'.* 'z'"),
        bad("unknown input", "dense", {"x": x, "q": x}, "'dense'.* 'q'"),
        bad("rows that differ", "two_in_three_out", {"x": x, "z": fp32([1, 2], [3, 4])}, "'z' of model.*1 row"),
        bad("unknown output", "dense", {"x": x}, "'dense'.* 'q'", outputs=["q"]),
        bad("a map asked for", "zipmap", {"x": fp32([1, 2, 3])}, "'scores' of.*zipmap=False", outputs=["scores"]),
        bad("a row that the model refuses", "gather", {"x": int64([99])}, "'gather'"),
        Case("out of time", "slow", {"x": int64([20_000])}, timeout=0.05,
             error=("StatusCode.DEADLINE_EXCEEDED", "(?i)deadline")),
    ]


def _bursts() -> list[Case]:
    """All of these are under way together, so that rows of different callers meet in a batch."""
    rng = np.random.default_rng(11)
    cases = []

    def add(model: str, count: int, exact: bool, make: Any) -> None:
        cases.extend(Case(f"{model} burst {i}", model, make(i), "burst", exact) for i in range(count))

    add("dense", 60, False, lambda i: {"x": ("FP32", rng.standard_normal((1 + i % 4, 4)).astype("f4"))})
    add("digits", 40, False, lambda i: {"image": ("FP32", rng.integers(0, 17, (1, 64)).astype("f4"))})
    add("trees", 40, False, lambda i: {"features": ("FP32", rng.uniform(0, 30, (1 + i % 2, 30)).astype("f4"))})
    add("add_sub", 40, True, lambda i: {"x": int64([i] * 4), "z": ("INT32", np.full((1, 4), i * i, "i4"))})
    add("string_join", 40, True, lambda i: {"x": ("BYTES", objects(b"%d\0" % i, b"z" * i, shape=(1, 2)))})
    add("embedding", 40, False, lambda i: {"x": ("INT64", rng.integers(0, 10, (1 + i % 3, 2 + i % 3)))})
    add("row_numbers", 20, True, lambda i: {"x": int64([i], [i])})
    add("batch_mean_subtracted", 20, True, lambda i: {"x": ("FP32", rng.standard_normal((2, 4)).astype("f4"))})
    add("rows_FP16", 20, True, lambda i: {"x": ("FP16", np.full((1, 1 + i % 2), i, np.float16))})
    return cases


CASES = [*_every_type(), *_alone(), *_wrong(), *_bursts()]
BATCHED_BURSTS = ("dense", "digits", "trees", "add_sub", "string_join")
