"""Consistent hashing with bounded loads: which of many replicas a key belongs to.

Immutable once built; any thread. Owns its points.

Each replica has points on a ring of 64 bits, made from its name alone, so that every replica builds the same ring. A
key belongs to the first point at or after its own place; where that replica is gone, or has more than its part of what
is under way, to the next one that is not and has not. So a replica that goes, or comes, moves the keys that are its own
and no others.

Sources: Karger et al., "Consistent hashing and random trees" (1997); Mirrokni, Thorup, Zadimoghaddam, "Consistent
hashing with bounded loads" (2018).
"""

from libc.stdint cimport int32_t, uint64_t

cdef struct RingPoint:
    uint64_t place
    int32_t replica

cdef class HashRing:
    cdef readonly tuple names
    cdef RingPoint *points
    cdef int n_points
    cdef int first(self, uint64_t key) noexcept
