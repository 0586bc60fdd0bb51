"""The stages of a request in their order: open, submit, complete. The only module that knows that order.

Loop thread only. Transports call it through RequestSink; it answers through ResponseSink.
"""

from libc.stdint cimport int64_t

from infer._core.answers cimport Answers
from infer._core.batch cimport Batch
from infer._core.model_version cimport VersionEntry
from infer._core.queue_policy cimport QueuePolicy
from infer._core.request cimport Request
from infer._core.router cimport RouteTable
from infer._core.tensor cimport Binding, InferMessage
from infer._core.timer_wheel cimport TimerNode

cdef class Pipeline(Answers):
    cdef RouteTable routes
    cdef InferMessage message
    cdef bint ending_turn                  # `end_turn` is about to be called
    cdef object timer                      # the loop's handle for the wheel's next tick, or None
    cdef int64_t timer_ns
    cdef TimerNode watch                   # in the wheel while a run may have to be stopped
    cdef int64_t watch_step_ns             # the shortest time that a run may take; 0: as long as it likes
    cdef readonly int64_t runs_stopped
    cdef dict stuck                        # VersionEntry by the address of its batch whose run does not end
    cdef dict withheld                     # max_running of each of those, while it is 1
    cdef public object on_stopped_run      # called as (VersionEntry, ns that it ran for, stuck) for each, or None
    cdef void watch_runs(self, int64_t due_ns) noexcept
    cdef void look_at_runs(self) noexcept
    cdef void give_up(self, Batch *batch, int64_t now) noexcept
    cdef void withhold(self, Batch *batch) noexcept
    cdef void give_back(self, Batch *batch) noexcept
    cdef void stand_in(self, Request *request, VersionEntry entry, int64_t now) noexcept
    cdef void arm(self, int64_t deadline_ns) except *
    cdef void expired(self, Request *request) noexcept
    cdef bint waited(self, Request *request) noexcept
    cdef bint recall(self, Request *request, VersionEntry entry, int64_t now) noexcept
    cdef void enter(self, Request *request, VersionEntry entry, Binding *binding, int64_t now) noexcept
    cdef bint allow(self, Request *request, VersionEntry entry, int64_t rows, int64_t now) noexcept
    cdef int admit(self, Request *request, VersionEntry entry, Binding *binding, int64_t beside_rows,
                   int64_t now) noexcept
    cdef void arm_wait(self, Request *request, const QueuePolicy *policy, int64_t now) noexcept
    cdef void end_turn_soon(self) noexcept
    cdef void complete(self, Batch *batch) noexcept
