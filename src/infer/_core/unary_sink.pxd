"""Where a transport that has whole messages as `bytes` meets the pipeline: a call in, a future out.

Loop thread only. A UnaryCall holds its Request from `submit` until the pipeline has answered or the transport cancels;
the sink holds the UnaryCall for as long. The message is copied into a Block, the reply out of its Blocks.

Such a transport hands over one call per turn of the loop, however many have come. To wake an executor for each would
cost more than a small model's run, so calls that overlap wait for one another, GATHER_NS at most: until as many wait as
were lately under way together. A call without company, and one of a model whose run takes longer than that, does not
wait.
"""

from libc.stdint cimport int64_t, uint64_t

from infer._core.request cimport Request, RequestSink, ResponseSink

cdef enum:
    GATHER_NS = 1000000          # the least that a timer of uvloop can wait
    WINDOW_NS = 16000000         # calls that overlapped longer ago are no company

cdef class UnaryCall:
    cdef UnarySink sink
    cdef Request *request                  # NULL once answered or cancelled
    cdef int64_t deadline_ns               # 0: none
    cdef uint64_t size_bytes
    cdef readonly object future            # of bytes, or of a Refusal
    cdef readonly bint final_asked         # the caller wants a reply marked as the last one; known with it
    cdef readonly bytes variant            # that it was given to, known with the outcome; None: none
    cdef void end(self, int code) except *

# A status other than OK, as the result of a call's future.
cdef class Refusal:
    cdef readonly int code
    cdef readonly str message
    cdef readonly int64_t pushback_ms      # -1: none
    cdef readonly str id                   # the request's, "" where it could not be read

cdef class UnarySink(ResponseSink):
    cdef RequestSink requests
    cdef object loop
    cdef object create_future
    cdef object kick_later                 # bound once: `kick` as a callback
    cdef bint kicking                      # the callback is with the loop
    cdef object timer                      # or this timer has it; None
    cdef int64_t kicked_ns                 # when executors were woken for a call not yet answered; 0: none is
    cdef int64_t answer_ns                 # from a wake to its first answer, the last time
    cdef int64_t window_ns                 # when the window of `peak_next` began
    cdef int64_t peak                      # most calls that were under way together in the window before this one
    cdef int64_t peak_next                 # in this one, so far
    cdef int64_t waiting                   # calls put since executors were woken
    cdef uint64_t limit_bytes
    cdef set calls                         # those that hold a Request
    cdef readonly uint64_t buffered_bytes  # of their messages
    cdef readonly int64_t refused_buffered
    cdef void release(self, UnaryCall call) except *
    cdef bint is_due(self, int64_t received_ns) noexcept
