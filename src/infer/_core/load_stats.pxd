# What the load generator counts: replies by outcome, latencies by bucket. Functions are inline: there is no .pyx.
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    GRPC_CODES = 17             # statuses 0-16
    SUB_BUCKETS = 128           # per octave: a bucket is at most 1/128 of its value wide
    SUB_BUCKET_BITS = 7
    BUCKETS = 4480              # up to 2^41 ns

cdef enum:
    FAIL_HTTP_STATUS = 0        # :status is not 200
    FAIL_NO_GRPC_STATUS = 1     # the stream ended in order but without trailers
    FAIL_WRONG_LENGTH = 2       # status OK, message of another length than expected
    FAIL_STREAM_RESET = 3       # RST_STREAM from the server
    FAIL_STREAM_REFUSED = 4     # REFUSED_STREAM, or beyond the last stream of a GOAWAY
    FAIL_CONNECTION_LOST = 5    # the connection ended first
    FAIL_UNANSWERED = 6         # still under way when the run was given up, or when its stream ended in order
    FAIL_NOT_STARTED = 7        # open loop: scheduled, but no connection was left
    FAIL_ERROR_MESSAGE = 8      # in a stream: the reply is an error
    FAIL_STREAM_END = 9         # a stream that ended otherwise than in order after its last reply
    FAILURES = 10

cdef struct LoadStats:
    uint64_t sent               # warm-up included, as are the counts by code
    uint64_t ok
    uint64_t[GRPC_CODES] codes
    uint64_t other_code         # a grpc-status that is not a number of 0-16
    uint64_t[FAILURES] failures
    uint64_t measured           # OK replies to requests scheduled after the warm-up
    uint64_t[BUCKETS] buckets   # of their latencies
    int64_t latency_sum_ns
    int64_t min_ns
    int64_t max_ns
    int64_t last_reply_ns       # 0: no measured reply
    uint32_t peak_in_flight
    uint32_t in_flight

cdef extern from *:
    int __builtin_clzll(unsigned long long) noexcept nogil

cdef inline uint32_t bucket_of(uint64_t value) noexcept nogil:
    cdef int shift
    if value < SUB_BUCKETS:
        return <uint32_t>value
    shift = 63 - __builtin_clzll(value) - SUB_BUCKET_BITS
    return min(<uint32_t>((shift + 1) * SUB_BUCKETS + ((value >> shift) & (SUB_BUCKETS - 1))), <uint32_t>(BUCKETS - 1))

# Middle of a bucket, in ns.
cdef inline double middle_of(uint32_t bucket) noexcept nogil:
    cdef uint32_t shift
    if bucket < SUB_BUCKETS:
        return bucket
    shift = bucket // SUB_BUCKETS - 1
    return (<double>(SUB_BUCKETS + bucket % SUB_BUCKETS) + 0.5) * (<double>(<uint64_t>1 << shift))

# A measured reply; a latency below zero is one whose clock was read late.
cdef inline void add_latency(LoadStats *stats, int64_t latency_ns) noexcept nogil:
    if latency_ns < 0:
        latency_ns = 0
    stats.buckets[bucket_of(latency_ns)] += 1
    stats.latency_sum_ns += latency_ns
    if stats.measured == 0 or latency_ns < stats.min_ns:
        stats.min_ns = latency_ns
    if latency_ns > stats.max_ns:
        stats.max_ns = latency_ns
    stats.measured += 1
