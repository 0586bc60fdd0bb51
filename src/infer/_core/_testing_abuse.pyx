"""The rules of `abuse` as a test drives them; not in wheels."""

from libc.stdint cimport int64_t
from libc.string cimport memset

from infer._core cimport abuse

RECENT_STREAMS = abuse.RECENT_STREAMS
EARLY_SPAN_NS = <int64_t> abuse.EARLY_SPAN_NS
STREAM_ERROR_NS = <int64_t> abuse.STREAM_ERROR_NS
SETTINGS_NS = <int64_t> abuse.SETTINGS_NS
OVERSIZE_NS = <int64_t> abuse.OVERSIZE_NS
PING_NS = <int64_t> abuse.PING_NS
PING_BURST = abuse.PING_BURST


cdef class Peer:
    """A Conduct and its limits; each method says whether the peer is over its bound."""
    cdef abuse.Conduct conduct
    cdef abuse.AbuseLimits limits

    def __cinit__(self, **limits: int):
        memset(&self.conduct, 0, sizeof(self.conduct))
        self.limits = limits

    def stream_opened(self) -> None:
        self.conduct.streams += 1

    def stream_closed(self, early: bool, now: int) -> bool:
        return abuse.stream_closed(&self.conduct, &self.limits, early, now)

    def stream_error(self, now: int) -> bool:
        return abuse.stream_error(&self.conduct, &self.limits, now)

    def settings_came(self, now: int) -> bool:
        return abuse.settings_came(&self.conduct, &self.limits, now)

    def oversize_header(self, now: int) -> bool:
        return abuse.oversize_header(&self.conduct, &self.limits, now)

    def ping_came(self, now: int) -> bool:
        return abuse.ping_came(&self.conduct, &self.limits, now)

    def ping_sent(self) -> None:
        self.conduct.awaited_acks += 1

    def ping_answered(self, now: int) -> bool:
        return abuse.ping_answered(&self.conduct, &self.limits, now)

    def headers_sent(self) -> None:
        abuse.headers_sent(&self.conduct)

    def data_sent(self) -> None:
        abuse.data_sent(&self.conduct)

    def empty_data_came(self) -> bool:
        return abuse.empty_data_came(&self.conduct, &self.limits)

    def window_update_came(self) -> bool:
        return abuse.window_update_came(&self.conduct, &self.limits)

    def idle_frame_came(self) -> bool:
        return abuse.idle_frame_came(&self.conduct, &self.limits)

    @property
    def size_bytes(self) -> int:
        return sizeof(self.conduct)
