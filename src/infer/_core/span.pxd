"""Bounds-checked read cursor over bytes that somebody else owns. Lives on the stack; inline throughout."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef struct Span:
    const uint8_t *at
    const uint8_t *end

cdef inline Span span_over(const uint8_t *data, uint64_t size_bytes) noexcept nogil:
    cdef Span span
    span.at = data
    span.end = data + size_bytes
    return span

cdef inline uint64_t span_left(const Span *span) noexcept nogil:
    return <uint64_t> (span.end - span.at)

# Sub-span of the next `size_bytes`, consumed; False: there are fewer.
cdef inline bint try_take(Span *span, uint64_t size_bytes, Span *part) noexcept nogil:
    if size_bytes > span_left(span):
        return False
    part.at = span.at
    part.end = span.at + size_bytes
    span.at += size_bytes
    return True
