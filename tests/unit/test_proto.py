"""Private messages: there, right, and apart from the default pool."""

from __future__ import annotations

import subprocess
import sys

import pytest

from infer.proto import message


def test_messages_of_all_three_files() -> None:
    assert message("inference.ModelReadyRequest")(name="m").SerializeToString() == b"\x0a\x01m"
    assert message("inference.ModelConfig")(max_batch_size=4).SerializeToString() == b"\x20\x04"
    assert message("grpc.health.v1.HealthCheckResponse")(status=1).SerializeToString() == b"\x08\x01"
    assert message("inference.ModelReadyRequest") is message("inference.ModelReadyRequest")


def test_unknown_message() -> None:
    with pytest.raises(KeyError):
        message("inference.Nothing")


def test_default_pool_is_left_alone() -> None:
    """Another package may register the same names in the default pool, before or after."""
    script = (
        "from google.protobuf import descriptor_pb2, descriptor_pool as d\n"
        "from infer.proto import message\n"
        "mine = message('inference.ModelReadyRequest')\n"
        "file = descriptor_pb2.FileDescriptorProto(name='grpc_service.proto', package='inference')\n"
        "file.message_type.add(name='ModelReadyRequest')\n"
        "d.Default().Add(file)\n"
        "assert d.Default().FindMessageTypeByName('inference.ModelReadyRequest') is not mine.DESCRIPTOR\n"
        "assert 'name' in mine.DESCRIPTOR.fields_by_name\n")
    subprocess.run([sys.executable, "-c", script], check=True)
