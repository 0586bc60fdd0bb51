"""Threads at SCHED_IDLE, and their proxy at the ordinary priority.

`run_idle` makes one for each call, which costs little beside what it is made for.

Design note. A thread that has gone to SCHED_IDLE may not come back without privileges, so none is kept and lent, and
the caller's own never goes there. Signals are blocked, so that Python's handlers run on the main thread.

Such a thread may lose its core at any instruction, for as long as others keep the cores; were it in a critical section,
everybody who wants the mutex would wait as long. Priority inheritance is no help: the kernel's lends real-time
priorities alone. So it never takes a mutex of the loop's: the proxy does, which everybody's scheduling is fair to. The
mutex between the two is theirs alone.
"""

from libc.stdint cimport int32_t

from infer._core.capi.pthread cimport (
    SCHED_IDLE, SIG_SETMASK, pthread_cond_init, pthread_cond_signal, pthread_cond_t, pthread_cond_wait, pthread_create,
    pthread_join, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, pthread_setname_np,
    pthread_sigmask, pthread_t, sched_param, sched_setscheduler, sigfillset, sigset_t)
from infer._core.capi.atomics cimport cas_i32, load_acquire_i32, store_release_i32

cdef extern from * nogil:
    """
    static __thread int infer_thread_is_idle;
    #define infer_mark_idle() (infer_thread_is_idle = 1)
    #define infer_is_idle() (infer_thread_is_idle)
    """
    void mark_idle "infer_mark_idle"() noexcept
    int is_idle "infer_is_idle"() noexcept

cdef struct Errand:
    work_function work
    void *argument

# The proxy's, for as long as the process lives. Under its mutex: one errand at a time, `asked` until the proxy has it
# done.
cdef struct Proxy:
    pthread_mutex_t lent                # held by the idle thread whose errand it is
    pthread_mutex_t mutex
    pthread_cond_t change
    Errand errand
    int asked

cdef Proxy proxy
cdef int32_t proxy_state = 0                # 0: there is none; 1: it is being made; 2: it waits for errands


cdef void *carry_out(void *argument) noexcept nogil:
    cdef Errand *errand = <Errand *> argument
    become_idle()
    errand.work(errand.argument)
    return NULL


cdef void become_idle() noexcept nogil:
    cdef sched_param parameter
    parameter.sched_priority = 0
    # Of this thread alone. A sandbox that forbids it leaves the work at the ordinary priority.
    sched_setscheduler(0, SCHED_IDLE, &parameter)
    mark_idle()


cdef bint on_idle_thread() noexcept nogil:
    return is_idle()


cdef int start_thread(pthread_t *thread, void *(*run)(void *) noexcept nogil, void *argument,
                      const char *name) noexcept nogil:
    """With signals blocked; 0, or why it failed."""
    cdef sigset_t every, before
    cdef int failed
    sigfillset(&every)
    pthread_sigmask(SIG_SETMASK, &every, &before)
    failed = pthread_create(thread, NULL, run, argument)
    if not failed:
        pthread_setname_np(thread[0], name)
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    return failed


cdef void run_idle(work_function work, void *argument) noexcept nogil:
    cdef Errand errand
    cdef pthread_t thread
    errand.work = work
    errand.argument = argument
    ensure_proxy()
    if start_thread(&thread, carry_out, &errand, b"infer-idle"):
        work(argument)
        return
    pthread_join(thread, NULL)


# The proxy.

cdef void *stand_in(void *argument) noexcept nogil:
    pthread_mutex_lock(&proxy.mutex)
    while True:
        while not proxy.asked:
            pthread_cond_wait(&proxy.change, &proxy.mutex)
        proxy.errand.work(proxy.errand.argument)
        proxy.asked = 0
        pthread_cond_signal(&proxy.change)
    return NULL


cdef void ensure_proxy() noexcept nogil:
    cdef pthread_t thread
    if not cas_i32(&proxy_state, 0, 1):
        return
    pthread_mutex_init(&proxy.lent, NULL)
    pthread_mutex_init(&proxy.mutex, NULL)
    pthread_cond_init(&proxy.change, NULL)
    if start_thread(&thread, stand_in, NULL, b"infer-proxy") == 0:
        store_release_i32(&proxy_state, 2)
    else:
        store_release_i32(&proxy_state, 0)


cdef void run_ordinary(work_function work, void *argument) noexcept nogil:
    if load_acquire_i32(&proxy_state) != 2:
        work(argument)
        return
    pthread_mutex_lock(&proxy.lent)
    pthread_mutex_lock(&proxy.mutex)
    proxy.errand.work = work
    proxy.errand.argument = argument
    proxy.asked = 1
    pthread_cond_signal(&proxy.change)
    while proxy.asked:
        pthread_cond_wait(&proxy.change, &proxy.mutex)
    pthread_mutex_unlock(&proxy.mutex)
    pthread_mutex_unlock(&proxy.lent)
