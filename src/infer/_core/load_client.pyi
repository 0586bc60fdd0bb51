from collections.abc import Callable, Sequence
from dataclasses import dataclass

@dataclass(frozen=True)
class LoadResult:
    """Outcome of a run. Totals include the warm-up; rate and latencies leave it out and cover OK replies alone."""

    sent: int
    ok: int
    """Replies with :status 200, grpc-status 0 and the expected length."""
    statuses: dict[str, int]
    """Replies by gRPC status name, as the trailers say; OTHER for a number that gRPC does not have."""
    failures: dict[str, int]
    """http_status, no_grpc_status, wrong_length, stream_reset, stream_refused, connection_lost, unanswered;
    error_message: a message whose reply is a ModelStreamInferResponse with an error; not_started: scheduled, never
    sent; and stream_end: streams, not messages, that ended with another status than OK though all was answered."""
    reason: str
    """First thing that went wrong, in words; empty when nothing did."""
    measured: int
    """OK replies to requests scheduled after the warm-up."""
    duration_s: float
    """From the end of the warm-up to the last measured reply."""
    rate: float
    """Measured replies per second."""
    min_us: float
    mean_us: float
    p50_us: float
    """Quantiles are within 0.4%; min, mean and max are exact."""
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    reply_bytes: int
    """Message length that every reply was held to; -1 when there was none to learn it from."""
    first_reply: bytes | None
    """Message of the first OK reply."""
    peak_in_flight: int
    """Below connections x streams when the server allowed fewer streams."""
    cpu_share: float
    """CPU time of the generator's thread by wall time."""
    bottleneck: bool
    """cpu_share above 0.8: the figures say more about the generator than about the server."""
    calls: bytes = b""
    """With `record`, of each call in the order of their ends four int64 in this machine's order: when it was scheduled,
    started and answered (ns of the monotonic clock), and the index of its reply in `replies`, -1 if it was not OK."""
    replies: tuple[bytes, ...] = ()
    """The messages of the different replies."""

def run(
    address: str,
    path: str,
    payload: bytes,
    connections: int = 1,
    streams: int = 1,
    *,
    duration_s: float | None = None,
    requests: int | None = None,
    rate: float | None = None,
    stream_messages: int | None = None,
    warmup_s: float = 0.0,
    timeout_s: float | None = None,
    patience_s: float | None = None,
    expected_bytes: int | None = None,
    stall_s: float = 10.0,
    capture_first_reply: bool = True,
    record: bool = False,
    until: Callable[[], bool] | None = None,
    vary_from: int = 0,
    metadata: Sequence[tuple[str, str]] = (),
    any_length: bool = False,
) -> LoadResult:
    """Call `path` with `payload` over `connections` connections with up to `streams` calls under way on each.

    Without `rate` the loop is closed. With it (calls per second over all connections) call k is scheduled at
    start + k / rate whatever the server does, and one that finds no free stream waits with its latency running; where
    that lasts for `patience_s` (None: until its deadline) it is not started.

    With `stream_messages` the calls are messages: `streams` bidirectional streams stay open on each connection, with up
    to so many messages under way on each, whose replies come in order. A message is then what is said here of a call.

    The run ends after `warmup_s` + `duration_s` or `requests` calls (warm-up included), whichever comes first, and once
    the last reply is there. `until` is asked four times a second; no call is scheduled once it has said True. A run
    is given up when nothing comes for `stall_s`, or `stall_s` after its end.

    `address` is host:port, [v6]:port or unix:path. `timeout_s` is sent as grpc-timeout. `expected_bytes` is the length
    that every reply must have; None learns it from the first, with `any_length` none is held to it. `record` keeps
    every call's times and replies, of which there may be 4,096 different ones; ValueError where there are more.

    With `vary_from`, 1 or more, no two messages are the same: 46 bits of the last 8 bytes, of two FP32 that stay as
    large as they are, count from there on, on each connection 2^32 further. `metadata` goes with every call, 9 fields
    at most.

    ConnectionError when no connection can be made or no reply came at all; otherwise what goes wrong is counted.
    """
