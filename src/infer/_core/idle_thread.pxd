"""Threads that get only the time nobody else wants, and what of their work others have to do for them.

`run_idle` runs a C function on such a thread and waits for its end: for loading and warming models beside serving. The
caller waits without the GIL and keeps its own priority: a thread of this one that held the GIL would stall the loop for
as long as the executors keep the cores. Shadows have one for as long as the server runs.
"""

ctypedef void (*work_function)(void *argument) noexcept nogil

# Any thread, without the GIL. The function must not take it. Runs on the calling thread where none can be made.
cdef void run_idle(work_function work, void *argument) noexcept nogil
# The calling thread is such a one from now on; there is no way back.
cdef void become_idle() noexcept nogil
cdef bint on_idle_thread() noexcept nogil
# Makes the thread that `run_ordinary` needs, once; by a thread of the ordinary priority.
cdef void ensure_proxy() noexcept nogil
# Has the function run by a thread of the ordinary priority, and waits: for what takes a mutex that the loop takes too.
cdef void run_ordinary(work_function work, void *argument) noexcept nogil
