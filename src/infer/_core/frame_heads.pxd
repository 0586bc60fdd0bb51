"""Where frames begin in what a client sends, across reads (RFC 9113, 3.4 and 4.1): a plain struct, without I/O.

libnghttp2 says nothing of DATA on streams that it no longer knows; for those alone heads are looked at ahead of it.
"""

from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    HEAD_BYTES = 9
    PREFACE_BYTES = 24

# Starts with left_bytes = PREFACE_BYTES, all else 0.
cdef struct FrameHeads:
    uint64_t left_bytes          # of the preface, or of the payload of the latest frame
    int32_t head_bytes           # of the next head, where a read ended in it
    uint8_t[9] head              # HEAD_BYTES: the latest one

cdef inline bint next_head(FrameHeads *heads, const uint8_t **data, uint64_t *size_bytes) noexcept nogil:
    """Moves on behind the next head, which is then in `head`. False: all data is behind us, and no head is whole."""
    cdef uint64_t taken
    while size_bytes[0] > 0:
        if heads.left_bytes > 0:
            taken = heads.left_bytes if heads.left_bytes < size_bytes[0] else size_bytes[0]
            heads.left_bytes -= taken
        else:
            taken = <uint64_t> (HEAD_BYTES - heads.head_bytes)
            if taken > size_bytes[0]:
                taken = size_bytes[0]
            memcpy(heads.head + heads.head_bytes, data[0], taken)
            heads.head_bytes += <int32_t> taken
        data[0] += taken
        size_bytes[0] -= taken
        if heads.head_bytes == HEAD_BYTES:
            heads.head_bytes = 0
            heads.left_bytes = (<uint64_t> heads.head[0] << 16) | (<uint64_t> heads.head[1] << 8) | heads.head[2]
            return True
    return False

cdef inline int32_t stream_id_of(const uint8_t *head) noexcept nogil:
    return <int32_t> (((head[5] & 0x7F) << 24) | (head[6] << 16) | (head[7] << 8) | head[8])
