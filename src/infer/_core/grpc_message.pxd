"""gRPC over HTTP/2 below the call: the 5-byte message prefix, grpc-timeout, percent-encoding of grpc-message.

Pure functions, nogil. Source: gRPC `doc/PROTOCOL-HTTP2.md`.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    PREFIX_BYTES = 5
    TIMEOUT_MALFORMED = -1

# Length that a prefix announces; *compressed is its flag byte as it came (0, 1, or invalid).
cdef inline uint32_t prefix_length(const uint8_t *prefix, uint8_t *compressed) noexcept nogil:
    compressed[0] = prefix[0]
    return (<uint32_t> prefix[1] << 24) | (<uint32_t> prefix[2] << 16) | (<uint32_t> prefix[3] << 8) | prefix[4]

cdef inline void write_prefix(uint8_t *to, uint32_t size_bytes) noexcept nogil:
    to[0] = 0
    to[1] = <uint8_t> (size_bytes >> 24)
    to[2] = <uint8_t> (size_bytes >> 16)
    to[3] = <uint8_t> (size_bytes >> 8)
    to[4] = <uint8_t> size_bytes

# grpc-timeout as nanoseconds, clamped to what int64 holds; TIMEOUT_MALFORMED if it is not 1 to 8 digits and a unit.
cdef int64_t parse_timeout(const uint8_t *text, uint64_t size_bytes) noexcept nogil
# How much of `text` (UTF-8) stays within `limit_bytes` once percent-encoded, cut at a character's edge.
cdef uint64_t encodable_bytes(const uint8_t *text, uint64_t size_bytes, uint64_t limit_bytes) noexcept nogil
# Percent-encodes `text` (UTF-8) into `to` (room for 3 * size_bytes); returns the bytes written.
cdef uint64_t percent_encode(const uint8_t *text, uint64_t size_bytes, uint8_t *to) noexcept nogil
