"""Calls for cold handlers. See cold_call.pxd.

Sources: gRPC `doc/PROTOCOL-HTTP2.md` for what metadata may look like.
"""

import re
from base64 import b64decode, b64encode
from collections import deque

from infer._core.clock cimport now_ns

from infer import errors

cdef enum:
    FIELD_OVERHEAD_BYTES = 32
    # Of a reply's initial or trailing metadata, each field with its overhead: what clients take by default.
    METADATA_BYTES = 16384

cdef frozenset TRANSPORT_FIELDS = frozenset([
    b"content-type", b"te", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding"])
# What a handler may not set: the transport's own, and those of HTTP that HTTP/2 forbids.
cdef frozenset RESERVED_FIELDS = frozenset([
    "content-type", "te", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"])
STATUS_DETAILS = "grpc-status-details-bin"
NAME = re.compile("[0-9a-z_.-]+")
TEXT = re.compile("[\x20-\x7e]*")


def encode_metadata(pairs):
    """(key, value) of a handler as they go on the wire, or ValueError: which, what was expected, what came."""
    encoded = []
    size_bytes = 0
    for key, value in pairs:
        if not isinstance(key, str) or NAME.fullmatch(key) is None:
            raise ValueError(f"metadata key {key!r}: expected digits, lower-case letters, '_', '-' and '.'")
        if key in RESERVED_FIELDS or key.startswith("grpc-") and key != STATUS_DETAILS:
            raise ValueError(f"metadata key {key!r} is the transport's own; choose another")
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise ValueError(f"metadata {key!r}: expected bytes, since the key ends in -bin, got {value!r}")
            content = b64encode(value).rstrip(b"=")
        elif not isinstance(value, str) or TEXT.fullmatch(value) is None or value != value.strip(" "):
            raise ValueError(f"metadata {key!r}: expected printable ASCII without spaces at its ends, got {value!r}; "
                             "send other values as bytes, under a key that ends in -bin")
        else:
            content = value.encode()
        size_bytes += len(key) + len(content) + FIELD_OVERHEAD_BYTES
        encoded.append((key.encode(), content))
    if size_bytes > METADATA_BYTES:
        raise ValueError(f"the metadata has {size_bytes} bytes (keys, values and 32 each), at most {METADATA_BYTES} "
                         "can be sent")
    return encoded


cdef class ColdCall:
    """A unary call for an async handler: request bytes in, reply bytes out, metadata, deadline, `abort`.

    `metadata` is a tuple of (key, value): str values, bytes for keys that end in `-bin`. What the transport itself
    reads is not among it.
    """

    def __cinit__(self):
        self.stream = NULL
        self.deadline_ns = 0
        self.task = None
        self.timer = None

    cdef void disarm(self) noexcept:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    cdef void stop(self) noexcept:
        """The call has ended without its handler: it is cancelled."""
        self.disarm()
        if self.task is not None:
            self.task.cancel()

    cdef void put(self, bytes message) noexcept:
        self.message = message

    @property
    def metadata(self):
        pairs = []
        for name, value in self.fields:
            if name in TRANSPORT_FIELDS:
                continue
            if name.endswith(b"-bin"):
                pairs.extend((name.decode(), decode_binary(part)) for part in value.split(b","))
            else:
                pairs.append((name.decode(), value.decode("ascii", "replace")))
        return tuple(pairs)

    @property
    def cancelled(self):
        """Whether the caller is gone."""
        return self.stream == NULL

    def time_remaining(self):
        """Seconds until the deadline, or None where the call has none."""
        if self.deadline_ns == 0:
            return None
        return max(0.0, (self.deadline_ns - now_ns()) / 1e9)

    def send_initial_metadata(self, pairs):
        """Goes with the head of the reply; at most once a call. Raises ValueError for what cannot be sent."""
        if self.head is not None or self.stream != NULL and self.stream.headed:
            raise ValueError(f"{self.path}: the head of the reply was sent before, or its metadata set")
        self.head = encode_metadata(pairs)

    def set_trailing_metadata(self, pairs):
        """Goes with the status, whatever that will be; the last call counts. ValueError for what cannot be sent."""
        self.trailing = encode_metadata(pairs)

    def abort(self, int code, str message not None):
        """Ends the call with a gRPC status other than OK, by raising InferError."""
        raise errors.InferError(message, code)


cdef class ColdStream(ColdCall):
    """A call with a stream of messages either way. The session fills the inbox and takes what is written."""

    def __cinit__(self):
        self.inbox = deque()
        self.ended = False
        self.reader = None
        self.writer = None

    cdef void put(self, bytes message) noexcept:
        self.inbox.append(message)
        self.wake_reader()

    cdef void wake_reader(self) noexcept:
        if self.reader is not None and not self.reader.done():
            self.reader.set_result(None)

    cdef void wake_writer(self) noexcept:
        if self.writer is not None and not self.writer.done():
            self.writer.set_result(None)


def decode_binary(value):
    """Base64 of a `-bin` metadata value, padded or not; raises ValueError where it is neither."""
    # A C remainder is negative where the dividend is.
    return b64decode(value + b"=" * (3 - (len(value) + 3) % 4), validate=True)
