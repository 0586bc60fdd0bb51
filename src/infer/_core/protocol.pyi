from asyncio import BufferedProtocol, TimerHandle, Transport
from collections.abc import Callable
from typing import Any

from infer._core.grpc_stream import ColdCall
from infer._core.http2_session import Http2Session
from infer._core.request import RequestSink

class Endpoint:
    def __init__(
        self,
        sink: RequestSink,
        handlers: dict[str, Any],
        spawn: Callable[[Http2Session, ColdCall, Any], None],
        arm: Callable[[Http2Session, ColdCall], TimerHandle],
        *,
        header_bytes: int = ...,
        max_streams: int = ...,
        max_message_bytes: int = ...,
        connection_buffered_bytes: int = ...,
        process_buffered_bytes: int = ...,
        outbound_bytes: int = ...,
        max_connections: int = ...,
        preface_timeout: float = ...,
        settings_timeout: float = ...,
        write_stall_timeout: float = ...,
        stream_window_bytes: int = ...,
        connection_window_bytes: int = ...,
    ) -> None: ...
    def connection(self) -> Connection: ...
    def flush_all(self) -> None: ...
    def check_timeouts(self) -> None: ...
    def drain(self, on_idle: Callable[[], None]) -> None: ...
    def end_calls(self, message: bytes) -> None: ...
    def abort(self) -> None: ...
    def snapshot(self) -> dict[str, Any]: ...

# Not derived from BufferedProtocol at run time.
class Connection(BufferedProtocol):
    def connection_made(self, transport: Transport) -> None: ...  # type: ignore[override]
    def peer_name(self) -> str: ...
