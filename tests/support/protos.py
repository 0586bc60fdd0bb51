"""Messages of the protocol as google.protobuf has them: the oracle that the codec is tested against.

They come from `protos/`, compiled when first asked for, and live in a DescriptorPool of their own: other packages of a
test process may register the same names in the default pool.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from grpc_tools import protoc

PROTOS = Path(__file__).parents[2] / "protos"


@functools.cache
def pool() -> descriptor_pool.DescriptorPool:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "descriptors.binpb"
        sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
        status = protoc.main(["protoc", f"-I{PROTOS}", "--include_imports", f"--descriptor_set_out={target}", *sources])
        assert status == 0, sources
        files = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
    private = descriptor_pool.DescriptorPool()
    for file in files:
        private.Add(file)
    return private


@functools.cache
def message_class(name: str) -> Any:
    """The class of a message of package `inference`."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"inference.{name}"))


def parse(name: str, data: bytes) -> Any | None:
    """The message, or None where google.protobuf refuses the bytes."""
    try:
        return message_class(name).FromString(data)
    except DecodeError:
        return None
