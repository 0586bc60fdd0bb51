"""Protobuf messages of the cold RPCs and of our own clients, made when first asked for.

They live in a DescriptorPool of their own: tritonclient and others register `inference.*` in the default pool, and both
must work in one process. The descriptor set is compiled from protos/ at build time.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

DESCRIPTORS = Path(__file__).with_name("descriptors.binpb")


@cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.Add(file)
    return pool


@cache
def message(full_name: str) -> Any:
    """The class of a message by its full name, such as `inference.ModelMetadataRequest`."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(full_name))
