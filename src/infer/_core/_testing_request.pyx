"""Requests and their transition table as a test drives them; not in wheels.

A RequestBox owns its Request and frees it once.
"""

from infer._core.request cimport (
    ANSWERED, DONE, INLINE_VIEWS as C_INLINE_VIEWS, QUEUED, RECEIVING, REQUEST_BYTES as C_REQUEST_BYTES, RUNNING,
    Request, request_free, request_new, request_reserve_views, transition_allowed as c_transition_allowed,
    try_transition)
from infer._core.tensor_view cimport MAX_RANK

STATES = {"RECEIVING": RECEIVING, "QUEUED": QUEUED, "RUNNING": RUNNING, "ANSWERED": ANSWERED, "DONE": DONE}
INLINE_VIEWS = C_INLINE_VIEWS
REQUEST_BYTES = C_REQUEST_BYTES
SIZE_BYTES = sizeof(Request)


def transition_allowed(from_state: int, to_state: int) -> bool:
    return c_transition_allowed(from_state, to_state)


cdef class RequestBox:
    cdef Request *request

    def __cinit__(self):
        self.request = request_new()
        if self.request == NULL:
            raise MemoryError("arena at its limit")

    def __dealloc__(self):
        self.free()

    cpdef void free(self) noexcept:
        if self.request != NULL:
            request_free(self.request)
            self.request = NULL

    @property
    def state(self) -> int:
        return self.request.state

    @property
    def code(self) -> int:
        return self.request.code

    def try_transition(self, from_state: int, to_state: int) -> bool:
        return try_transition(self.request, from_state, to_state)

    def reserve_views(self, count: int) -> bool:
        """Reserves the views and writes to the last byte of each; False where the arena refuses."""
        cdef int i
        if not request_reserve_views(self.request, count):
            return False
        for i in range(self.request.n_views):
            self.request.views[i].shape[MAX_RANK - 1] = i
        return True

    @property
    def views_inline(self) -> bool:
        return self.request.views == self.request.inline_views
