"""The stages of a request in their order: open, submit, complete. The only module that knows that order.

Loop thread only. Transports call it through RequestSink; it answers through ResponseSink.
"""

from libc.stdint cimport int64_t, uint64_t

from infer._core.admission cimport Bounds
from infer._core.batch cimport Batch
from infer._core.block cimport Block
from infer._core.cache cimport Cache
from infer._core.executor cimport ExecutorPool
from infer._core.model_version cimport VersionEntry
from infer._core.queue_policy cimport QueuePolicy
from infer._core.request cimport Reply, Request, RequestSink, Segment
from infer._core.router cimport RouteTable
from infer._core.second_level cimport SecondLevel
from infer._core.tenants cimport Tenants
from infer._core.tensor cimport Binding, ErrorText, InferMessage
from infer._core.timer_wheel cimport TimerNode, TimerWheel

cdef class Pipeline(RequestSink):
    cdef RouteTable routes
    cdef ExecutorPool pool
    cdef readonly Tenants tenants
    cdef readonly Cache cache              # None: nothing is kept
    cdef public SecondLevel second         # None: there is no other level
    cdef bint leading                      # `lead_again` is about to be called
    cdef bint ending_turn                  # `end_turn` is about to be called
    cdef TimerWheel wheel
    cdef InferMessage message
    cdef ErrorText error
    cdef Segment segments[514]
    cdef TimerNode watch                   # in the wheel while a run may have to be stopped
    cdef int64_t watch_step_ns             # the shortest time that a run may take; 0: as long as it likes
    cdef readonly int64_t runs_stopped
    cdef dict stuck                        # VersionEntry by the address of its batch whose run does not end
    cdef dict withheld                     # max_running of each of those, while it is 1
    cdef object loop
    cdef object timer                      # the loop's handle for the wheel's next tick, or None
    cdef int64_t timer_ns
    cdef readonly int64_t in_flight        # Requests opened and not yet freed
    cdef Bounds bounds
    cdef bint judge_deadlines
    cdef int64_t codel_target_ns
    cdef int64_t codel_interval_ns
    cdef bint triton_codes
    cdef int refusal                       # of the request that is being submitted
    cdef int64_t unrouted[17]              # calls that ended before a version was found, by code
    cdef public object on_run_failure      # called as (VersionEntry, text) for each batch whose run failed, or None
    cdef public object on_stopped_run      # called as (VersionEntry, ns that it ran for, stuck) for each, or None
    cdef public object after_turn          # called once after completions or expiries: transports flush there
    cdef void say_late(self, Request *request) noexcept
    cdef void say_no_memory(self) noexcept
    cdef int say_no_reply(self, Request *request) noexcept
    cdef void watch_runs(self, int64_t due_ns) noexcept
    cdef void look_at_runs(self) noexcept
    cdef void give_up(self, Batch *batch, int64_t now) noexcept
    cdef void withhold(self, Batch *batch) noexcept
    cdef void give_back(self, Batch *batch) noexcept
    cdef void stand_in(self, Request *request, VersionEntry entry, int64_t now) noexcept
    cdef void arm(self, int64_t deadline_ns) except *
    cdef void expired(self, Request *request) noexcept
    cdef bint waited(self, Request *request) noexcept
    cdef int bind(self, Request *request, VersionEntry entry, Binding *binding) noexcept
    cdef bint recall(self, Request *request, VersionEntry entry, int64_t now) noexcept
    cdef void send_kept(self, Request *request, Block *block) noexcept
    cdef void enter_alone(self, Request *request) noexcept
    cdef void enter(self, Request *request, VersionEntry entry, Binding *binding, int64_t now) noexcept
    cdef bint allow(self, Request *request, VersionEntry entry, int64_t rows, int64_t now) noexcept
    cdef int admit(self, Request *request, VersionEntry entry, Binding *binding, int64_t beside_rows,
                   int64_t now) noexcept
    cdef void arm_wait(self, Request *request, const QueuePolicy *policy, int64_t now) noexcept
    cdef int decode_typed(self, Request *request, VersionEntry entry, Binding *binding) noexcept
    cdef void count(self, Request *request, int code) noexcept
    cdef void answer(self, Request *request, int code, int64_t pushback_ms) noexcept
    cdef void retire(self, Request *request) noexcept
    cdef void share(self, Request *leader, Batch *batch, int index) noexcept
    cdef void report(self, VersionEntry entry, Block *detail) noexcept
    cdef void end_turn_soon(self) noexcept
    cdef void complete(self, Batch *batch) noexcept
    cdef bint reply(self, Request *request, Batch *batch, int index) noexcept
    cdef void send(self, Request *request, int n_segments) noexcept
