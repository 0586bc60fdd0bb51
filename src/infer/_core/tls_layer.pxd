"""TLS between a Connection and its socket: records in, plaintext out, and back. No I/O.

OpenSSL is driven through Python's ssl module over two memory buffers, a few calls per socket read and per flush. Loop
thread only. A connection whose handshake does not end in ALPN h2 is over.
"""

cdef enum TlsOutcome:
    TLS_MORE = 0                 # nothing to read until more comes
    TLS_OVER = -1                # the peer said close_notify
    TLS_FAILED = -2              # no handshake, or a record that is none: `reason` says what was wrong
    TLS_NO_H2 = -3               # the handshake is done, and the two did not agree on h2

cdef class TlsLayer:
    cdef object ssl                        # ssl.SSLObject
    cdef object incoming                   # ssl.MemoryBIO: of the socket, not yet read
    cdef object outgoing                   # ssl.MemoryBIO: for the socket, not yet taken
    cdef readonly bint established         # the handshake is done: plaintext may be sent
    cdef readonly bint ended               # nothing more can be said
    cdef readonly str reason
    cdef str identity                      # of the client, once it was asked for
    # What came from the socket; `read` until TLS_MORE before the next. At most SLICE_BYTES, so that buffers stay small.
    cdef int put(self, object data) except -1
    # Bytes of plaintext put into `room` (RECORD_BYTES at least), or a TlsOutcome.
    cdef Py_ssize_t read(self, object room) except? -100
    # Whether something waits for the socket: of the handshake, alerts.
    cdef Py_ssize_t pending_bytes(self) except -1
    # What the socket has to send for `pieces` of plaintext and for the protocol itself; may be empty.
    cdef list encrypt(self, list pieces)
    # Says close_notify; the peer's is not waited for.
    cdef int end(self) except -1

cdef enum:
    SLICE_BYTES = 32768
    RECORD_BYTES = 16384         # plaintext of one record at most (RFC 8446, 5.1)
    PENDING_BYTES = 65536        # what the protocol itself may have waiting for a peer that does not read
