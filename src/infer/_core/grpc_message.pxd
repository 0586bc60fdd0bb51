"""gRPC over HTTP/2 below the call: the 5-byte message prefix, compression, grpc-timeout, percent-encoding of messages.

Functions without state but for zlib's working memory, nogil. Sources: gRPC `doc/PROTOCOL-HTTP2.md`, `compression.md`;
RFC 1950 (which gRPC calls deflate), RFC 1952 (gzip).
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from infer._core.block cimport Block

# Values of grpc-encoding, and bits of a set of them.
cdef enum Encoding:
    ENCODING_IDENTITY = 0
    ENCODING_DEFLATE = 1
    ENCODING_GZIP = 2
    ENCODING_OTHER = 4

# How inflating ended.
cdef enum Inflated:
    INFLATED = 0
    INFLATE_CORRUPT = 1
    INFLATE_CUT_SHORT = 2
    INFLATE_TRAILING = 3         # bytes after the end; a second gzip member is such
    INFLATE_TOO_LONG = 4         # more than the limit
    INFLATE_NO_MEMORY = 5

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

# One name of an encoding.
cdef int encoding_of(const uint8_t *name, uint64_t size_bytes) noexcept nogil
# A grpc-accept-encoding as a set of Encoding.
cdef int accepted_encodings(const uint8_t *list, uint64_t size_bytes) noexcept nogil
# Length that a gzip stream says to have, 0 for other encodings: a hint, written by the client.
cdef uint32_t claimed_length(int encoding, const uint8_t *data, uint64_t size_bytes) noexcept nogil
# Inflates a whole message into a new Block, never to more than `limit_bytes`. on_loop: the caller is the loop thread,
# whose working memory is kept; any other thread takes its own for the call.
cdef int inflate_message(int encoding, const uint8_t *data, uint64_t size_bytes, uint64_t limit_bytes, bint on_loop,
                         Block **inflated) noexcept nogil

# A message being compressed, piece by piece, into a Block that starts with its prefix.
cdef struct Deflation:
    void *stream
    Block *block
    bint on_loop
    bint failed

# False: no memory. `size_bytes`: of all pieces together.
cdef bint deflate_begin(Deflation *deflation, int encoding, uint64_t size_bytes, bint on_loop) noexcept nogil
cdef void deflate_add(Deflation *deflation, const uint8_t *data, uint64_t size_bytes, bint last) noexcept nogil
# The Block, or NULL: it would not be smaller.
cdef Block *deflate_end(Deflation *deflation) noexcept nogil

# grpc-timeout as nanoseconds, clamped to what int64 holds; TIMEOUT_MALFORMED if it is not 1 to 8 digits and a unit.
cdef int64_t parse_timeout(const uint8_t *text, uint64_t size_bytes) noexcept nogil
# How much of `text` (UTF-8) stays within `limit_bytes` once percent-encoded, cut at a character's edge.
cdef uint64_t encodable_bytes(const uint8_t *text, uint64_t size_bytes, uint64_t limit_bytes) noexcept nogil
# Percent-encodes `text` (UTF-8) into `to` (room for 3 * size_bytes); returns the bytes written.
cdef uint64_t percent_encode(const uint8_t *text, uint64_t size_bytes, uint8_t *to) noexcept nogil
