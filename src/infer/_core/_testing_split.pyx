"""Splits over a million keys, and what is remembered of requests, at C speed; not in wheels."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memset

from infer._core.clock cimport now_ns
from infer._core.recent cimport Recent, recent_find, recent_put
from infer._core.split cimport MAX_ARMS, key_hash, split_choose
from infer._core.variants cimport Split


def contingency(Split first not None, Split second not None, int64_t keys) -> list[list[int]]:
    """How many of the keys user-0, user-1, ... go to each arm of the first and, at once, to each of the second."""
    cdef int64_t counts[MAX_ARMS][MAX_ARMS]
    cdef char text[32]
    cdef uint64_t key
    cdef int64_t i
    memset(counts, 0, sizeof(counts))
    with nogil:
        for i in range(keys):
            key = key_hash(<uint8_t *> text, <uint64_t> snprintf(text, 32, "user-%lld", <long long> i))
            counts[split_choose(&first.table, key)][split_choose(&second.table, key)] += 1
    return [[counts[i][j] for j in range(len(second.arms))] for i in range(len(first.arms))]


def choices(Split split not None, int64_t rounds) -> int:
    """ns for so many keys that are hashed already."""
    cdef int64_t start = now_ns()
    cdef int64_t i
    cdef int64_t sum = 0
    for i in range(rounds):
        sum += split_choose(&split.table, <uint64_t> i * 0x9e3779b97f4a7c15ULL)
    return now_ns() - start + (sum & 0)


def puts(Recent recent not None, int64_t rounds) -> int:
    """ns for so many hashes that come to a table, which is full after the first `capacity` of them."""
    cdef uint64_t hash = 1
    cdef int64_t start, i
    for i in range(recent.table.capacity):
        hash += 0x9e3779b97f4a7c15ULL
        recent_put(&recent.table, hash, hash, 0, i)
    start = now_ns()
    with nogil:
        for i in range(rounds):
            hash += 0x9e3779b97f4a7c15ULL
            recent_put(&recent.table, hash, hash, 0, i)
    return now_ns() - start


def finds(Recent recent not None, int64_t rounds) -> int:
    """ns for so many looks for hashes, of which a table without room for them has none."""
    cdef uint64_t hash = 1
    cdef int64_t start = now_ns()
    cdef int64_t _i
    cdef int64_t found = 0
    with nogil:
        for _i in range(rounds):
            hash += 0x9e3779b97f4a7c15ULL
            found += recent_find(&recent.table, hash) != NULL
    return now_ns() - start + (found & 0)
