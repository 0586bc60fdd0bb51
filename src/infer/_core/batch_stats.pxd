"""What a finished batch says of its version: its runs by size, and the pace. Loop thread."""

from infer._core.batch cimport Batch
from infer._core.model_version cimport VersionEntry

cdef void count_batch(VersionEntry entry, const Batch *batch) noexcept
