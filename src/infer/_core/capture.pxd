"""A capture: some of a version's requests and replies, copied as they leave, for a writer that takes them.

Loop thread; the writer is another, and takes what was put under the GIL.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t

from infer._core.tap cimport Tap


@cython.final
cdef class Capture(Tap):
    cdef readonly tuple versions           # VersionEntry of each that it is told of
    cdef readonly int64_t seen             # replies
    cdef readonly int64_t taken            # of these, put for the writer
    cdef int64_t dropped[3]       # picked and not taken, in the order of DROP_NAMES
    cdef readonly int64_t max_waiting
    cdef readonly int64_t max_waiting_bytes
    cdef readonly int64_t max_message_bytes
    cdef readonly int64_t per_second       # of those picked that are taken; 0: all
    cdef object put                        # called with each record
    cdef uint64_t threshold
    cdef uint64_t drawn
    cdef int64_t second_ns                 # when the second that is counted began
    cdef int64_t in_second
    cdef int64_t put_bytes
    cdef readonly int64_t done             # records that the writer has done with, and their bytes
    cdef readonly int64_t done_bytes
