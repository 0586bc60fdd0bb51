"""Drives an ssl.SSLObject. See tls_layer.pxd.

Sources: RFC 8446, RFC 5246; RFC 9113, 9.2 for what HTTP/2 asks of TLS.
"""

import ssl

cimport cython

want_read = ssl.SSLWantReadError
ssl_error = ssl.SSLError
new_buffer = ssl.MemoryBIO


@cython.final
cdef class TlsLayer:
    """Made for one accepted connection from an ssl.SSLContext that is set up for it."""

    def __init__(self, context not None):
        self.incoming = new_buffer()
        self.outgoing = new_buffer()
        self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.reason = ""

    cdef int put(self, object data) except -1:
        self.incoming.write(data)
        return 0

    cdef Py_ssize_t read(self, object room) except? -100:
        cdef Py_ssize_t size_bytes
        if self.ended:
            return TLS_OVER
        try:
            if not self.established:
                self.ssl.do_handshake()
                if self.ssl.selected_alpn_protocol() != "h2":
                    self.ended = True
                    return TLS_NO_H2
                self.established = True
            # A read takes a record whole: with nothing buffered there is none, and finding that out is costly.
            if not self.incoming.pending:
                return TLS_MORE
            size_bytes = self.ssl.read(RECORD_BYTES, room)
        except want_read:
            return TLS_MORE
        except ssl_error as error:
            self.ended = True
            self.reason = error.reason or str(error)
            return TLS_FAILED
        return size_bytes if size_bytes > 0 else <Py_ssize_t> TLS_OVER

    cdef Py_ssize_t pending_bytes(self) except -1:
        return self.outgoing.pending

    cdef list encrypt(self, list pieces):
        cdef list records = []
        cdef Py_ssize_t at, size_bytes
        for piece in pieces:
            view = memoryview(piece)
            size_bytes = view.nbytes
            if size_bytes <= SLICE_BYTES:
                self.ssl.write(piece)
            else:
                for at in range(0, size_bytes, SLICE_BYTES):
                    self.ssl.write(view[at:at + SLICE_BYTES])
                    records.append(self.outgoing.read())
        if self.outgoing.pending:
            records.append(self.outgoing.read())
        return records

    cdef int end(self) except -1:
        if self.ended:
            return 0
        self.ended = True
        if self.established:
            try:
                self.ssl.unwrap()
            except ssl_error:
                # Want-read, as the peer's close_notify is still to come; or the peer was first to end it.
                return 0
        return 0

    def peer_identity(self):
        """Whom the client's certificate names: its URIs, else its DNS names, else its subject; "" without one."""
        if self.identity is None and self.established:
            found = self.ssl.getpeercert() or {}
            names = found.get("subjectAltName", ())
            subject = [f"{key}={value}" for part in found.get("subject", ()) for key, value in part]
            self.identity = (",".join(value for kind, value in names if kind == "URI")
                             or ",".join(value for kind, value in names if kind == "DNS") or ",".join(subject))
        return self.identity or ""

    def peer_tenant(self):
        """The one URI that the client's certificate names, b"" for none or several of them."""
        found = self.ssl.getpeercert() or {} if self.established else {}
        uris = [value for kind, value in found.get("subjectAltName", ()) if kind == "URI"]
        return uris[0].encode() if len(uris) == 1 else b""

    def peer_certificate(self):
        """The client's certificate as DER, or None where it was not asked for one."""
        return self.ssl.getpeercert(True) if self.established else None
