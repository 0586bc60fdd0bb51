"""What versions have of the pipeline for as long as they are served: a queue, its bounds, and what batches gather.

The base of the Pipeline: it holds what a version is attached to. Loop thread only.
"""

from libc.stdint cimport int64_t

from infer._core.admission cimport Bounds
from infer._core.cache cimport Cache
from infer._core.executor cimport ExecutorPool
from infer._core.model_version cimport VersionEntry
from infer._core.request cimport RequestSink
from infer._core.second_level cimport SecondLevel
from infer._core.tenants cimport Tenants

cdef class VersionQueues(RequestSink):
    cdef ExecutorPool pool
    cdef readonly Tenants tenants
    cdef readonly Cache cache              # None: nothing is kept
    cdef public SecondLevel second         # None: there is no other level
    cdef Bounds bounds
    cdef bint judge_deadlines
    cdef int64_t codel_target_ns
    cdef int64_t codel_interval_ns
