import ssl
from asyncio import BufferedProtocol, TimerHandle, Transport
from collections.abc import Callable
from typing import Any

from infer._core.cold_call import ColdCall
from infer._core.http2_coding import CodingJob
from infer._core.http2_streams import StreamingSession
from infer._core.request import RequestSink

REFUSED_NAMES: tuple[str, ...]
AGE_JITTER: float

class Endpoint:
    def __init__(
        self,
        sink: RequestSink,
        handlers: dict[str, Any],
        spawn: Callable[[StreamingSession, ColdCall, Any], None],
        arm: Callable[[StreamingSession, ColdCall], TimerHandle],
        soon: Callable[[Callable[[], None]], object],
        *,
        streaming: dict[str, bool] | None = ...,
        header_bytes: int = ...,
        stream_messages: int = ...,
        stream_outbound_bytes: int = ...,
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
        offload: Callable[[CodingJob], None] | None = ...,
        reply_compression: str = ...,
        coding_jobs: int = ...,
        max_early_resets: int = ...,
        max_stream_errors: int = ...,
        max_settings_frames: int = ...,
        max_ping_strikes: int = ...,
        max_empty_frames: int = ...,
        max_oversize_headers: int = ...,
        max_window_updates: int = ...,
        max_idle_frames: int = ...,
        max_queued_frames: int = ...,
        max_turn_events: int = ...,
        keepalive_time: float = ...,
        keepalive_timeout: float = ...,
        max_connection_idle: float = ...,
        max_connection_age: float = ...,
        max_connection_age_grace: float = ...,
        tenant_key: bytes = ...,
        tenant_of_certificate: bool = ...,
        routing_key: bytes = ...,
    ) -> None: ...
    def connection(self) -> Connection: ...
    def tls_connection(self) -> Connection: ...
    def use_tls(self, context: ssl.SSLContext, on_failure: Callable[[str, str], None]) -> None: ...
    def flush_all(self) -> None: ...
    def check_timeouts(self) -> None: ...
    def drain(self, on_idle: Callable[[], None]) -> None: ...
    def end_calls(self, message: bytes) -> None: ...
    def abort(self) -> None: ...
    def open_connections(self) -> list[Connection]: ...
    def snapshot(self) -> dict[str, Any]: ...

# Not derived from BufferedProtocol at run time.
class Connection(BufferedProtocol):
    def connection_made(self, transport: Transport) -> None: ...  # type: ignore[override]
    def peer_name(self) -> str: ...
    def peer_identity(self) -> str: ...
    def peer_tenant(self) -> bytes | None: ...
    def peer_certificate(self) -> bytes | None: ...
