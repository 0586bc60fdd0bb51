"""Requests: their memory, their transition table, and the two sinks.

See request.pxd for the states. Everything here but `try_transition` and `transition_allowed` is the loop thread's.
"""

from libc.string cimport memset

from infer._core.arena cimport allocate, at, offset_of, release
from infer._core.block cimport Block, block_unref
from infer._core.capi.atomics cimport cas_i32
from infer._core.debug cimport LIVE_REQUEST, count_live
from infer._core.status cimport STATUS_CANCELLED, STATUS_INTERNAL

# A bit per state that may follow.
cdef int[5] followers
followers[<int> RECEIVING] = (1 << QUEUED) | (1 << DONE)
followers[<int> QUEUED] = (1 << RUNNING) | (1 << DONE)
followers[<int> RUNNING] = (1 << ANSWERED) | (1 << DONE)
followers[<int> ANSWERED] = 1 << DONE
followers[<int> DONE] = 0


cdef class ResponseSink:
    """Where a call's outcome goes. Transports subclass it."""

    cdef void finish(self, void *call, Reply *reply) noexcept:
        pass


cdef class RequestSink:
    """Where calls go. The pipeline subclasses it, and so do puppets in the transports' tests."""

    cdef Request *open(self, ResponseSink sink, void *call, int64_t received_ns, int64_t deadline_ns) noexcept:
        return NULL

    cdef bint identify(self, Request *request, const uint8_t *name, uint64_t name_bytes, int source) noexcept:
        return True

    cdef void submit(self, Request *request, Block *body, uint64_t start, uint64_t size_bytes) noexcept:
        pass

    cdef void cancel(self, Request *request, int code=STATUS_CANCELLED) noexcept:
        pass

    cdef void kick(self) noexcept:
        pass


cdef Request *request_new() noexcept nogil:
    cdef uint64_t offset = allocate(sizeof(Request))
    cdef Request *request
    if offset == 0:
        return NULL
    request = <Request *> at(offset)
    memset(request, 0, sizeof(Request) - INLINE_VIEWS * sizeof(TensorView))
    request.code = STATUS_INTERNAL
    request.views = request.inline_views
    count_live(LIVE_REQUEST, 1)
    return request


cdef bint request_reserve_views(Request *request, int32_t count) noexcept nogil:
    cdef uint64_t offset
    if count > INLINE_VIEWS:
        offset = allocate(count * sizeof(TensorView))
        if offset == 0:
            return False
        request.views = <TensorView *> at(offset)
    request.n_views = count
    return True


cdef void request_free(Request *request) noexcept nogil:
    if request.views != request.inline_views:
        release(offset_of(request.views), request.n_views * sizeof(TensorView))
    block_unref(request.body)
    block_unref(request.decoded)
    if request.error != 0:
        block_unref(<Block *> at(request.error))
    count_live(LIVE_REQUEST, -1)
    release(offset_of(request), sizeof(Request))


cdef bint transition_allowed(int from_state, int to_state) noexcept nogil:
    if from_state < 0 or from_state >= REQUEST_STATES or to_state < 0 or to_state >= REQUEST_STATES:
        return False
    return (followers[from_state] >> to_state) & 1


cdef bint try_transition(Request *request, int from_state, int to_state) noexcept nogil:
    return transition_allowed(from_state, to_state) and cas_i32(&request.state, from_state, to_state)


cdef Request *request_of(TimerNode *node) noexcept nogil:
    return <Request *> node
