"""The hand-written request bytes of the bench against google.protobuf."""

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from bench.load import payload

PROTOS = Path(__file__).resolve().parents[2] / "protos"


@pytest.fixture(scope="module")
def request_class(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """ModelInferRequest in a pool of its own: the default pool may hold another definition of `inference`."""
    out = tmp_path_factory.mktemp("descriptors") / "all.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"--descriptor_set_out={out}"]
    subprocess.run([*command, "--include_imports", "inference.proto"], check=True)
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelInferRequest"))


def test_row_request_is_what_protobuf_writes(request_class: Any) -> None:
    data = payload.row_request("tiny", (16,))
    request = request_class.FromString(data)
    assert request.model_name == "tiny"
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in request.inputs] == [("x", "FP32", [1, 16])]
    values = np.frombuffer(request.raw_input_contents[0], "<f4")
    assert values.shape == (16,)
    assert np.all(np.abs(values) <= 1)
    assert request.SerializeToString(deterministic=True) == data


def test_row_request_is_the_same_every_time() -> None:
    assert payload.row_request("mid", (256,)) == payload.row_request("mid", (256,))
    assert payload.row_request("mid", (256,)) != payload.row_request("mid", (256,), rows=2)


@given(
    texts=st.tuples(st.text(max_size=40), st.text(max_size=4), st.text(max_size=200)),
    raw=st.binary(max_size=400),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
)
def test_any_request_is_what_protobuf_writes(
    request_class: Any, texts: tuple[str, str, str], raw: bytes, shape: list[int]
) -> None:
    model, version, request_id = texts
    expected = request_class(model_name=model, model_version=version, id=request_id, raw_input_contents=[raw])
    expected.inputs.add(name="x", datatype="FP32", shape=shape)
    written = payload.infer_request(model, raw, shape, version=version, request_id=request_id)
    assert written == expected.SerializeToString(deterministic=True)


def test_framed_has_the_grpc_prefix(tmp_path: Path) -> None:
    path = payload.write_body(tmp_path / "bodies" / "one", b"abc")
    assert path.read_bytes() == struct.pack(">BI", 0, 3) + b"abc"
