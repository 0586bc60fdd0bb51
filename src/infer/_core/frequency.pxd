"""How often each of very many keys came lately, roughly and in little memory: a count-min sketch that ages.

One thread. Four counters of 4 bits stand for a key, the least of which is its count; once as many came as the sketch
samples, all are halved. Source: Einziger, Friedman, Manes, "TinyLFU: a highly efficient cache admission policy" (2017).
"""

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    FREQUENCY_MOST = 15          # a counter goes no higher

cdef struct Frequency:
    uint64_t *words              # sixteen counters each
    uint64_t mask                # of words
    int64_t added                # since the last halving, that one's half included
    int64_t sample               # halved at so many

cdef int frequency_init(Frequency *frequency, uint64_t keys) noexcept nogil     # -1: no memory
cdef void frequency_free(Frequency *frequency) noexcept nogil
cdef void frequency_add(Frequency *frequency, uint64_t low, uint64_t high) noexcept nogil
cdef int frequency_of(const Frequency *frequency, uint64_t low, uint64_t high) noexcept nogil
