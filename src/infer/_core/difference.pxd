"""How far two outputs are apart: of one pair, and over many.

Pure functions on bytes that somebody else owns; an OutputStats has one writing thread, and may be read by others.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from infer._core.counters cimport Histogram

cdef enum:
    DIFFERENCE_SCALE = 1000000000    # histograms count differences in units of 1e-9

# An element agrees where |a - b| <= atol + rtol * |a|, `a` being the primary's; NaN agrees with NaN.
cdef struct Tolerance:
    double rtol
    double atol

# One tensor, as a reply has it.
cdef struct Output:
    const uint8_t *data
    uint64_t size_bytes
    int32_t data_type
    int32_t rank
    int64_t shape[12]

# Of one pair.
cdef struct Difference:
    int64_t elements
    int64_t unequal              # of these, beyond the tolerance
    double max_abs               # infinity: one is no number, or infinite, and the other is not
    double max_rel               # by the larger magnitude of the two
    double cosine_distance       # 1 - cosine; negative: there is none, one of them is zero or not of numbers
    int64_t top1                 # vectors along the last dimension, and those whose largest element is the same one
    int64_t top1_same
    bint comparable              # False: types or shapes are others, and nothing else is set

# Of one output over many pairs.
cdef struct OutputStats:
    int64_t compared             # pairs
    int64_t differing            # pairs with an element beyond the tolerance
    int64_t incomparable         # pairs of other types or shapes, or without a partner
    int64_t elements
    int64_t unequal
    int64_t top1
    int64_t top1_same
    double max_abs
    double max_rel
    Histogram absolute           # of each pair's largest, in units of 1 / DIFFERENCE_SCALE
    Histogram relative
    Histogram cosine             # of the distance

cdef void compare(const Output *a, const Output *b, const Tolerance *tolerance, Difference *difference) noexcept nogil
# Whether the pair agrees.
cdef bint agrees(const Difference *difference) noexcept nogil
# How bad it is, to tell the worst.
cdef double badness(const Difference *difference) noexcept nogil
cdef void count_difference(OutputStats *stats, const Difference *difference) noexcept nogil
# As Python objects: counts, largest, and quantiles of the histograms.
cdef dict described(const OutputStats *stats)

cdef class Comparison:
    cdef OutputStats *stats
    cdef Tolerance tolerance
