"""Compressed messages on one HTTP/2 connection: what Http2Session leaves to this subclass of it.

A message that is small is inflated or compressed where it comes by; a larger one becomes a CodingJob for a worker
thread, and its stream waits: the next message of the request, or of the reply, is looked at once the job is back.
"""

from libc.stdint cimport int64_t, uint64_t

from infer._core.block cimport Block
from infer._core.grpc_stream cimport Stream
from infer._core.http2_session cimport Http2Session
from infer._core.request cimport Segment

cdef enum:
    INLINE_SOURCE_BYTES = 65536      # a compressed message of more mostly holds more than that
    INLINE_DEFLATED_BYTES = 32768    # by the loop, of one reply: compressing is several times slower
    CLAIM_BYTES = 524288             # what a message is taken to inflate to at least, where it does not say,
    CLAIM_GROWTH = 4                 # as what multiple of its own length,
    CLAIM_STEP = 8                   # and with how much more once it did not fit
    LEAST_DEFLATED_BYTES = 1024      # a smaller reply gains less than it costs

# One message on its way through a worker. The worker reads the source and makes the result; everything else, and every
# reference count, is the loop thread's. What a job holds is freed when it is back, whatever has become of its call.
cdef class CodingJob:
    cdef readonly Http2Session session
    cdef Stream *stream                    # NULL once it is closed
    cdef bint inflates
    cdef bint abandoned                    # its call has ended: the worker may leave it undone
    cdef int encoding
    cdef int outcome                       # of inflating
    cdef Block *source                     # to inflate
    cdef uint64_t start
    cdef uint64_t size_bytes               # of the source; counted into the session's bytes while the job lasts
    cdef uint64_t limit_bytes              # of the result, if it inflates; counted with the source
    cdef Segment *segments                 # to compress
    cdef int n_segments
    cdef Block *result
    cdef CodingJob following               # the reply to be queued after this one
    cdef void free_source(self) noexcept

cdef class CodingSession(Http2Session):
    cdef void take_inflated(self, Stream *stream, int outcome, Block *inflated) noexcept
    cdef void inflate_later(self, Stream *stream, Block *body, uint64_t start, uint64_t size_bytes) noexcept
    cdef bint deflate_later(self, Stream *stream, const Segment *segments, int count, uint64_t size_bytes) noexcept
    cdef bint deflate_now(self, Stream *stream, const Segment *segments, int count, uint64_t size_bytes) noexcept
    # Reserves what the job may inflate to and has it run. False: it ended the call, and holds nothing.
    cdef bint start_inflating(self, Stream *stream, CodingJob job) noexcept
    cdef void count_inflating(self, CodingJob job, int sign) noexcept
    cdef bint start_job(self, CodingJob job) noexcept
    cdef void uncount_deflating(self, CodingJob job) noexcept
    cdef bint queue_job(self, Stream *stream, CodingJob job) noexcept
    cdef void finish_inflating(self, CodingJob job) noexcept
    cdef void finish_deflating(self, CodingJob job) noexcept
    # A stream of messages goes on after one that was inflated by a worker.
    cdef void go_on(self, Stream *stream) noexcept

# Compresses segments into one Block with a prefix of its own, or NULL where that gains nothing.
cdef Block *deflate_segments(int encoding, const Segment *segments, int count, uint64_t size_bytes, bint on_loop
                             ) noexcept nogil
