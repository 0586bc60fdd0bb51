"""The end of every call: its answer handed to the transport, what it counts for, and its Request freed.

The base of the Pipeline, which says when a call ends; this is how. Loop thread only.
"""

from libc.stdint cimport int64_t

from infer._core.batch cimport Batch
from infer._core.block cimport Block
from infer._core.model_version cimport VersionEntry
from infer._core.request cimport Request, Segment
from infer._core.tensor cimport ErrorText
from infer._core.timer_wheel cimport TimerWheel
from infer._core.version_queues cimport VersionQueues

cdef class Answers(VersionQueues):
    cdef TimerWheel wheel
    cdef ErrorText error                   # the text that `answer` gives
    cdef Segment segments[514]
    cdef object loop
    cdef bint leading                      # `lead_again` is about to be called
    cdef bint triton_codes
    cdef int refusal                       # why a queue refused what is about to be answered, or ADMITTED
    cdef readonly int64_t in_flight        # Requests opened and not yet freed
    cdef int64_t unrouted[17]              # calls that ended before a version was found, by code
    cdef public object on_run_failure      # called as (VersionEntry, text) for each batch whose run failed, or None
    cdef public object after_turn          # called once after completions or expiries: transports flush there
    # Puts one that has waited for another's run into its queue. The Pipeline's.
    cdef void enter_alone(self, Request *request) noexcept
    cdef void say_late(self, Request *request) noexcept
    cdef int say_no_reply(self, Request *request) noexcept
    # Ends the call with `code` and the text in `error`; frees the Request unless its batch still runs.
    cdef void answer(self, Request *request, int code, int64_t pushback_ms) noexcept
    # Ends it with the message in `segments`.
    cdef void send(self, Request *request, int n_segments) noexcept
    # Encodes the item's rows and sends them; False: no memory.
    cdef bint reply(self, Request *request, Batch *batch, int index) noexcept
    # Or what the cache or another server has.
    cdef void send_kept(self, Request *request, Block *block) noexcept
    # Keeps what an item came to, and answers those that waited for it.
    cdef void share(self, Request *leader, Batch *batch, int index) noexcept
    cdef void report(self, VersionEntry entry, Block *detail) noexcept
    cdef void count(self, Request *request, int code) noexcept
    cdef void retire(self, Request *request) noexcept
