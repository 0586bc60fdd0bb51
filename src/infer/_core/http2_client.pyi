from typing import NamedTuple, final

class Reply(NamedTuple):
    """How one call ended."""

    call_id: int
    http_status: int
    """0: no response headers came."""
    grpc_status: int
    """-1: no trailers came."""
    message: bytes | None
    """None unless the body was exactly one message."""
    detail: str
    """grpc-message, decoded; cut at 160 bytes."""
    failure: str | None
    """What ended the stream out of order: an HTTP/2 error, or the loss of the connection."""

@final
class ClientConnection:
    """One HTTP/2 connection to one gRPC method, without I/O: the caller moves the bytes."""

    def __init__(
        self, path: str, authority: str, *, timeout_s: float | None = None, max_calls: int = 100,
        max_reply_bytes: int = 0,
    ) -> None:
        """`max_reply_bytes`: what replies under way may hold, together; the message of one that would pass it is None.
        0: no bound."""
    @property
    def active(self) -> int:
        """Calls under way."""
    @property
    def can_start(self) -> bool: ...
    @property
    def is_finished(self) -> bool:
        """True once nothing more can come: the socket is to be closed."""
    def start(self, message: bytes) -> int:
        """Queue a call and return its id. ConnectionError when none can be started now."""
    def feed(self, data: bytes | bytearray | memoryview) -> list[Reply]:
        """Calls that ended by these bytes. ConnectionError when the session cannot go on."""
    def take_output(self) -> bytes:
        """Bytes for the socket, b"" when there are none. What ends by it is returned by the next feed or abandon."""
    def abandon(self) -> list[Reply]:
        """End every call under way, for a connection that was lost."""
