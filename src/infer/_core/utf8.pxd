"""UTF-8 validation; inline throughout. Source: Unicode standard, table 3-7."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from infer._core.span cimport Span, span_left

cdef extern from * nogil:
    bint likely(bint condition)

cdef inline bint is_ascii(const Span *text) noexcept nogil:
    cdef const uint8_t *at = text.at
    cdef uint64_t size_bytes = span_left(text)
    cdef uint64_t word, bits = 0
    cdef uint32_t first, last
    if size_bytes >= 8:
        while text.end - at > 8:
            memcpy(&word, at, 8)
            bits |= word
            at += 8
        memcpy(&word, text.end - 8, 8)
        return (bits | word) & 0x8080808080808080ULL == 0
    if size_bytes >= 4:
        memcpy(&first, at, 4)
        memcpy(&last, text.end - 4, 4)
        return (first | last) & 0x80808080U == 0
    return size_bytes == 0 or (at[0] | at[size_bytes >> 1] | at[size_bytes - 1]) < 0x80

# Well-formed UTF-8: shortest forms only, no surrogates, nothing past U+10FFFF.
cdef inline bint is_utf8(const Span *text) noexcept nogil:
    cdef const uint8_t *at = text.at
    cdef uint8_t lead, low, high
    cdef int more, i
    if likely(is_ascii(text)):
        return True
    while at < text.end:
        lead = at[0]
        if lead < 0x80:
            at += 1
            continue
        if lead < 0xC2 or lead > 0xF4:
            return False
        more = 1 if lead < 0xE0 else 2 if lead < 0xF0 else 3
        low = 0xA0 if lead == 0xE0 else 0x90 if lead == 0xF0 else 0x80
        high = 0x9F if lead == 0xED else 0x8F if lead == 0xF4 else 0xBF
        if text.end - at <= more or at[1] < low or at[1] > high:
            return False
        for i in range(2, more + 1):
            if at[i] & 0xC0 != 0x80:
                return False
        at += more + 1
    return True
