"""The sink of a port that serves no inference: every call ends as it begins. Loop thread."""

cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memset, strlen

from infer._core.request cimport Reply, Request, RequestSink, ResponseSink
from infer._core.status cimport STATUS_UNIMPLEMENTED

cdef const char *REFUSAL = b"inference is not served on this port (--admin-port); send the request to that of --port"


@cython.final
cdef class NoInference(RequestSink):
    cdef Request *open(self, ResponseSink sink, void *call, int64_t received_ns, int64_t deadline_ns) noexcept:
        cdef Reply reply
        memset(&reply, 0, sizeof(reply))
        reply.code = STATUS_UNIMPLEMENTED
        reply.message = REFUSAL
        reply.message_bytes = <unsigned int> strlen(REFUSAL)
        reply.pushback_ms = -1
        sink.finish(call, &reply)
        return NULL
