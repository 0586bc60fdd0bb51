from typing import Any

from infer._core.http2_client import ClientConnection

STATES: tuple[str, ...]
EVENTS: tuple[str, ...]

def next_state(state: int, event: int) -> int: ...
def message_prefix(text: bytes, limit_bytes: int) -> int: ...

class StreamDriver:
    header_bytes: int
    timeout_ns: int
    body: bytes | None
    capacity_bytes: int
    end_past_alignment: int
    def field(self, name: bytes, value: bytes, limit_bytes: int = 16384) -> tuple[int, str]: ...
    def check_headers(self) -> tuple[int, int, str]: ...
    def data(self, chunk: bytes, limit_bytes: int = ..., refuse_new: bool = False) -> tuple[int, str]: ...
    def check_message(self) -> tuple[int, str]: ...

class PuppetSink:
    events: list[tuple[Any, ...]]
    answer_open: tuple[int, bytes] | None
    answer_submit: tuple[int, bytes, tuple[bytes, ...]] | None
    kicks: int
    live: list[int]
    def answer(self, number: int, code: int = 0, text: bytes = b"", segments: tuple[bytes, ...] = (),
               pushback_ms: int = -1) -> None: ...

class Timer:
    call: Any
    cancelled: bool

class SessionDriver:
    sink: PuppetSink
    cold: list[tuple[Any, Any]]
    timers: list[Timer]
    flushes: list[SessionDriver]
    refuse_spawn: bool
    done: bool
    wants_output: bool
    streams: int
    early_replies: int
    buffered_bytes: int
    outbound_bytes: int
    greeted: bool
    settled: bool
    def __init__(self, handlers: dict[str, Any] = ..., *, header_bytes: int = ..., max_streams: int = ...,
                 stream_window_bytes: int = ..., connection_window_bytes: int = ..., max_message_bytes: int = ...,
                 connection_buffered_bytes: int = ..., process_buffered_bytes: int = ...) -> None: ...
    def feed(self, data: bytes) -> bool: ...
    def take(self, limit_bytes: int = ...) -> tuple[list[bytes], bool]: ...
    def output(self) -> bytes: ...
    def finish_cold(self, call: Any, code: int, content: bytes) -> None: ...
    def drain(self) -> None: ...
    def end_calls(self, message: bytes) -> None: ...
    def close(self) -> None: ...
    def counters(self) -> dict[str, int]: ...
    def refused(self) -> list[int]: ...
    def time_calls(self, client: ClientConnection, message: bytes, reply: bytes, streams: int, rounds: int) -> int: ...
