"""A call for a cold handler: the `Call` and, below its awaits, the `StreamCall` of the contract in infer.services.call.

Made by the session at the call's :path, which holds one reference until nghttp2 closes the stream. Loop thread only.
"""

from libc.stdint cimport int64_t, uint64_t

from infer._core.grpc_stream cimport Stream

cdef class ColdCall:
    cdef Stream *stream                    # NULL once the stream is closed
    cdef readonly str path
    cdef readonly bytes message            # of a unary call
    cdef readonly str peer
    cdef readonly str identity             # whom the client's certificate names, "" without one
    cdef bytes tenant                      # of a ModelStreamInfer: what its metadata names, or None
    cdef uint64_t routing_key              # the same, as Request has it
    cdef list fields                       # of (bytes name, bytes value), as they came
    cdef list head                         # initial metadata as it goes on the wire, or None
    cdef list trailing                     # trailing metadata as it goes on the wire, or None
    cdef int64_t deadline_ns
    cdef public object task
    cdef object timer                      # ends the call at its deadline, or None
    cdef void disarm(self) noexcept
    cdef void stop(self) noexcept
    # A whole message: the call's only one.
    cdef void put(self, bytes message) noexcept

cdef class ColdStream(ColdCall):
    cdef object inbox                      # messages not yet read: bounded by the session
    cdef readonly bint ended               # no message follows those in the inbox
    cdef public object reader              # a future that is done once there is something to read, or None
    cdef public object writer              # a future that is done once there is room to write, or None
    cdef void wake_reader(self) noexcept
    cdef void wake_writer(self) noexcept
