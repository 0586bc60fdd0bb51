"""The rules of `stream_ids` and `frame_heads` as a test drives them; not in wheels."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from infer._core cimport frame_heads as heads_of, stream_ids

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
