"""Arm: a variant of a model as requests and their callers see it - its name, and what became of what was sent to it.

Made by Python and kept for as long as its split goes on, over any number of route tables. A Request that was given to
it holds a reference, from `hold_arm` until `drop_arm`. Loop thread, but that a scrape reads the numbers.
"""

from libc.stdint cimport int32_t, int64_t

from infer._core.counters cimport Histogram
from infer._core.output_sketch cimport OutputSketch
from infer._core.recent cimport Recent

# Written by the loop thread alone.
cdef struct ArmStats:
    int64_t calls[17]            # finished requests by gRPC code
    int64_t rows                 # of those that succeeded
    Histogram succeeded          # ns from the call's first byte to its reply handed to the transport
    Histogram failed             # the same, of those that did not succeed

cdef enum:
    SKETCHED_OUTPUTS = 8         # the first ones of a model: each sketch has memory of its own

cdef class Arm:
    cdef ArmStats stats
    cdef public bint sketches    # whether somebody wants to know how outputs are distributed
    cdef OutputSketch outputs[8]
    cdef readonly str model      # whose requests it takes
    cdef readonly str split
    cdef readonly str name
    cdef readonly Recent recent  # the ids of its requests; None: nobody asks for them
    cdef int32_t number          # what they are remembered with
    cdef bytes variant           # the name, as a trailer has it
    cdef bytes mark              # the name, as a parameter of a reply, encoded

cdef void count_arm(Arm arm, int code, int64_t rows, int64_t duration_ns) noexcept
# A reference for whoever keeps the pointer; paired with drop_arm.
cdef void *hold_arm(Arm arm) noexcept
cdef void drop_arm(void *arm) noexcept
