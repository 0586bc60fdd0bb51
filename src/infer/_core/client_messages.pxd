# The messages of one streaming call of the client: no HTTP/2, no I/O. See client_messages.pyx.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    PREFIX_BYTES = 5

# Zero in all fields is a call without messages. `request` is sent again for every message.
cdef struct Messages:
    int64_t *scheduled_ns      # ring of `capacity`: times of the messages under way, oldest at `head`; lent
    uint32_t capacity
    uint32_t head
    uint32_t under_way         # put and not answered
    uint32_t unsent            # of those, not yet wholly handed out; the first may be in part
    bint ending                # nothing is put any more: the request ends after what is unsent
    bint keep_next             # the next reply is to be kept
    uint32_t prefix_read       # bytes of the current reply's prefix that have come
    uint32_t reply_bytes       # as that prefix announces
    uint32_t reply_read        # bytes of that reply's message that have come
    uint8_t first_byte         # of that message
    uint64_t surplus           # replies that answer nothing that was sent

cdef inline bint has_room(const Messages *messages) noexcept nogil:
    return messages.under_way < messages.capacity and not messages.ending

# Only while has_room.
cdef void put_message(Messages *messages, int64_t scheduled_ns) noexcept nogil
cdef inline bint awaits_reply(const Messages *messages) noexcept nogil:
    return messages.under_way > messages.unsent

# When the oldest message under way, which is taken out, was scheduled. Only while there is one.
cdef int64_t take_scheduled(Messages *messages) noexcept nogil
# Writes as many unsent messages as fit, the last perhaps in part; `*sent_bytes` of the first are out. Bytes written.
cdef size_t write_messages(
    Messages *messages, const uint8_t *request, size_t request_bytes, size_t *sent_bytes, uint8_t *out,
    size_t capacity) noexcept nogil
# Takes up to the end of one reply from `data`; *whole says that it is there. Bytes taken.
cdef size_t read_message(Messages *messages, const uint8_t *data, size_t size, bint *whole) noexcept nogil
