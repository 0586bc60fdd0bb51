"""What `infer serve` prints when it is ready: the models, the ports, the time each step took, and lines to paste.

Pure: from a Start to text. On a terminal the table is drawn with rich, else it is aligned plain text.
"""

from __future__ import annotations

import json
import keyword
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TextIO

log = logging.getLogger("infer.server")

METHOD = "inference.GRPCInferenceService/ModelInfer"
# Elements of all inputs together that still make a readable command line.
INLINE_ELEMENTS = 128
_CONTENTS = {"BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
             "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
             "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}
# What the Python lines themselves define.
_PASTED_NAMES = frozenset({"np", "triton", "ml_dtypes", "reply", "print"})
_NUMPY = {"BOOL": "bool_", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "object_"}
_BF16 = "ml_dtypes.bfloat16"


class TensorLine(Protocol):
    """A declared input or output."""

    @property
    def name(self) -> str: ...

    @property
    def datatype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...] | None: ...

    @property
    def symbols(self) -> tuple[str, ...]:
        """Per dimension its name, "" without one."""

    @property
    def served(self) -> bool: ...

    @property
    def optional(self) -> bool: ...


class ModelLine(Protocol):
    """A served version."""

    @property
    def name(self) -> bytes: ...

    @property
    def version(self) -> str: ...

    @property
    def inputs(self) -> Sequence[TensorLine]: ...

    @property
    def outputs(self) -> Sequence[TensorLine]: ...

    @property
    def properties(self) -> dict[str, str]:
        """`batching`: how it batches, or why it does not."""


class Security(NamedTuple):
    """What a client has to be told beside the address: options of `infer call`, grpcurl and ghz, and arguments of
    tritonclient."""

    name: str
    call: str
    grpcurl: str
    ghz: str
    triton: str


PLAINTEXT = Security("", "", "-plaintext ", "--insecure ", "")
TLS = Security("TLS", " --tls-ca ca.pem", "-cacert ca.pem ", "--cacert ca.pem ",
               ', ssl=True, root_certificates="ca.pem"')
MTLS = Security("mTLS", f"{TLS.call} --tls-cert client.pem --tls-key client-key.pem",
                f"{TLS.grpcurl}-cert client.pem -key client-key.pem ",
                f"{TLS.ghz}--cert client.pem --key client-key.pem ",
                f'{TLS.triton}, private_key="client-key.pem", certificate_chain="client.pem"')


class Step(NamedTuple):
    name: str
    milliseconds: float


@dataclass(frozen=True)
class Start:
    """A server that has just become ready."""

    models: Sequence[ModelLine]
    executors: int
    intra_op: int
    grpc: Sequence[str]         # addresses as bound: host:port, [v6]:port or unix:path; TCP first
    http: str
    steps: Sequence[Step]
    failures: Mapping[str, str] = field(default_factory=dict)   # by model: why it is not served
    security: Security = PLAINTEXT                              # of TCP; a Unix socket is plaintext
    transport: str = "native"
    admin: str = ""             # where administration is served; "": nowhere
    # By the clock; steps may have gone on side by side. None: as long as all of them.
    ready_ms: float | None = None

    @property
    def total_ms(self) -> float:
        return sum(step.milliseconds for step in self.steps) if self.ready_ms is None else self.ready_ms


class _Table(NamedTuple):
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def address_text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def client_address(bound: str) -> str:
    """An address that a client on this machine can use: a wildcard becomes localhost."""
    for wildcard in ("0.0.0.0:", "[::]:"):
        if bound.startswith(wildcard):
            return "localhost:" + bound.removeprefix(wildcard)
    return bound


def print_start(start: Start, stream: TextIO) -> None:
    if stream.isatty():
        from rich.console import Console
        from rich.table import Table

        header, rows = _models(start)
        table = Table(*header, show_edge=False)
        for row in rows:
            table.add_row(*(cell.replace("[", "\\[") for cell in row))
        Console(file=stream, highlight=False).print(table)
        stream.write(_footer(start))
    else:
        stream.write(render(start))
    stream.flush()


def render(start: Start) -> str:
    """The whole text, for anything but a terminal."""
    header, rows = _models(start)
    cells = [[cell.split("\n") for cell in row] for row in [header, *rows]]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(len(header))]
    lines = []
    for row in cells:
        for depth in range(max(map(len, row))):
            parts = [cell[depth] if depth < len(cell) else "" for cell in row]
            lines.append("  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines) + "\n" + _footer(start)


def _models(start: Start) -> _Table:
    header = ("MODEL", "VERSION", "INPUTS", "OUTPUTS", "BATCHING")
    return _Table(header, [
        (model.name.decode(), model.version, "\n".join(map(_tensor, model.inputs)),
         "\n".join(map(_tensor, model.outputs)), model.properties.get("batching", ""))
        for model in start.models])


def _tensor(tensor: TensorLine) -> str:
    if not tensor.served:
        return f"{tensor.name} {tensor.datatype} (not served)"
    if tensor.shape is None:
        return f"{tensor.name} {tensor.datatype} [...]"
    symbols = tensor.symbols or ("",) * len(tensor.shape)
    dimensions = (str(size) if size >= 0 else symbol or "?"
                  for size, symbol in zip(tensor.shape, symbols, strict=True))
    return f"{tensor.name} {tensor.datatype} [{','.join(dimensions)}]{' optional' if tensor.optional else ''}"


def _footer(start: Start) -> str:
    steps = ", ".join(f"{name} {milliseconds:.0f} ms" for name, milliseconds in start.steps)
    lines = [
        "",
        *start.failures.values(),
        f"executors  {start.executors} x {start.intra_op} thread{'s' if start.intra_op > 1 else ''}",
        f"gRPC       {', '.join([_secured(start), *start.grpc[1:]])}",
        f"transport  {start.transport}",
        f"HTTP       {start.http}  /metrics  /v2/health/live  /v2/health/ready",
        *([f"admin      {start.admin}"] if start.admin else []),
        f"ready in   {start.total_ms:.0f} ms: {steps}",
        "",
    ]
    if start.models:
        lines += paste_lines(start.models[0], client_address(start.grpc[0]), start.security)
    return "\n".join(lines) + "\n"


def _secured(start: Start) -> str:
    return f"{start.grpc[0]} ({start.security.name})" if start.security.name else start.grpc[0]


def paste_lines(model: ModelLine, address: str, security: Security = PLAINTEXT) -> list[str]:
    """Ways to call `model`, each ready to be pasted into a shell or a Python prompt."""
    name = model.name.decode()
    inputs = [tensor for tensor in model.inputs if not tensor.optional]
    outputs = [tensor for tensor in model.outputs if tensor.served]
    extra = "ml_dtypes, " if any(tensor.datatype == "BF16" for tensor in inputs) else ""
    lines = ["infer call:", f"  infer call {name} --address {address}{security.call}",
             "Python (pip install 'tritonclient[grpc]'):", f"  import {extra}numpy as np, tritonclient.grpc as triton"]
    for tensor in inputs:
        shape = _shape(tensor)
        kind = _BF16 if tensor.datatype == "BF16" else "np." + _NUMPY.get(tensor.datatype, tensor.datatype.lower())
        filled = f'np.full({shape}, b"", {kind})' if tensor.datatype == "BYTES" else f"np.zeros({shape}, {kind})"
        lines.append(f"  {_identifier(tensor.name)} = triton.InferInput({json.dumps(tensor.name)}, {shape}, "
                     f'"{tensor.datatype}").set_data_from_numpy({filled})')
    given = ", ".join(_identifier(tensor.name) for tensor in inputs)
    lines.append(f'  reply = triton.InferenceServerClient("{address}"{security.triton}).infer("{name}", [{given}])')
    if outputs:
        lines.append(f"  print(reply.as_numpy({json.dumps(outputs[0].name)}))")

    data = _request(name, inputs)
    if data is None:
        lines += ["grpcurl and ghz, with a request from a file:",
                  f"  infer call {name} --address {address}{security.call} --print-request > request.json"]
        grpcurl, ghz = "-d @", "-D request.json"
        end = " < request.json"
    else:
        lines.append("grpcurl and ghz:")
        grpcurl, ghz, end = f"-d '{data}'", f"-d '{data}'", ""
    lines.append(f"  grpcurl {security.grpcurl}{grpcurl} {address} {METHOD}{end}")
    # By default ghz cuts off the calls that are under way at the end, and counts them as failed.
    lines.append(f"  ghz {security.ghz}--call {METHOD} {ghz} -c 64 -z 10s --duration-stop wait {address}")
    return lines


def _shape(tensor: TensorLine) -> list[int]:
    return [max(size, 1) if size < 0 else size for size in tensor.shape or ()]


def _identifier(name: str) -> str:
    """The tensor's name as a Python variable."""
    cleaned = "".join(character if character.isalnum() and character.isascii() else "_" for character in name)
    free = cleaned[:1].isalpha() and not keyword.iskeyword(cleaned) and cleaned not in _PASTED_NAMES
    return cleaned if free else f"x_{cleaned}"


def _request(name: str, inputs: Sequence[TensorLine]) -> str | None:
    """A request of zeros as protobuf's JSON; None where it has too many elements or a type that only travels raw."""
    total, tensors = 0, []
    for tensor in inputs:
        count = 1
        for size in _shape(tensor):
            count *= size
        total += count
        if total > INLINE_ELEMENTS or tensor.datatype not in _CONTENTS:
            return None
        zero: Any = {"BOOL": False, "BYTES": ""}.get(tensor.datatype, 0)
        tensors.append({"name": tensor.name, "datatype": tensor.datatype, "shape": _shape(tensor),
                        "contents": {_CONTENTS[tensor.datatype]: [zero] * count}})
    text = json.dumps({"model_name": name, "inputs": tensors}, separators=(",", ":"))
    return None if "'" in text else text


def announce(start: Start, stream: TextIO) -> None:
    """Prints the start, and logs the line from which `infer demo` and scripts learn the addresses."""
    print_start(start, stream)
    log.info("serving", extra={
        "grpc": list(start.grpc), "http": start.http, **({"admin": start.admin} if start.admin else {}),
        "models": [model.name.decode() for model in start.models],
        "ready_ms": round(start.total_ms, 1)})
