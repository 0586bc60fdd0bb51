"""How far outputs are apart. See difference.pxd.

Numbers are compared as doubles, BYTES element by element and whole. Top-1 is asked of reals with at least two elements
along the last dimension: what a classifier decides by.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport INFINITY, fabs, isfinite, isnan, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from infer._core.counters cimport bucket_of, count_up_to, quantile
from infer._core.element_value cimport element_value, is_real
from infer._core.span cimport Span, span_over
from infer._core.tensor_text cimport data_type_of
from infer._core.tensor_view cimport MAX_RANK, TYPE_BYTES, TYPE_NONE, element_bytes

cdef enum:
    LENGTH_BYTES = 4             # before a BYTES element

cdef enum:
    LARGEST = 4000000000000000000

# Edges of the histograms that are shown: powers of ten.
EDGES = tuple(10.0 ** power for power in range(-9, 7))


cdef inline void tally(Histogram *histogram, double difference) noexcept nogil:
    """Without the sum, which what is infinite has none of."""
    cdef double units = difference * DIFFERENCE_SCALE
    histogram.count += 1
    histogram.buckets[bucket_of(<int64_t> units if units < 4e18 else LARGEST)] += 1


cdef bint same_kind(const Output *a, const Output *b) noexcept nogil:
    cdef int32_t i
    if a.data_type != b.data_type or a.rank != b.rank:
        return False
    for i in range(a.rank):
        if a.shape[i] != b.shape[i]:
            return False
    return a.data_type == TYPE_BYTES or a.size_bytes == b.size_bytes


cdef bint take_element(const uint8_t **at, const uint8_t *end, const uint8_t **element, uint64_t *size) noexcept nogil:
    cdef uint32_t length
    if <uint64_t> (end - at[0]) < LENGTH_BYTES:
        return False
    memcpy(&length, at[0], LENGTH_BYTES)
    if length > <uint64_t> (end - at[0]) - LENGTH_BYTES:
        return False
    element[0] = at[0] + LENGTH_BYTES
    size[0] = length
    at[0] += LENGTH_BYTES + length
    return True


cdef void compare_texts(const Output *a, const Output *b, Difference *difference) noexcept nogil:
    cdef const uint8_t *left = a.data
    cdef const uint8_t *right = b.data
    cdef const uint8_t *one = NULL
    cdef const uint8_t *other = NULL
    cdef uint64_t size = 0
    cdef uint64_t other_size = 0
    cdef bint more, others
    while True:
        more = take_element(&left, a.data + a.size_bytes, &one, &size)
        others = take_element(&right, b.data + b.size_bytes, &other, &other_size)
        if not more and not others:
            return
        difference.elements += 1
        difference.unequal += not (more and others and size == other_size and memcmp(one, other, size) == 0)


cdef void compare_numbers(const Output *a, const Output *b, const Tolerance *tolerance,
                          Difference *difference) noexcept nogil:
    cdef uint64_t count = a.size_bytes // element_bytes(a.data_type)
    cdef uint64_t width = <uint64_t> a.shape[a.rank - 1] if a.rank > 0 and a.shape[a.rank - 1] > 0 else 1
    cdef bint ranked = is_real(a.data_type) and width >= 2
    cdef double dot = 0
    cdef double left = 0
    cdef double right = 0
    cdef double x, y, apart, most
    cdef double best_x = 0
    cdef double best_y = 0
    cdef uint64_t at_x = 0
    cdef uint64_t at_y = 0
    cdef uint64_t place = 0
    cdef uint64_t i
    for i in range(count):
        x = element_value(a.data, i, a.data_type)
        y = element_value(b.data, i, b.data_type)
        if ranked:
            if place == 0 or x > best_x:
                best_x = x
                at_x = place
            if place == 0 or y > best_y:
                best_y = y
                at_y = place
            place += 1
            if place == width:
                difference.top1 += 1
                difference.top1_same += at_x == at_y
                place = 0
        dot += x * y
        left += x * x
        right += y * y
        if x == y or (isnan(x) and isnan(y)):
            continue
        apart = fabs(x - y)
        if not isfinite(apart):
            difference.unequal += 1
            difference.max_abs = difference.max_rel = INFINITY
            continue
        most = max(fabs(x), fabs(y))
        difference.max_abs = max(difference.max_abs, apart)
        difference.max_rel = max(difference.max_rel, apart / most)
        difference.unequal += not apart <= tolerance.atol + tolerance.rtol * fabs(x)
    difference.elements = <int64_t> count
    if left > 0 and right > 0 and isfinite(dot) and isfinite(left) and isfinite(right):
        # Rounding may put it past either end.
        difference.cosine_distance = min(max(1 - dot / (sqrt(left) * sqrt(right)), <double> 0), <double> 2)


cdef void compare(const Output *a, const Output *b, const Tolerance *tolerance, Difference *difference) noexcept nogil:
    memset(difference, 0, sizeof(Difference))
    difference.cosine_distance = -1
    difference.comparable = same_kind(a, b)
    if not difference.comparable:
        return
    if a.data_type == TYPE_BYTES:
        compare_texts(a, b, difference)
    elif element_bytes(a.data_type) != 0:
        compare_numbers(a, b, tolerance, difference)


cdef bint agrees(const Difference *difference) noexcept nogil:
    return difference.comparable and difference.unequal == 0


cdef double badness(const Difference *difference) noexcept nogil:
    if agrees(difference):
        return 0
    if not difference.comparable:
        return INFINITY
    # Of texts there is no distance, only how many are others.
    if difference.max_rel > 0:
        return difference.max_rel
    return <double> difference.unequal / difference.elements


cdef void count_difference(OutputStats *stats, const Difference *difference) noexcept nogil:
    stats.compared += 1
    if not difference.comparable:
        stats.incomparable += 1
        return
    stats.differing += difference.unequal > 0
    stats.elements += difference.elements
    stats.unequal += difference.unequal
    stats.top1 += difference.top1
    stats.top1_same += difference.top1_same
    stats.max_abs = max(stats.max_abs, difference.max_abs)
    stats.max_rel = max(stats.max_rel, difference.max_rel)
    tally(&stats.absolute, difference.max_abs)
    tally(&stats.relative, difference.max_rel)
    if difference.cosine_distance >= 0:
        tally(&stats.cosine, difference.cosine_distance)


# For Python.

cdef dict histogram_of(const Histogram *histogram):
    """Quantiles, and pairs up to each of EDGES."""
    return {
        "count": histogram.count,
        **{f"p{round(q * 100)}": quantile(histogram, q) / DIFFERENCE_SCALE for q in (0.5, 0.9, 0.99)},
        "up_to": [count_up_to(histogram, round(edge * DIFFERENCE_SCALE)) for edge in EDGES],
    }


cdef dict described(const OutputStats *stats):
    return {
        "compared": stats.compared, "differing": stats.differing, "incomparable": stats.incomparable,
        "elements": stats.elements, "unequal": stats.unequal, "top1": stats.top1, "top1_same": stats.top1_same,
        "max_abs": stats.max_abs, "max_rel": stats.max_rel,
        "absolute": histogram_of(&stats.absolute), "relative": histogram_of(&stats.relative),
        "cosine_distance": histogram_of(&stats.cosine),
    }


cdef int fill(Output *output, tuple tensor) except -1:
    cdef bytes encoded = (<str> tensor[0]).encode()
    cdef Span name = span_over(<const uint8_t *> PyBytes_AS_STRING(encoded), <uint64_t> PyBytes_GET_SIZE(encoded))
    cdef bytes data = tensor[2]
    cdef uint64_t elements = 1
    cdef int i
    output.data_type = data_type_of(&name)
    output.rank = <int32_t> len(tensor[1])
    if output.data_type == TYPE_NONE or output.rank > MAX_RANK:
        raise ValueError(f"no such tensor: {tensor[0]} of {output.rank} dimensions")
    for i in range(output.rank):
        output.shape[i] = tensor[1][i]
        elements *= <uint64_t> output.shape[i]
    output.data = <const uint8_t *> PyBytes_AS_STRING(data)
    output.size_bytes = <uint64_t> PyBytes_GET_SIZE(data)
    if output.data_type != TYPE_BYTES and elements * element_bytes(output.data_type) != output.size_bytes:
        raise ValueError(f"a tensor {tensor[0]} {list(tensor[1])} has {output.size_bytes} bytes")
    return 0


cdef class Comparison:
    """One output over many pairs, which come as (datatype, shape, raw contents)."""

    def __cinit__(self):
        self.stats = <OutputStats *> calloc(1, sizeof(OutputStats))
        if self.stats == NULL:
            raise MemoryError("no memory for a comparison")

    def __init__(self, double rtol, double atol):
        self.tolerance.rtol = rtol
        self.tolerance.atol = atol

    def __dealloc__(self):
        free(self.stats)

    def add(self, tuple a, tuple b):
        """How bad the pair is: 0 where it agrees. None: there is no such output on that side."""
        cdef Output left, right
        cdef Difference difference
        memset(&difference, 0, sizeof(Difference))
        if a is not None and b is not None:
            fill(&left, a)
            fill(&right, b)
            with nogil:
                compare(&left, &right, &self.tolerance, &difference)
        count_difference(self.stats, &difference)
        return badness(&difference)

    def result(self):
        return described(self.stats)
