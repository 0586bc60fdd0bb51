"""Threads at SCHED_IDLE, one for each call: making one costs little beside what it is made for.

Design note. A thread that has gone to SCHED_IDLE may not come back without privileges, so none is kept and lent, and
the caller's own never goes there. Signals are blocked, so that Python's handlers run on the main thread.
"""

from infer._core.capi.pthread cimport (
    SCHED_IDLE, SIG_SETMASK, pthread_create, pthread_join, pthread_setname_np, pthread_sigmask, pthread_t, sched_param,
    sched_setscheduler, sigfillset, sigset_t)


cdef struct Errand:
    work_function work
    void *argument


cdef void *carry_out(void *argument) noexcept nogil:
    cdef Errand *errand = <Errand *> argument
    cdef sched_param parameter
    parameter.sched_priority = 0
    # Of this thread alone. A sandbox that forbids it leaves the work at the ordinary priority.
    sched_setscheduler(0, SCHED_IDLE, &parameter)
    errand.work(errand.argument)
    return NULL


cdef void run_idle(work_function work, void *argument) noexcept nogil:
    cdef Errand errand
    cdef pthread_t thread
    cdef sigset_t every, before
    cdef int failed
    errand.work = work
    errand.argument = argument
    sigfillset(&every)
    pthread_sigmask(SIG_SETMASK, &every, &before)
    failed = pthread_create(&thread, NULL, carry_out, &errand)
    if not failed:
        pthread_setname_np(thread, b"infer-idle")
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    if failed:
        work(argument)
        return
    pthread_join(thread, NULL)
