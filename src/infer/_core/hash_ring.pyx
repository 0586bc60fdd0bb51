"""A ring of points, searched by halving. See hash_ring.pxd."""

cimport cython
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, qsort

from hashlib import blake2b

cdef enum:
    POINTS = 160                 # of each replica: shares differ by some per cent
    LOAD_PER_CENT = 125          # of the mean, that one replica may have under way
    FREE_LOAD = 32               # under way at one replica are never too many


cdef int by_place(const void *one, const void *other) noexcept nogil:
    cdef const RingPoint *left = <const RingPoint *> one
    cdef const RingPoint *right = <const RingPoint *> other
    if left.place != right.place:
        return -1 if left.place < right.place else 1
    return (left.replica > right.replica) - (left.replica < right.replica)


@cython.final
cdef class HashRing:
    """`names`: the replicas, in any order. ValueError for a name that comes twice."""

    def __cinit__(self, names not None):
        cdef int i, k
        self.points = NULL
        self.names = tuple(sorted(names))
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"a replica is named twice: {', '.join(self.names)}")
        self.n_points = POINTS * <int> len(self.names)
        self.points = <RingPoint *> malloc(max(1, <size_t> self.n_points * sizeof(RingPoint)))
        if self.points == NULL:
            raise MemoryError("no memory for the ring of replicas")
        for i in range(<int> len(self.names)):
            for k in range(POINTS):
                digest = blake2b(f"{self.names[i]}\0{k}".encode(), digest_size=8).digest()
                self.points[i * POINTS + k].place = <uint64_t> int.from_bytes(digest, "big")
                self.points[i * POINTS + k].replica = i
        qsort(self.points, <size_t> self.n_points, sizeof(RingPoint), by_place)

    def __dealloc__(self):
        free(self.points)

    cdef int first(self, uint64_t key) noexcept:
        """The first point at or after the key's place, around the ring."""
        cdef int low = 0
        cdef int high = self.n_points
        cdef int middle
        while low < high:
            middle = (low + high) // 2
            if self.points[middle].place < key:
                low = middle + 1
            else:
                high = middle
        return low if low < self.n_points else 0

    def owner(self, uint64_t key, list up not None, list loads not None):
        """The index in `names` of the replica that has the key; -1: none is up.

        `up`: by index, whether it can be reached; `loads`: by index, what is under way there.
        """
        cdef int at, replica, _i
        cdef int fallback = -1
        cdef double bound
        alive = [load for is_up, load in zip(up, loads, strict=True) if is_up]
        if not alive:
            return -1
        bound = max(<double> FREE_LOAD, LOAD_PER_CENT * (sum(alive) + 1) / (100.0 * len(alive)))
        at = self.first(key)
        for _i in range(self.n_points):
            replica = self.points[at].replica
            if up[replica]:
                if loads[replica] < bound:
                    return replica
                if fallback < 0:
                    fallback = replica
            at = at + 1 if at + 1 < self.n_points else 0
        return fallback
