"""google.rpc.Status with a RetryInfo: `grpc-status-details-bin` of a refusal that says when to try again.

Functions without state. Sources: googleapis `google/rpc/status.proto` and `error_details.proto`; RFC 4648 for base64,
which gRPC's `doc/PROTOCOL-HTTP2.md` asks to be sent without padding.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    BUSY_PUSHBACK_MS = 100           # when to try again: what is held goes with the next answers, at no known pace
    RETRY_OVERHEAD_BYTES = 77        # beside the message: its head 3, the code 11, the detail with the longest delay 63

# The message whole, UTF-8 of less than 2^14 bytes; `pushback_ms` from 0. Writes size of message + RETRY_OVERHEAD_BYTES
# at most and returns the bytes written.
cdef uint32_t write_retry_status(uint8_t *to, int code, const char *message, uint32_t message_bytes,
                                 int64_t pushback_ms) noexcept nogil
# Writes ceil(size_bytes * 4 / 3) characters and returns how many.
cdef uint32_t encode_base64(const uint8_t *data, uint32_t size_bytes, uint8_t *to) noexcept nogil
