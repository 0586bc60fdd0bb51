"""Sketches of outputs as a test drives them; not in wheels."""

from libc.string cimport memset

from infer._core cimport output_sketch

BINS = output_sketch.SKETCH_BINS


def bin_of(double value) -> int:
    return output_sketch.bin_of(value)


cdef class Sketch:
    cdef output_sketch.OutputSketch sketch

    def __cinit__(self):
        memset(&self.sketch, 0, sizeof(self.sketch))

    def __dealloc__(self):
        output_sketch.sketch_free(&self.sketch)

    def add(self, double value) -> None:
        output_sketch.sketch_add(&self.sketch, value)

    def tensor(self, int data_type, bytes data) -> None:
        output_sketch.sketch_tensor(&self.sketch, data_type, data, len(data))

    @property
    def count(self) -> int:
        return self.sketch.count

    def counts(self) -> dict[int, int]:
        return output_sketch.sketch_counts(&self.sketch)
