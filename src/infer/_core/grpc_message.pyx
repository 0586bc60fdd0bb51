"""See grpc_message.pxd. zlib is reached from here alone.

The loop thread keeps one zlib stream for inflating and one per encoding for deflating.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from infer._core.block cimport Block, block_data, block_grow, block_new, block_unref
from infer._core.capi.zlib cimport *

cdef enum:
    ZLIB_WINDOW = 15
    GZIP_WINDOW = 31             # 15, and 16 for gzip's header and trailer
    LEVEL = 1                    # fastest: a reply waits for it
    MEMORY_LEVEL = 8
    FIRST_INFLATED_BYTES = 1024
    FIRST_GROWTH = 4             # what tensors of numbers seldom pass
    GROWTH = 2

cdef z_stream loop_inflater
cdef bint loop_inflates = False
cdef z_stream[2] loop_deflaters
cdef bint[2] loop_deflates

cdef const char *HEX_DIGITS = "0123456789ABCDEF"


cdef int64_t unit_ns(uint8_t unit) noexcept nogil:
    """Nanoseconds in a unit of grpc-timeout; 0: no such unit."""
    if unit == c'n':
        return 1
    if unit == c'u':
        return 1000
    if unit == c'm':
        return 1000000
    if unit == c'S':
        return 1000000000
    if unit == c'M':
        return <int64_t> 60 * 1000000000
    if unit == c'H':
        return <int64_t> 3600 * 1000000000
    return 0


cdef int64_t parse_timeout(const uint8_t *text, uint64_t size_bytes) noexcept nogil:
    cdef int64_t value = 0
    cdef int64_t unit
    cdef uint64_t i
    if not 2 <= size_bytes <= 9:
        return TIMEOUT_MALFORMED
    unit = unit_ns(text[size_bytes - 1])
    if not unit:
        return TIMEOUT_MALFORMED
    for i in range(size_bytes - 1):
        if not c'0' <= text[i] <= c'9':
            return TIMEOUT_MALFORMED
        value = value * 10 + (text[i] - c'0')
    return value * unit if value <= INT64_MAX // unit else INT64_MAX


cdef inline bint is_plain(uint8_t c) noexcept nogil:
    return 0x20 <= c <= 0x7E and c != c'%'


cdef uint64_t encodable_bytes(const uint8_t *text, uint64_t size_bytes, uint64_t limit_bytes) noexcept nogil:
    cdef uint64_t encoded_bytes = 0
    cdef uint64_t i
    for i in range(size_bytes):
        encoded_bytes += 1 if is_plain(text[i]) else 3
        if encoded_bytes > limit_bytes:
            while i > 0 and text[i] & 0xC0 == 0x80:
                i -= 1
            return i
    return size_bytes


cdef uint64_t percent_encode(const uint8_t *text, uint64_t size_bytes, uint8_t *to) noexcept nogil:
    cdef uint8_t *start = to
    cdef uint64_t i
    for i in range(size_bytes):
        if is_plain(text[i]):
            to[0] = text[i]
            to += 1
        else:
            to[0] = c'%'
            to[1] = HEX_DIGITS[text[i] >> 4]
            to[2] = HEX_DIGITS[text[i] & 15]
            to += 3
    return <uint64_t> (to - start)


cdef inline int window_of(int encoding) noexcept nogil:
    return GZIP_WINDOW if encoding == ENCODING_GZIP else ZLIB_WINDOW


cdef int encoding_of(const uint8_t *name, uint64_t size_bytes) noexcept nogil:
    if size_bytes == 4 and memcmp(name, b"gzip", 4) == 0:
        return ENCODING_GZIP
    if size_bytes == 7 and memcmp(name, b"deflate", 7) == 0:
        return ENCODING_DEFLATE
    if size_bytes == 8 and memcmp(name, b"identity", 8) == 0:
        return ENCODING_IDENTITY
    return ENCODING_OTHER


cdef int accepted_encodings(const uint8_t *list, uint64_t size_bytes) noexcept nogil:
    cdef uint64_t start = 0
    cdef uint64_t end
    cdef uint64_t last
    cdef int accepted = 0
    while start < size_bytes:
        end = start
        while end < size_bytes and list[end] != c',':
            end += 1
        last = end
        while start < last and (list[start] == c' ' or list[start] == c'\t'):
            start += 1
        while last > start and (list[last - 1] == c' ' or list[last - 1] == c'\t'):
            last -= 1
        accepted |= encoding_of(list + start, last - start)
        start = end + 1
    return accepted & (ENCODING_GZIP | ENCODING_DEFLATE)


cdef uint32_t claimed_length(int encoding, const uint8_t *data, uint64_t size_bytes) noexcept nogil:
    cdef const uint8_t *tail = data + size_bytes - 4
    if encoding != ENCODING_GZIP or size_bytes < 4:
        return 0
    return tail[0] | (<uint32_t> tail[1] << 8) | (<uint32_t> tail[2] << 16) | (<uint32_t> tail[3] << 24)


cdef z_stream *take_inflater(int encoding, bint on_loop) noexcept nogil:
    global loop_inflates
    cdef z_stream *stream
    if on_loop:
        if loop_inflates:
            return &loop_inflater if inflateReset2(&loop_inflater, window_of(encoding)) == Z_OK else NULL
        if inflateInit2(&loop_inflater, window_of(encoding)) != Z_OK:
            return NULL
        loop_inflates = True
        return &loop_inflater
    stream = <z_stream *> calloc(1, sizeof(z_stream))
    if stream != NULL and inflateInit2(stream, window_of(encoding)) != Z_OK:
        free(stream)
        return NULL
    return stream


cdef int inflate_all(z_stream *stream, uint64_t limit_bytes, Block **inflated) noexcept nogil:
    """Inflates what is set as input into a Block that grows with what comes, up to the limit."""
    cdef Block *block = inflated[0]
    cdef Block *grown
    cdef uint64_t room
    cdef uint8_t beyond
    cdef int result
    while True:
        if block.size_bytes == min(block.capacity_bytes, limit_bytes) and block.size_bytes < limit_bytes:
            room = min(block.size_bytes * GROWTH, limit_bytes)
            grown = block_grow(block, room)
            if grown == NULL:
                return INFLATE_NO_MEMORY
            block = inflated[0] = grown
        room = min(block.capacity_bytes, limit_bytes) - block.size_bytes
        # At the limit one byte more tells a message that ends there from one that goes on.
        stream.next_out = block_data(block) + block.size_bytes if room > 0 else &beyond
        stream.avail_out = <unsigned int> (room if room > 0 else 1)
        result = inflate(stream, Z_NO_FLUSH)
        if room > 0:
            block.size_bytes += room - stream.avail_out
        elif stream.avail_out == 0:
            return INFLATE_TOO_LONG
        if result == Z_STREAM_END:
            return INFLATED if stream.avail_in == 0 else INFLATE_TRAILING
        if result == Z_MEM_ERROR:
            return INFLATE_NO_MEMORY
        if result != Z_OK and result != Z_BUF_ERROR:
            return INFLATE_CORRUPT
        if stream.avail_out > 0:
            # It wants more input, and there is none.
            return INFLATE_CUT_SHORT


cdef int inflate_message(int encoding, const uint8_t *data, uint64_t size_bytes, uint64_t limit_bytes, bint on_loop,
                         Block **inflated) noexcept nogil:
    cdef z_stream *stream
    cdef int outcome
    inflated[0] = NULL
    if size_bytes == 0:
        return INFLATE_CUT_SHORT
    stream = take_inflater(encoding, on_loop)
    if stream == NULL:
        return INFLATE_NO_MEMORY
    inflated[0] = block_new(max(min(FIRST_GROWTH * size_bytes, limit_bytes), <uint64_t> FIRST_INFLATED_BYTES))
    if inflated[0] == NULL:
        outcome = INFLATE_NO_MEMORY
    else:
        stream.next_in = <unsigned char *> data
        stream.avail_in = <unsigned int> size_bytes
        outcome = inflate_all(stream, limit_bytes, inflated)
        if outcome != INFLATED:
            block_unref(inflated[0])
            inflated[0] = NULL
    if not on_loop:
        inflateEnd(stream)
        free(stream)
    return outcome


cdef z_stream *take_deflater(int encoding, bint on_loop) noexcept nogil:
    cdef int which = 1 if encoding == ENCODING_GZIP else 0
    cdef z_stream *stream = &loop_deflaters[which]
    if on_loop and loop_deflates[which]:
        return stream if deflateReset(stream) == Z_OK else NULL
    if not on_loop:
        stream = <z_stream *> calloc(1, sizeof(z_stream))
        if stream == NULL:
            return NULL
    if deflateInit2(stream, LEVEL, Z_DEFLATED, window_of(encoding), MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK:
        if not on_loop:
            free(stream)
        return NULL
    if on_loop:
        loop_deflates[which] = True
    return stream


cdef bint deflate_begin(Deflation *deflation, int encoding, uint64_t size_bytes, bint on_loop) noexcept nogil:
    cdef z_stream *stream
    deflation.block = block_new(size_bytes + PREFIX_BYTES)
    if deflation.block == NULL:
        return False
    stream = take_deflater(encoding, on_loop)
    if stream == NULL:
        block_unref(deflation.block)
        return False
    deflation.stream = stream
    deflation.on_loop = on_loop
    deflation.failed = False
    # No room for more than the message has: what does not get smaller is sent as it is.
    stream.next_out = block_data(deflation.block) + PREFIX_BYTES
    stream.avail_out = <unsigned int> size_bytes
    return True


cdef void deflate_add(Deflation *deflation, const uint8_t *data, uint64_t size_bytes, bint last) noexcept nogil:
    cdef z_stream *stream = <z_stream *> deflation.stream
    if deflation.failed:
        return
    stream.next_in = <unsigned char *> data
    stream.avail_in = <unsigned int> size_bytes
    if last:
        deflation.failed = deflate(stream, Z_FINISH) != Z_STREAM_END
    elif size_bytes > 0:
        deflation.failed = deflate(stream, Z_NO_FLUSH) != Z_OK or stream.avail_in > 0


cdef Block *deflate_end(Deflation *deflation) noexcept nogil:
    cdef z_stream *stream = <z_stream *> deflation.stream
    cdef Block *block = deflation.block
    cdef uint64_t size_bytes = <uint64_t> (stream.next_out - block_data(block)) - PREFIX_BYTES
    if not deflation.on_loop:
        deflateEnd(stream)
        free(stream)
    if deflation.failed:
        block_unref(block)
        return NULL
    write_prefix(block_data(block), <uint32_t> size_bytes)
    block_data(block)[0] = 1
    block.size_bytes = size_bytes + PREFIX_BYTES
    return block
