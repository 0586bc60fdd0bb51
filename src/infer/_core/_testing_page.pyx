"""A page that the native transport serves to GET, for clients that test HTTP/2 and know nothing of gRPC; not in wheels.

It is a cold stream like any other, but that its request need not be gRPC's: its handler writes what the page holds.
"""

from infer._core.cold_call cimport ColdCall
from infer._core.grpc_stream cimport SEEN_GRPC, SEEN_POST, Stream
from infer._core.http2_streams cimport StreamingSession
from infer._core.protocol cimport Connection, Endpoint

PATH = "/h2spec"


cdef class PageSession(StreamingSession):

    def __cinit__(self):
        # Such clients take the frame size that HTTP/2 begins with for the one that is agreed on.
        self.frame_bytes = 16384

    cdef void headers_end(self, Stream *stream, bint end_stream) noexcept:
        if stream.cold != NULL and (<ColdCall> stream.cold).path == PATH:
            stream.seen |= <int> SEEN_POST | <int> SEEN_GRPC
        StreamingSession.headers_end(self, stream, end_stream)


cdef class PageConnection(Connection):

    cdef StreamingSession new_session(self):
        return PageSession.__new__(PageSession)


def connection(endpoint: Endpoint) -> Connection:
    """A protocol for one accepted connection of `endpoint`, whose handlers have a stream at PATH."""
    cdef PageConnection made = PageConnection.__new__(PageConnection)
    made.endpoint = endpoint
    return made
