"""Distributions of outputs. See output_sketch.pxd."""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from infer._core.element_value cimport element_value
from infer._core.tensor_view cimport element_bytes

BINS = SKETCH_BINS

cdef enum:
    FRACTION_SHIFT = 18          # of a float's 23 bits, five are kept


cdef int bin_of(double value) noexcept nogil:
    cdef float single = <float> value
    cdef uint32_t bits
    if value != value:
        return SKETCH_BINS - 1
    memcpy(&bits, &single, sizeof(bits))
    if bits >> 31:
        return SKETCH_HALF - 1 - <int> ((bits & 0x7FFFFFFF) >> FRACTION_SHIFT)
    return SKETCH_HALF + <int> (bits >> FRACTION_SHIFT)


cdef void sketch_add(OutputSketch *sketch, double value) noexcept nogil:
    if sketch.bins == NULL:
        sketch.bins = <uint32_t *> calloc(SKETCH_BINS, sizeof(uint32_t))
        if sketch.bins == NULL:
            return
    sketch.bins[bin_of(value)] += 1
    sketch.count += 1


cdef void sketch_tensor(OutputSketch *sketch, int data_type, const uint8_t *data, uint64_t size_bytes) noexcept nogil:
    cdef uint64_t each = element_bytes(data_type)
    cdef uint64_t elements
    if each == 0 or size_bytes < each:
        return
    elements = size_bytes // each
    # Multiples of the golden ratio fall evenly over any number of places.
    sketch.turn += 0x9E3779B97F4A7C15ULL
    sketch_add(sketch, element_value(data, (sketch.turn >> 32) * elements >> 32, data_type))


cdef void sketch_free(OutputSketch *sketch) noexcept nogil:
    free(sketch.bins)
    sketch.bins = NULL


cdef dict sketch_counts(const OutputSketch *sketch):
    cdef int i
    found = {}
    if sketch.bins != NULL:
        for i in range(SKETCH_BINS):
            if sketch.bins[i]:
                found[i] = sketch.bins[i]
    return found
