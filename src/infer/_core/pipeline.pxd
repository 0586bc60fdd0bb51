"""The stages of a request in their order: open, submit, complete. The only module that knows that order.

Loop thread only. Transports call it through RequestSink; it answers through ResponseSink.
"""

from libc.stdint cimport int64_t, uint64_t

from infer._core.batch cimport Batch
from infer._core.executor cimport ExecutorPool
from infer._core.request cimport Request, RequestSink
from infer._core.router cimport RouteTable
from infer._core.tensor cimport ErrorText, InferMessage
from infer._core.timer_wheel cimport TimerWheel

cdef class Pipeline(RequestSink):
    cdef RouteTable routes
    cdef ExecutorPool pool
    cdef TimerWheel wheel
    cdef InferMessage message
    cdef ErrorText error
    cdef object loop
    cdef object timer                      # the loop's handle for the wheel's next tick, or None
    cdef int64_t timer_ns
    cdef readonly int64_t in_flight        # Requests opened and not yet freed
    cdef int64_t unrouted[17]              # calls that ended before a version was found, by code
    cdef bint kick_owed
    cdef public object after_turn          # called once after completions or expiries: transports flush there
    cdef void complete(self, Batch *batch) noexcept
