"""The messages of `protos/`, compiled when first asked for, in a DescriptorPool of their own."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

PROTOS = Path(__file__).parents[1] / "protos"
# What protoc brings along: google/protobuf/*.proto.
WELL_KNOWN = Path(protoc.__file__).with_name("_proto")


@functools.cache
def descriptors() -> descriptor_pb2.FileDescriptorSet:
    """The files, each after those that it imports."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "descriptors.binpb"
        sources = sorted(path.name for path in PROTOS.glob("*.proto"))
        status = protoc.main(["protoc", f"-I{PROTOS}", f"-I{WELL_KNOWN}", "--include_imports",
                              f"--descriptor_set_out={target}", *sources])
        assert status == 0, sources
        return descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    private = descriptor_pool.DescriptorPool()
    for file in descriptors().file:
        private.Add(file)
    return private


@functools.cache
def message(full_name: str) -> Any:
    """The class of a message by its full name."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(full_name))
