"""POSIX threads, mutexes, condition variables and scheduling, as far as they are used."""

from posix.time cimport timespec

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct pthread_condattr_t:
        pass
    ctypedef unsigned long pthread_t

    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes) noexcept
    int pthread_mutex_destroy(pthread_mutex_t *mutex) noexcept
    int pthread_mutex_lock(pthread_mutex_t *mutex) noexcept
    int pthread_mutex_trylock(pthread_mutex_t *mutex) noexcept
    int pthread_mutex_unlock(pthread_mutex_t *mutex) noexcept
    int pthread_condattr_init(pthread_condattr_t *attributes) noexcept
    int pthread_condattr_setclock(pthread_condattr_t *attributes, int clock) noexcept
    int pthread_condattr_destroy(pthread_condattr_t *attributes) noexcept
    int pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes) noexcept
    int pthread_cond_destroy(pthread_cond_t *condition) noexcept
    int pthread_cond_signal(pthread_cond_t *condition) noexcept
    int pthread_cond_broadcast(pthread_cond_t *condition) noexcept
    int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) noexcept
    int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const timespec *until) noexcept
    int pthread_create(pthread_t *thread, const void *attributes, void *(*run)(void *) noexcept nogil,
                       void *argument) noexcept
    int pthread_join(pthread_t thread, void **result) noexcept
    int pthread_setname_np(pthread_t thread, const char *name) noexcept            # at most 15 bytes

cdef extern from "<sched.h>" nogil:
    struct sched_param:
        int sched_priority
    enum:
        SCHED_IDLE

    int sched_setscheduler(int thread, int policy, const sched_param *parameter) noexcept    # 0: the calling thread

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    enum:
        SIG_SETMASK

    int sigfillset(sigset_t *signals) noexcept
    int pthread_sigmask(int how, const sigset_t *signals, sigset_t *before) noexcept
