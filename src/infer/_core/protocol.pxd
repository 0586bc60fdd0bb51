"""Sockets to sessions: an asyncio BufferedProtocol per connection, and the Endpoint that they share.

Loop thread only. Bytes are read into the Endpoint's one buffer and written once per loop turn and connection.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from infer._core.http2_limits cimport Limits, TransportStats
from infer._core.http2_session cimport Http2Session
from infer._core.http2_streams cimport StreamingSession
from infer._core.request cimport RequestSink
from infer._core.tls_layer cimport TlsLayer

cdef class Endpoint:
    cdef Limits limits
    cdef TransportStats stats
    cdef RequestSink sink
    cdef bytes tenant_key                  # keeps what the limits point to
    cdef bytes routing_key                 # the same, as a split has it
    cdef dict handlers
    cdef dict streaming
    cdef object spawn
    cdef object arm
    cdef object offload
    cdef list flushes                      # connections with something to write at the end of this turn
    cdef set connections
    cdef bytearray read_room
    cdef object read_view
    cdef uint8_t *read_bytes
    cdef object tls_context                # ssl.SSLContext of connections to come
    cdef object on_tls_failure
    cdef bytearray plain_room              # what one record held; fed before the next is read
    cdef object plain_view
    cdef uint8_t *plain_bytes
    cdef int64_t max_connections
    cdef int64_t outbound_bytes
    cdef object soon                       # soon(function): has it called in the next turn of the loop
    cdef int64_t preface_timeout_ns        # until the preface and the peer's SETTINGS are here
    cdef int64_t settings_timeout_ns       # until it has acknowledged ours
    cdef int64_t write_stall_timeout_ns
    cdef int64_t keepalive_ns              # without a byte from the peer, until it is asked; 0: never, as below
    cdef int64_t keepalive_timeout_ns      # from then on, until it is taken for dead
    cdef int64_t idle_ns                   # without a stream
    cdef int64_t age_ns
    cdef int64_t age_grace_ns
    cdef int64_t checked_ns                # when `check_timeouts` last ran
    cdef object on_idle                    # called when the last connection is gone
    cdef bint draining
    cdef void check(self, Connection connection, int64_t now) except *
    cdef void watch_reader(self, Connection connection, int64_t now) except *
    cdef bint check_peer(self, Connection connection, int64_t now) except *
    cdef void check_life(self, Connection connection, int64_t now) except *
    cdef void closed(self, Connection connection) except *

cdef class Connection:
    cdef Endpoint endpoint
    cdef Http2Session session
    cdef object transport
    cdef TlsLayer tls                      # or None
    cdef int64_t opened_ns
    cdef int64_t stalled_ns                # since when the socket takes nothing; 0: it takes all
    cdef int64_t waiting_ns                # since when replies wait for the peer to open a window; 0: they do not
    cdef int64_t closing_ns                # since when all is said and the peer has not read it; 0: not yet
    cdef int64_t asked_ns                  # since when a sign of life is awaited; 0: it is not
    cdef int64_t idle_ns                   # since when there has been no stream
    cdef int64_t age_ns                    # after which the connection is drained; 0: never
    cdef int64_t draining_ns               # since when it is drained; 0: it is not
    cdef int64_t streams                   # opened, when last looked at
    cdef uint64_t handed_bytes             # of replies, when last looked at
    cdef uint8_t *reading_into             # a message's place, where the read under way goes there; else NULL
    cdef int64_t unsent_bytes              # that the socket had not taken when last looked at; 0: it takes all
    cdef bytes rest                        # of a read, for turns to come: reading is paused meanwhile; else None
    cdef Py_ssize_t rest_at
    cdef bint filled                       # the last read left no room: the loop may read on in the same turn
    cdef bint failed
    cdef bint lingering                    # all is said, and what still comes is dropped until the peer closes
    # What speaks HTTP/2 here; not yet started.
    cdef StreamingSession new_session(self)
    cdef void drain(self, int64_t now, const char *reason) except *
    cdef void end_calls(self, bytes message) except *
    cdef void flush(self) except *
    cdef void send(self) except *
    # What is read in this turn: how much of it has been consumed.
    cdef Py_ssize_t consume(self, const uint8_t *data, object view, Py_ssize_t size_bytes) except -1
    cdef void after_input(self) except *
    cdef void decrypt(self, object piece) except *
    cdef bint send_tls(self) except *
    cdef void finish(self) except *
