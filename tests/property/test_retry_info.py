"""RetryInfo of refusals against the messages that Google publishes, and base64 against the standard library's."""

import base64

from google.rpc import error_details_pb2, status_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from infer._core._testing_transport import encode_base64
from infer._core.retry_info import retry_status


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.text(st.characters(codec="utf-8"), max_size=300),
       st.integers(0, (1 << 63) - 1))
@example(-(1 << 31), "x" * 16383, (1 << 63) - 1)
@example(0, "", 0)
def test_it_is_written_as_protobuf_writes_it(code: int, text: str, pushback_ms: int) -> None:
    expected = status_pb2.Status(code=code, message=text)
    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds, milliseconds = divmod(pushback_ms, 1000)
    info.retry_delay.nanos = milliseconds * 1_000_000
    expected.details.add().Pack(info)
    assert retry_status(code, text, pushback_ms) == expected.SerializeToString(deterministic=True)


@given(st.binary(max_size=400))
def test_base64_without_padding(data: bytes) -> None:
    assert encode_base64(data) == base64.b64encode(data).rstrip(b"=")
