"""Protobuf messages of the cold RPCs and of our own clients, made when first asked for.

They live in a DescriptorPool of their own: tritonclient and others register `inference.*` in the default pool, and both
must work in one process. The descriptor set is compiled from protos/ at build time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

DESCRIPTORS = Path(__file__).with_name("descriptors.binpb")


@cache
def files() -> Mapping[str, Any]:
    """The FileDescriptorProto of each file by its name, a file after those that it imports."""
    from google.protobuf import descriptor_pb2

    described = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    return {file.name: file for file in described.file}


@cache
def pool() -> Any:
    """The DescriptorPool of all of them."""
    from google.protobuf import descriptor_pool

    private = descriptor_pool.DescriptorPool()
    for file in files().values():
        private.Add(file)
    return private


@cache
def message(full_name: str) -> Any:
    """The class of a message by its full name, such as `inference.ModelMetadataRequest`."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(pool().FindMessageTypeByName(full_name))
