# A record of every call of a run of the load generator: its times and which of the different replies it got. See
# load_record.pyx.
from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef enum:
    NOT_OK = -1                 # in place of a reply: the call had none that counts
    MAX_REPLIES = 4096          # different replies that are told apart

# 32 bytes in the order of the fields: what load_client hands out.
cdef struct CallRecord:
    int64_t scheduled_ns        # CLOCK_MONOTONIC, as are all
    int64_t started_ns
    int64_t received_ns
    int64_t reply               # index into Record.replies, or NOT_OK

cdef struct Reply:
    uint8_t *body               # owned
    uint64_t size_bytes
    uint64_t hash

cdef struct Record:
    bint on
    bint out_of_memory          # a call is missing
    bint out_of_replies         # a reply is missing, and counted as NOT_OK
    CallRecord *calls           # owned
    uint64_t n_calls
    uint64_t capacity
    Reply *replies              # owned, array of MAX_REPLIES
    uint64_t n_replies

# False: no memory; record_close is due all the same. The Record is zeroed before.
cdef bint record_open(Record *record) noexcept nogil
# `body` is copied where it is a new one; NULL: NOT_OK.
cdef void record_call(
    Record *record, int64_t scheduled_ns, int64_t started_ns, int64_t received_ns, const uint8_t *body,
    uint64_t size_bytes) noexcept nogil
# Safe on a zeroed Record and when called twice.
cdef void record_close(Record *record) noexcept nogil
