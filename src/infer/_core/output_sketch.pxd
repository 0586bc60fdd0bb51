"""How the values of a variant's outputs are distributed: counts by bins of about 3% each, one value of each reply.

One output: a value of each reply, taken in turn from anywhere in it, so that values are of different requests and a
large reply counts for no more than a small one. Bins are in the order of the values: a float's sign, its exponent
and five bits of its fraction; those that are no numbers have the last one. The bins are the sketch's own memory, taken
with the first value. One thread writes; any may read meanwhile.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    SKETCH_HALF = 8192           # bins of either sign
    SKETCH_BINS = 16385

cdef struct OutputSketch:
    int64_t count
    uint64_t turn                # chooses the next value's place
    uint32_t *bins               # NULL: nothing was counted yet, or there was no memory

cdef int bin_of(double value) noexcept nogil
cdef void sketch_add(OutputSketch *sketch, double value) noexcept nogil
# One element of a tensor; nothing of one without elements, or of BYTES.
cdef void sketch_tensor(OutputSketch *sketch, int data_type, const uint8_t *data, uint64_t size_bytes) noexcept nogil
cdef void sketch_free(OutputSketch *sketch) noexcept nogil
# {bin: count} of those that have any.
cdef dict sketch_counts(const OutputSketch *sketch)
