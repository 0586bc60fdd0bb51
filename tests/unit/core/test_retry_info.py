"""google.rpc.Status with a RetryInfo, byte by byte; against Google's own messages in tests/property."""

import pytest

from infer._core.retry_info import retry_status

URL = b"type.googleapis.com/google.rpc.RetryInfo"


@pytest.mark.parametrize(("pushback_ms", "duration"), [
    (0, b""), (1, b"\x10\xc0\x84\x3d"), (999, b"\x10\xc0\x8f\xae\xdc\x03"), (1000, b"\x08\x01"),
    (90_500, b"\x08\x5a\x10\x80\xca\xb5\xee\x01")])
def test_a_delay_is_seconds_and_nanoseconds(pushback_ms: int, duration: bytes) -> None:
    info = b"\x0a" + bytes([len(duration)]) + duration
    detail = b"\x0a\x28" + URL + b"\x12" + bytes([len(info)]) + info
    assert retry_status(8, "full", pushback_ms) == b"\x08\x08\x12\x04full\x1a" + bytes([len(detail)]) + detail


def test_a_message_may_be_missing() -> None:
    assert retry_status(14, "", 0)[:3] == b"\x08\x0e\x1a"


@pytest.mark.parametrize(("text", "pushback_ms"), [("x" * 16384, 1), ("ö" * 8192, 1), ("x", -1)])
def test_what_does_not_fit_is_refused(text: str, pushback_ms: int) -> None:
    with pytest.raises(ValueError, match=r"at most 16383 bytes and a delay from 0 ms, got \d+ bytes and -?1 ms"):
        retry_status(8, text, pushback_ms)
