"""The lane of a ShadowPool that was not started, a step at a time; not in wheels."""

from infer._core.capi.atomics cimport load_acquire_i32
from infer._core.idle_thread cimport run_idle, run_ordinary
from infer._core.shadow cimport ShadowPool
from infer._core.shadow_lane cimport GROUP_COPIES as C_GROUP_COPIES
from infer._core.shadow_lane cimport LANE_GIVEN, lane_step

GROUP_COPIES = C_GROUP_COPIES


def step(ShadowPool pool not None) -> int:
    """What the lane's thread would do with the group that it has; how many copies were in it."""
    if load_acquire_i32(&pool.lane.state) != LANE_GIVEN:
        return 0
    with nogil:
        lane_step(pool.lane)
    return pool.lane.group.n_copies


cdef extern from *:
    """
    #include <sched.h>
    """
    int getpolicy "sched_getscheduler"(int thread) noexcept nogil

cdef struct Policies:
    int idle
    int proxy


cdef void note_proxy(void *argument) noexcept nogil:
    (<Policies *> argument).proxy = getpolicy(0)


cdef void note_idle(void *argument) noexcept nogil:
    (<Policies *> argument).idle = getpolicy(0)
    run_ordinary(note_proxy, argument)


def policies() -> tuple[int, int]:
    """The kernel's scheduling policy of an idle thread, and of what it has done for it."""
    cdef Policies found
    with nogil:
        run_idle(note_idle, &found)
    return found.idle, found.proxy
