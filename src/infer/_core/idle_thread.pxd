"""Runs a C function on a thread that gets only the time nobody else wants, and waits for its end.

For loading and warming models beside serving. The caller waits without the GIL and keeps its own priority: a thread of
this one that held the GIL would stall the loop for as long as the executors keep the cores.
"""

ctypedef void (*work_function)(void *argument) noexcept nogil

# Any thread, without the GIL. The function must not take it. Runs on the calling thread where none can be made.
cdef void run_idle(work_function work, void *argument) noexcept nogil
