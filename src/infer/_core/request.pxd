"""A Request - one inference call on its way - and the two sinks where transports and pipeline meet.

A Request lives in the arena and belongs to the loop thread, except that an executor reads it (views, rows) and writes
its code and error between taking it and publishing its batch. States:

    RECEIVING  the call's headers are here, its message is not whole
    QUEUED     in its version's queue
    RUNNING    in a batch that an executor has taken
    ANSWERED   the caller has its status, the batch still runs: its outcome is discarded, its memory waits
    DONE       about to be freed

The executor makes QUEUED -> RUNNING under the batcher's mutex; every other step is the loop's. `finish` to the
transport happens once, on leaving RECEIVING, QUEUED or RUNNING for ANSWERED or DONE.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from infer._core.block cimport Block
from infer._core.model_version cimport VersionEntry
from infer._core.tensor_view cimport OutputMask, TensorView
from infer._core.timer_wheel cimport TimerNode

cdef enum RequestState:
    RECEIVING = 0
    QUEUED = 1
    RUNNING = 2
    ANSWERED = 3
    DONE = 4
    REQUEST_STATES = 5

cdef enum:
    INLINE_VIEWS = 2
    REQUEST_BYTES = 512

# What a transport knows a call's tenant by.
cdef enum IdentitySource:
    FROM_METADATA = 0
    FROM_CERTIFICATE = 1

# What it is told apart from others by.
cdef union RequestKey:
    uint64_t routing             # until it has a version: split.key_hash of what its transport knows; 0: nothing
    uint64_t shape               # from then on: hash of its inputs' shapes

# REQUEST_BYTES are a size class of the arena: with one more it would take twice as much.
cdef struct Request:
    TimerNode timer              # first: a node's address is its Request's
    Request *next                # in its bucket, first in turn first; else among those that wait for their flight
    Request *prev
    void *bucket                 # the batcher's; NULL when not queued
    int32_t state                # atomic: RequestState
    int32_t code                 # gRPC status; written by the executor, then by the loop
    int64_t rows
    uint64_t sequence            # order of arrival in its queue, or in its place behind all others
    int64_t turn_ns              # the queue's order: queue_order's
    RequestKey key
    OutputMask outputs
    void *version                # VersionEntry, held by a handle; NULL while RECEIVING
    void *tenant                 # whose call it is: tenants', a quota.Tenant; NULL: nobody's. Loop thread
    void *arm                    # the variant that it was given to: arm.Arm, held; NULL: none. Loop thread
    void *flight                 # the cache's: what it runs for, or waits for; NULL: nothing. Loop thread
    void *sink                   # ResponseSink, borrowed; NULL once answered
    void *call                   # the transport's own
    Block *body                  # the message, prefix included; one reference
    Block *decoded               # typed contents decoded on the loop, or its RowPlan; one reference or NULL
    uint64_t error               # arena offset of a Block with the error's text, or 0
    int64_t received_ns
    int64_t queued_ns
    int64_t deadline_ns          # 0: none
    int64_t wait_until_ns        # the queue's own time; 0: none, or past
    uint32_t body_start          # where in `body` the message begins, behind its prefix
    uint32_t body_bytes          # of the message
    uint64_t id_offset           # of the request id, in the arena
    uint32_t probe               # breaker: its version's trial that it is a part of; 0: of none. Loop thread
    uint16_t id_bytes            # at most MAX_ID_BYTES
    int16_t n_views              # at most MAX_TENSORS
    uint8_t level                # of priority, below LEVELS_MAX; 0: its version has none
    uint8_t deferred             # 1: some views are FORM_TYPED, to be decoded by the executor
    uint8_t final_asked          # 1: the caller wants the reply marked as the last one
    uint8_t delays               # at wait_until_ns: 1: it goes behind all others, 0: it is refused
    uint8_t charged              # where it counts as under way, and whether it holds its tenant: tenants' bits
    uint8_t fallback             # model_version.Fallback: what answers it instead of the version that it was meant for
    uint8_t planned              # 1: `decoded` has its RowPlan: it is of the rows that are left. Loop thread
    TensorView *views            # inline_views, or an arena allocation when there are more
    TensorView inline_views[2]

# Part of a reply: a range of a Block, whose reference goes over to the transport.
cdef struct Segment:
    Block *block
    const uint8_t *data
    uint64_t size_bytes

# The outcome of a call. The struct, message and segment array are lent for the call of `finish`.
cdef struct Reply:
    int32_t code
    int32_t n_segments           # OK only: prefix and message
    Segment *segments
    const char *message          # not OK: UTF-8
    uint32_t message_bytes
    int64_t pushback_ms          # -1: none; else grpc-retry-pushback-ms
    const uint8_t *id            # the request's, as far as it was read
    uint32_t id_bytes
    uint8_t final                # OK only: the caller wants the reply marked as the last one
    void *variant                # bytes, lent: the name of the variant that it was given to; NULL: none

cdef class ResponseSink:
    # Takes over the segments' references. Called once per opened Request that was not cancelled, on the loop thread.
    cdef void finish(self, void *call, Reply *reply) noexcept

cdef class RequestSink:
    # A Request in RECEIVING, its deadline armed (0: none), or NULL with `finish` already called.
    cdef Request *open(self, ResponseSink sink, void *call, int64_t received_ns, int64_t deadline_ns) noexcept
    # Whose call it is, between `open` and `submit`, where the transport was told to know: any bytes; none: what it
    # knows the tenant by says nothing, or too much. False: the call was refused, `finish` has been called.
    cdef bint identify(self, Request *request, const uint8_t *name, uint64_t name_bytes, int source) noexcept
    # The whole message has come: [start, start + size) of `body`, whose reference goes over. May call `finish` at once,
    # after which the Request is gone.
    cdef void submit(self, Request *request, Block *body, uint64_t start, uint64_t size_bytes) noexcept
    # The caller is gone, or the transport has answered it with `code` itself: no `finish` for it any more, the Request
    # is not to be used again.
    cdef void cancel(self, Request *request, int code=*) noexcept
    # A socket read has been consumed: wake executors for what was put.
    cdef void kick(self) noexcept

cdef Request *request_new() noexcept nogil                                 # RECEIVING; NULL at the arena's limit
cdef bint request_reserve_views(Request *request, int32_t count) noexcept nogil
cdef void request_free(Request *request) noexcept nogil                    # unrefs what it holds; not the handle
# The transition table: False where `to` may not follow `from`.
cdef bint transition_allowed(int from_state, int to_state) noexcept nogil
# Compare-and-swap along the table.
cdef bint try_transition(Request *request, int from_state, int to_state) noexcept nogil
cdef Request *request_of(TimerNode *node) noexcept nogil
