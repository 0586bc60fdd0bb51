"""What became of each call of a run, for those who have to know which reply came when, and not only how many.

A run of one request gets few different replies, the same one mostly many times in a row: they are looked for from the
one found last. Memory: a Record owns its calls and replies; record_close frees them. Threads: its loop's.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

cdef enum:
    FIRST_CALLS = 4096


cdef bint record_open(Record *record) noexcept nogil:
    record.calls = <CallRecord *>malloc(FIRST_CALLS * sizeof(CallRecord))
    record.replies = <Reply *>calloc(MAX_REPLIES, sizeof(Reply))
    record.capacity = FIRST_CALLS
    record.on = record.calls != NULL and record.replies != NULL
    return record.on


cdef inline uint64_t hash_of(const uint8_t *body, uint64_t size_bytes) noexcept nogil:
    """FNV-1a."""
    cdef uint64_t value = 14695981039346656037ULL
    cdef uint64_t i
    for i in range(size_bytes):
        value = (value ^ body[i]) * 1099511628211ULL
    return value


cdef int64_t reply_index(Record *record, const uint8_t *body, uint64_t size_bytes) noexcept nogil:
    cdef uint64_t value = hash_of(body, size_bytes)
    cdef Reply *reply
    cdef int64_t i
    for i in range(<int64_t>record.n_replies - 1, -1, -1):
        reply = &record.replies[i]
        if reply.hash == value and reply.size_bytes == size_bytes and memcmp(reply.body, body, size_bytes) == 0:
            return i
    if record.n_replies == MAX_REPLIES:
        record.out_of_replies = True
        return NOT_OK
    reply = &record.replies[record.n_replies]
    reply.body = <uint8_t *>malloc(max(size_bytes, <uint64_t>1))
    if reply.body == NULL:
        record.out_of_memory = True
        return NOT_OK
    memcpy(reply.body, body, size_bytes)
    reply.size_bytes = size_bytes
    reply.hash = value
    record.n_replies += 1
    return <int64_t>record.n_replies - 1


cdef void record_call(
        Record *record, int64_t scheduled_ns, int64_t started_ns, int64_t received_ns, const uint8_t *body,
        uint64_t size_bytes) noexcept nogil:
    cdef CallRecord *call
    if record.n_calls == record.capacity:
        call = <CallRecord *>realloc(record.calls, 2 * record.capacity * sizeof(CallRecord))
        if call == NULL:
            record.out_of_memory = True
            return
        record.calls = call
        record.capacity *= 2
    call = &record.calls[record.n_calls]
    call.scheduled_ns = scheduled_ns
    call.started_ns = started_ns
    call.received_ns = received_ns
    call.reply = NOT_OK if body == NULL else reply_index(record, body, size_bytes)
    record.n_calls += 1


cdef void record_close(Record *record) noexcept nogil:
    cdef uint64_t i
    for i in range(record.n_replies):
        free(record.replies[i].body)
    free(record.calls)
    free(record.replies)
    memset(record, 0, sizeof(Record))
