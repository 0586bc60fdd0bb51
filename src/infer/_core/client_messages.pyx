"""The messages of one streaming call of the client: which wait to be sent, which are under way, the reply that comes.

Replies come in the order of their messages, so that a ring of times says which message one answers. Nothing is owned:
the ring and the request belong to the session. One thread at a time.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy


cdef void put_message(Messages *messages, int64_t scheduled_ns) noexcept nogil:
    messages.scheduled_ns[(messages.head + messages.under_way) % messages.capacity] = scheduled_ns
    messages.under_way += 1
    messages.unsent += 1


cdef int64_t take_scheduled(Messages *messages) noexcept nogil:
    cdef int64_t scheduled_ns = messages.scheduled_ns[messages.head]
    messages.head = (messages.head + 1) % messages.capacity
    messages.under_way -= 1
    return scheduled_ns


cdef size_t write_messages(
        Messages *messages, const uint8_t *request, size_t request_bytes, size_t *sent_bytes, uint8_t *out,
        size_t capacity) noexcept nogil:
    cdef size_t written = 0
    cdef size_t size
    while messages.unsent > 0 and written < capacity:
        size = min(capacity - written, request_bytes - sent_bytes[0])
        memcpy(out + written, request + sent_bytes[0], size)
        written += size
        sent_bytes[0] += size
        if sent_bytes[0] == request_bytes:
            sent_bytes[0] = 0
            messages.unsent -= 1
    return written


cdef size_t read_message(Messages *messages, const uint8_t *data, size_t size, bint *whole) noexcept nogil:
    cdef size_t taken = 0
    cdef uint32_t more
    whole[0] = False
    while messages.prefix_read < PREFIX_BYTES:
        if taken == size:
            return taken
        # The length is the last four bytes of the prefix: the flag ahead of them is shifted out.
        messages.reply_bytes = messages.reply_bytes << 8 | data[taken]
        messages.prefix_read += 1
        messages.reply_read = 0
        messages.first_byte = 0
        taken += 1
    if messages.reply_read == 0 and messages.reply_bytes > 0 and taken < size:
        messages.first_byte = data[taken]
    more = <uint32_t>min(<size_t>(messages.reply_bytes - messages.reply_read), size - taken)
    messages.reply_read += more
    if messages.reply_read == messages.reply_bytes:
        messages.prefix_read = 0
        whole[0] = True
    return taken + more
