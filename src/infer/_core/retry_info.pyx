"""Writes google.rpc.Status with a RetryInfo. See retry_info.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from infer._core.wire cimport (
    WIRE_BYTES, WIRE_VARINT, bytes_field_size, varint_size, write_bytes, write_tag, write_varint)

cdef const char *TYPE_URL = "type.googleapis.com/google.rpc.RetryInfo"
cdef const char *BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

cdef enum:
    TYPE_URL_BYTES = 40
    LONGEST_TEXT_BYTES = 16383


cdef uint64_t varint_field_size(uint64_t value) noexcept nogil:
    """Of a field with a number below 16; 0 is not written."""
    return 1 + varint_size(value) if value else 0


cdef uint8_t *write_varint_field(uint8_t *to, uint32_t number, uint64_t value) noexcept nogil:
    return write_varint(write_tag(to, number, WIRE_VARINT), value) if value else to


cdef uint8_t *write_head(uint8_t *to, uint32_t number, uint64_t size_bytes) noexcept nogil:
    """Of a submessage."""
    return write_varint(write_tag(to, number, WIRE_BYTES), size_bytes)


cdef uint32_t write_retry_status(uint8_t *to, int code, const char *message, uint32_t message_bytes,
                                 int64_t pushback_ms) noexcept nogil:
    cdef uint8_t *start = to
    cdef uint64_t seconds = <uint64_t> pushback_ms // 1000
    cdef uint64_t nanos = <uint64_t> pushback_ms % 1000 * 1000000
    cdef uint64_t duration_bytes = varint_field_size(seconds) + varint_field_size(nanos)
    cdef uint64_t info_bytes = 1 + varint_size(duration_bytes) + duration_bytes
    cdef uint64_t any_bytes = bytes_field_size(TYPE_URL_BYTES) + 2 + info_bytes
    to = write_varint_field(to, 1, <uint64_t> <int64_t> code)
    if message_bytes > 0:
        to = write_bytes(to, 2, message, message_bytes)
    to = write_head(to, 3, any_bytes)
    to = write_bytes(to, 1, TYPE_URL, TYPE_URL_BYTES)
    to = write_head(to, 2, info_bytes)
    to = write_head(to, 1, duration_bytes)
    to = write_varint_field(to, 1, seconds)
    to = write_varint_field(to, 2, nanos)
    return <uint32_t> (to - start)


cdef uint32_t encode_base64(const uint8_t *data, uint32_t size_bytes, uint8_t *to) noexcept nogil:
    cdef uint8_t *start = to
    cdef uint32_t bits = 0
    cdef int n_bits = 0
    cdef uint32_t i
    for i in range(size_bytes):
        bits = bits << 8 | data[i]
        n_bits += 8
        while n_bits >= 6:
            n_bits -= 6
            to[0] = BASE64[bits >> n_bits & 63]
            to += 1
        bits &= 63
    if n_bits > 0:
        to[0] = BASE64[bits << (6 - n_bits) & 63]
        to += 1
    return <uint32_t> (to - start)


def retry_status(code: int, message: str, pushback_ms: int) -> bytes:
    """The google.rpc.Status, for a transport that encodes metadata itself."""
    cdef bytes text = message.encode()
    cdef bytearray room
    if len(text) > LONGEST_TEXT_BYTES or pushback_ms < 0:
        raise ValueError(f"expected a message of at most {LONGEST_TEXT_BYTES} bytes and a delay from 0 ms, got "
                         f"{len(text)} bytes and {pushback_ms} ms")
    room = bytearray(len(text) + RETRY_OVERHEAD_BYTES)
    return bytes(room[:write_retry_status(<uint8_t *> <char *> room, code, <const char *> text, <uint32_t> len(text),
                                          pushback_ms)])
