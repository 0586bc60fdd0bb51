"""`infer call`: one inference call from the command line."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from infer.cli.tls import TlsOptions, tls_options
from infer.errors import InferError, InvalidArgument
from infer.proto import message

SAMPLE_ROWS = 8
# The parameter of a reply whose model's traffic is divided.
VARIANT = "infer_variant"


@click.command("call")
@click.argument("model")
@click.argument("inputs", nargs=-1, metavar="[NAME=@FILE.npy|NAME=random|NAME=JSON]...")
@click.option("--address", default="localhost:8001", metavar="HOST:PORT|unix:PATH", show_default=True,
              help="Where the server is.")
@click.option("--version", "model_version", default="", metavar="N", help="Version of the model [the server's choice].")
@click.option("--json", "as_json", is_flag=True, help="Print the reply as one JSON object.")
@click.option("--print-request", is_flag=True, help="Print the request as JSON for grpcurl or ghz, send nothing.")
@click.option("--timeout", default=30.0, metavar="SECONDS", show_default=True, type=click.FloatRange(min=0.001),
              help="Time that the call may take.")
@tls_options
def command(*, model: str, inputs: tuple[str, ...], address: str, model_version: str, as_json: bool,
            print_request: bool, timeout: float, **tls: Any) -> None:
    """Call MODEL once and print its outputs.

    Without inputs the bundled examples get rows of their held-out data, any other model random data.
    """
    from infer.cli.client import Client, typed_inputs
    from infer.client.calls import INFER_PATH
    from infer.client.messages import decode_reply, encode_request

    try:
        with Client(address, timeout, TlsOptions(**tls).credentials()) as client:
            metadata = client.metadata(model, model_version)
            arrays, truth = _inputs(metadata, inputs)
            request = encode_request(model, typed_inputs(metadata, arrays), version=model_version)
            if print_request:
                click.echo(_json_of(request))
                return
            started = time.perf_counter()
            content = client.call(INFER_PATH, request)
            milliseconds = (time.perf_counter() - started) * 1e3
        result = decode_reply(content)
    except InvalidArgument as error:
        raise click.UsageError(error.message) from None
    except InferError as error:
        click.echo(f"infer call: {error.message}", err=True)
        raise SystemExit(1) from None
    outputs = {name: _printable(array, result.datatypes[name]) for name, array in result.items()}
    if as_json:
        click.echo(json.dumps({
            "model_name": result.model_name, "model_version": result.model_version,
            **({"parameters": result.parameters} if result.parameters else {}),
            "outputs": [{"name": name, "datatype": result.datatypes[name], "shape": list(array.shape),
                         "data": _plain(array)} for name, array in outputs.items()]}))
        return
    variant = f", variant {result.parameters[VARIANT]}" if VARIANT in result.parameters else ""
    click.echo(f"{result.model_name} version {result.model_version}{variant}, {milliseconds:.1f} ms")
    for name, array in arrays.items():
        click.echo(f"sent {name} {list(array.shape)}")
    for name, array in outputs.items():
        click.echo(f"{name} {result.datatypes[name]} {list(array.shape)}")
        click.echo(_readable(array))
    if truth is not None:
        click.echo("truth, from the held-out sample")
        click.echo(_readable(truth))


def _inputs(metadata: Any, given: tuple[str, ...]) -> tuple[dict[str, Any], Any]:
    """Arrays by input, and the labels where they come from a sample."""
    import numpy as np

    from infer.cli.client import first_rows, random_inputs, sample_of
    from infer.cli.tensors import read_argument

    if not given:
        sample = sample_of(metadata)
        if sample is None:
            return random_inputs(metadata), None
        return first_rows(sample, SAMPLE_ROWS), sample.truth[:SAMPLE_ROWS]
    declared = {tensor.name: tensor for tensor in metadata.inputs}
    arrays: dict[str, Any] = {}
    generator = np.random.default_rng()
    for argument in given:
        name, equals, text = argument.partition("=")
        if not equals:
            raise InvalidArgument(f"{argument!r}: expected NAME=@FILE.npy, NAME=random or NAME=JSON")
        if name not in declared:
            raise InvalidArgument(f"{metadata.name} has no input {name!r}; its inputs are "
                                  + ", ".join(f"{t.name} {t.datatype} {list(t.shape)}" for t in metadata.inputs))
        if name in arrays:
            raise InvalidArgument(f"input {name!r} is given twice")
        tensor = declared[name]
        arrays[name] = read_argument(name, text, tensor.datatype, tuple(tensor.shape), generator)
    return arrays, None


def _json_of(request: bytes) -> str:
    """An encoded ModelInferRequest as protobuf's JSON."""
    from google.protobuf import json_format

    decoded = message("inference.ModelInferRequest").FromString(request)
    text: str = json_format.MessageToJson(decoded, preserving_proto_field_name=True, indent=None)
    return text


def _printable(array: Any, datatype: str) -> Any:
    from infer.client.tensors import bf16_to_fp32

    return bf16_to_fp32(array) if datatype == "BF16" else array


def _plain(array: Any) -> list[Any]:
    """Elements in row-major order, as the protocol's JSON has them."""
    return [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in array.ravel().tolist()]


def _readable(array: Any) -> str:
    import numpy as np

    if array.dtype == np.object_:
        array = np.array(_plain(array), np.str_).reshape(array.shape)
    text = np.array2string(array, threshold=200, precision=6, suppress_small=True, max_line_width=100)
    return "  " + text.replace("\n", "\n  ")
