"""Arms and their numbers. See arm.pxd."""

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memset

from infer._core.counters cimport HISTOGRAM_BUCKETS, Histogram, bucket_floor, merge, observe, quantile, snapshot
from infer._core.output_sketch cimport sketch_counts, sketch_free
from infer._core.recent cimport Recent
from infer._core.status cimport STATUS_CODES, STATUS_OK
from infer._core.tensor cimport encode_text_parameter

cimport cython

OUTPUTS = SKETCHED_OUTPUTS
VARIANT_PARAMETER = "infer_variant"
VARIANT_TRAILER = "infer-variant"


@cython.final
cdef class Arm:
    """`model`, and within its split `name`: what replies are marked with."""

    def __cinit__(self, str model not None, str split not None, str name not None):
        memset(&self.stats, 0, sizeof(self.stats))
        memset(self.outputs, 0, sizeof(self.outputs))
        self.model = model
        self.split = split
        self.name = name
        self.variant = name.encode()
        self.mark = encode_text_parameter(VARIANT_PARAMETER.encode(), self.variant)

    def __dealloc__(self):
        cdef int slot
        for slot in range(SKETCHED_OUTPUTS):
            sketch_free(&self.outputs[slot])

    def remember(self, Recent recent, int32_t number=0):
        """From now on the ids of its requests are put there, with their routing keys as unit; None: nowhere."""
        self.number = number
        self.recent = recent

    @property
    def calls(self):
        """Finished requests by gRPC code."""
        cdef int code
        return [self.stats.calls[code] for code in range(STATUS_CODES)]

    @property
    def rows(self):
        return self.stats.rows

    def snapshot(self, tuple bounds_ns not None):
        """(count, sum, cumulative counts at the bounds) of all requests' ns."""
        cdef Histogram both = self.stats.succeeded
        merge(&both, &self.stats.failed)
        return snapshot(&both, bounds_ns)

    def buckets(self):
        """(smallest ns, requests) of each bucket that holds any, of those that succeeded. They may be added to those of
        another Arm, and taken from later ones of this one."""
        cdef int i
        return [(bucket_floor(i), self.stats.succeeded.buckets[i]) for i in range(HISTOGRAM_BUCKETS)
                if self.stats.succeeded.buckets[i]]

    def output_bins(self):
        """{bin: values} of each of the model's first outputs, a value of each reply while it `sketches`; none of texts.
        See output_sketch."""
        cdef int slot
        return [sketch_counts(&self.outputs[slot]) for slot in range(SKETCHED_OUTPUTS)]

    def quantile_ns(self, double q):
        """Of those that succeeded; 0 where none did."""
        return quantile(&self.stats.succeeded, q)

    def __repr__(self):
        return f"<Arm {self.name} of {self.model} split {self.split!r}>"


cdef void count_arm(Arm arm, int code, int64_t rows, int64_t duration_ns) noexcept:
    arm.stats.calls[code] += 1
    if code == STATUS_OK:
        arm.stats.rows += rows
        observe(&arm.stats.succeeded, duration_ns)
    else:
        observe(&arm.stats.failed, duration_ns)


cdef void *hold_arm(Arm arm) noexcept:
    Py_INCREF(arm)
    return <void *> arm


cdef void drop_arm(void *arm) noexcept:
    Py_DECREF(<Arm> arm)
