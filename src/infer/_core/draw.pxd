"""Numbers to draw samples by: a fixed sequence, spread evenly over 64 bits; inline."""

from libc.stdint cimport uint64_t

cdef inline uint64_t draw(uint64_t number) noexcept nogil:
    """splitmix64 (Steele, Lea, Flood 2014): the nth of its sequence."""
    cdef uint64_t value = number * 0x9e3779b97f4a7c15ULL
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL
    return value ^ (value >> 31)
