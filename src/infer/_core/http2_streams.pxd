"""Calls with a stream of messages either way, on one HTTP/2 connection: what CodingSession leaves to its one subclass.

Messages are handed over as they become whole, as long as the handler has few enough: then what still comes is held as
it is, at most a stream's window of it, and the window is not given back until the handler has taken some. The handler
of ModelStreamInfer is the pipeline: each message is a Request, and its reply goes out in the order of the messages.
"""

from libc.stdint cimport uint8_t, uint64_t

from infer._core.cold_call cimport ColdStream
from infer._core.grpc_stream cimport Stream
from infer._core.http2_coding cimport CodingSession
from infer._core.infer_stream cimport Slot
from infer._core.request cimport Reply, ResponseSink

# Takes the outcome of each message of a ModelStreamInfer: its `call` is a Slot. One for all sessions.
cdef class SlotSink(ResponseSink):
    pass

cdef class StreamingSession(CodingSession):
    cdef bint put_since                    # a Request was submitted since executors were last woken
    # Whether the handler has as much as it may have.
    cdef bint is_full(self, Stream *stream) noexcept
    # Hands over what has come whole, moving *data and *size_bytes on, until the handler has enough. A gRPC status.
    cdef int take_messages(self, Stream *stream, const uint8_t **data, uint64_t *size_bytes) noexcept
    # Goes on with what is held.
    cdef void pump(self, Stream *stream) noexcept
    cdef void give_window(self, Stream *stream) noexcept
    cdef void end_request(self, Stream *stream) noexcept
    cdef void slot_finished(self, Slot *slot, Reply *reply) noexcept
    cdef void settle_stream(self, Stream *stream) noexcept
    # Queues what has been answered in order. False: it ended the call.
    cdef bint pass_replies(self, Stream *stream) noexcept
    cdef void uncount_outbound(self, Stream *stream, uint64_t size_bytes) noexcept
    cdef void refuse_data(self, Stream *stream, int code) noexcept
    # The call's Stream; raises InferError once it has ended.
    cdef Stream *under_way(self, ColdStream call) except NULL
