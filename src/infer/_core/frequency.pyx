"""A count-min sketch of 4-bit counters. See frequency.pxd."""

from libc.stdlib cimport free
from libc.string cimport memset

from infer._core.debug cimport try_calloc

cdef enum:
    ROWS = 4
    WORDS_LEAST = 16
    WORDS_MOST = 131072          # 1 MiB: it is halved in one go, on the loop
    SAMPLE_SHARE = 20            # keys counted per word between two halvings

cdef uint64_t LOW_THREE_BITS = 0x7777777777777777ULL


cdef int frequency_init(Frequency *frequency, uint64_t keys) noexcept nogil:
    cdef uint64_t words = WORDS_LEAST
    memset(frequency, 0, sizeof(Frequency))
    # Two keys to a word: eight counters for each.
    while words < keys // 2 and words < WORDS_MOST:
        words *= 2
    frequency.words = <uint64_t *> try_calloc(words, sizeof(uint64_t))
    if frequency.words == NULL:
        return -1
    frequency.mask = words - 1
    frequency.sample = <int64_t> words * SAMPLE_SHARE
    return 0


cdef void frequency_free(Frequency *frequency) noexcept nogil:
    free(frequency.words)
    frequency.words = NULL


cdef inline uint64_t place_of(uint64_t low, uint64_t high, int row) noexcept nogil:
    """Kirsch and Mitzenmacher (2006): two hashes do for any number."""
    return low + <uint64_t> row * (high | 1)


cdef void halve(Frequency *frequency) noexcept nogil:
    cdef uint64_t i
    for i in range(frequency.mask + 1):
        frequency.words[i] = (frequency.words[i] >> 1) & LOW_THREE_BITS
    frequency.added //= 2


cdef void frequency_add(Frequency *frequency, uint64_t low, uint64_t high) noexcept nogil:
    cdef uint64_t place, shift
    cdef uint64_t *word
    cdef int row
    for row in range(ROWS):
        place = place_of(low, high, row)
        word = &frequency.words[(place >> 4) & frequency.mask]
        shift = (place & 15) * 4
        if ((word[0] >> shift) & FREQUENCY_MOST) < FREQUENCY_MOST:
            word[0] += <uint64_t> 1 << shift
    frequency.added += 1
    if frequency.added >= frequency.sample:
        halve(frequency)


cdef int frequency_of(const Frequency *frequency, uint64_t low, uint64_t high) noexcept nogil:
    cdef int least = FREQUENCY_MOST
    cdef int count, row
    cdef uint64_t place
    for row in range(ROWS):
        place = place_of(low, high, row)
        count = <int> ((frequency.words[(place >> 4) & frequency.mask] >> ((place & 15) * 4)) & FREQUENCY_MOST)
        if count < least:
            least = count
    return least
