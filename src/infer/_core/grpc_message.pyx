"""The two conversions are byte loops over a few characters; nothing is allocated and no thread is favoured."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t

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
