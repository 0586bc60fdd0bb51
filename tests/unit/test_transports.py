"""The table of what grpcio does otherwise, and which transport is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer import transport
from infer.config import Settings
from infer.errors import InferError
from infer.transport.grpc_aio import TEXT_BYTES, cut
from infer.transport.grpc_options import channel_options, unheeded
from tests.support import transports

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_contributing_prints_the_table() -> None:
    assert transports.printed() in CONTRIBUTING.read_text()


def test_a_row_is_a_test_and_perhaps_a_parameter() -> None:
    assert transports.reason("test_H4_method[grpcio-GET]")
    assert transports.reason("test_wire_body[grpcio-B41_no_message-hot]")
    for other in ("test_H4_method[native-GET]", "test_H4_method", "test_wire_body[grpcio-B1-hot]", "test_x[grpcio]"):
        assert transports.reason(other) is None


@pytest.mark.parametrize("built", [True, False])
def test_the_transport_that_is_chosen(built: bool, monkeypatch: pytest.MonkeyPatch,
                                      caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(transport, "native_is_built", lambda: built)
    assert transport.chosen_transport("grpcio") == "grpcio"
    assert caplog.messages == []
    if built:
        assert transport.chosen_transport(None) == transport.chosen_transport("native") == "native"
        assert caplog.messages == []
        return
    assert transport.chosen_transport(None) == "grpcio"
    (line,) = caplog.messages
    assert "built without libnghttp2" in line
    assert "libnghttp2-dev" in line
    with pytest.raises(InferError, match=r"--transport native.*libnghttp2-dev.*--transport grpcio"):
        transport.chosen_transport("native")


def test_limits_as_grpcio_calls_them() -> None:
    options = dict(channel_options(Settings(max_message_bytes=5000, header_bytes=2048, max_streams=7)))
    assert options["grpc.max_receive_message_length"] == 5000
    assert options["grpc.max_metadata_size"] == options["grpc.absolute_max_metadata_size"] == 2048
    assert options["grpc.max_concurrent_streams"] == 7


def test_flags_that_are_not_heeded() -> None:
    assert unheeded(Settings()) == []
    assert unheeded(Settings(max_connections=5, outbound_bytes=1 << 20, max_streams=5)) == [
        "--outbound-bytes", "--max-connections"]


@pytest.mark.parametrize(("text", "kept"), [
    ("a" * TEXT_BYTES, TEXT_BYTES), ("a" * (TEXT_BYTES + 1), TEXT_BYTES), ("%" * TEXT_BYTES, TEXT_BYTES // 3),
    ("ö" * TEXT_BYTES, TEXT_BYTES // 6)])
def test_a_text_is_cut_to_what_it_takes_on_the_wire(text: str, kept: int) -> None:
    assert cut(text) == text[:kept]
