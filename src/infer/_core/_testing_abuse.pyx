"""The rules of `abuse`, `stream_ids` and `frame_heads` as a test drives them; not in wheels."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset

from infer._core cimport abuse, frame_heads as heads_of, stream_ids

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


RESETS_KEPT = stream_ids.RESETS_KEPT


cdef class Ids:
    """The StreamIds of a connection."""
    cdef stream_ids.StreamIds ids

    def __cinit__(self):
        memset(&self.ids, 0, sizeof(self.ids))

    def opened(self, id: int) -> None:
        stream_ids.stream_opened(&self.ids, id)

    def reset(self, id: int) -> None:
        stream_ids.stream_reset(&self.ids, id)

    def frame_for_gone(self, id: int) -> int:
        """The HTTP/2 error that ends the connection, 0 for none."""
        return stream_ids.frame_for_gone(&self.ids, id)


def frame_heads(pieces: list[bytes]) -> list[tuple[int, int]]:
    """Type and stream of each frame in what follows a connection's preface."""
    cdef heads_of.FrameHeads heads
    cdef const uint8_t *at
    cdef uint64_t left_bytes
    memset(&heads, 0, sizeof(heads))
    heads.left_bytes = heads_of.PREFACE_BYTES
    found = []
    for piece in pieces:
        at = <const uint8_t *> <const char *> piece
        left_bytes = <uint64_t> len(piece)
        while heads_of.next_head(&heads, &at, &left_bytes):
            found.append((heads.head[3], heads_of.stream_id_of(heads.head)))
    return found
