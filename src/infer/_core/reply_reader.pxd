"""The outputs of an encoded reply, or of its tail, where they lie: what `reply` has written, read again.

nogil, any thread; owns nothing: names and contents point into the segments.
"""

from libc.stdint cimport int32_t, uint8_t, uint64_t

from infer._core.difference cimport Output
from infer._core.request cimport Segment
from infer._core.span cimport Span

cdef struct ReplyOutputs:
    int32_t count
    Span names[256]
    Output outputs[256]

# The message in `segments`, prefix included. False: it is none that `reply` writes.
cdef bint read_reply(const Segment *segments, int n_segments, ReplyOutputs *reply) noexcept nogil
# A tail (reply.encode_tail).
cdef bint read_tail(const uint8_t *tail, uint64_t size_bytes, ReplyOutputs *reply) noexcept nogil
# The output of that name, or NULL.
cdef const Output *output_named(const ReplyOutputs *reply, const char *name, uint64_t name_bytes) noexcept nogil
