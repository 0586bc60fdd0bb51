"""Which requests a batch can still answer in time: a pure decision over the one that is next, as a batch is made.

A request that stands first and cannot be answered before its deadline any more, run by itself, is late: it is set aside
and not run. One that would be late in this batch, or make others late, is left for the next. A batch is not made small
for the sake of a first request where a full one waits and would do a quarter more in the same time: then that one is
late. Where nothing is measured nobody is late before the deadline, nor is a request with none behind it.
"""

from libc.stdint cimport INT64_MAX, int64_t

from infer._core.pace cimport Pace, rows_within, run_time_ns
from infer._core.request cimport Request

cdef enum:
    SPARE_SHARE = 8              # an eighth of the time left: runs are not all alike, and the reply has to be sent

cdef enum Fate:
    FATE_JOINS = 0
    FATE_LATE = 1
    FATE_STAYS = 2

# A batch that is being made.
cdef struct Making:
    const Pace *pace             # NULL: not measured, or not to judge by
    int64_t now
    int64_t most_rows            # that it could have
    int64_t full_ns              # as long as a run of them takes
    int64_t earliest_ns          # the first deadline of those that are in it
    int64_t limit_rows           # for the sake of that
    bint full_waits              # there are as many rows as a batch gathers

cdef inline void making_begin(
        Making *making, const Pace *pace, int64_t waiting_rows, int64_t gather_rows, int64_t now) noexcept nogil:
    making.pace = pace if pace != NULL and pace.judges else NULL
    making.now = now
    making.most_rows = min(waiting_rows, gather_rows)
    making.full_ns = run_time_ns(pace, making.most_rows, now) if making.pace != NULL and making.most_rows > 0 else 0
    making.earliest_ns = INT64_MAX
    making.limit_rows = INT64_MAX
    making.full_waits = waiting_rows >= gather_rows

cdef inline int fate_of(Making *making, const Request *request, int64_t rows, bint alone) noexcept nogil:
    """Of one that would join a batch of `rows`; `alone`: none waits behind it."""
    cdef int64_t left_ns = request.deadline_ns - making.now
    cdef int64_t fit, in_time_ns
    if request.deadline_ns == 0:
        return FATE_JOINS if rows == 0 or rows + request.rows <= making.limit_rows else FATE_STAYS
    if left_ns <= 0:
        return FATE_LATE
    if making.pace == NULL or (alone and rows == 0):
        return FATE_JOINS
    in_time_ns = left_ns - left_ns // SPARE_SHARE
    if (in_time_ns < making.full_ns or request.rows > making.most_rows) and request.deadline_ns < making.earliest_ns:
        fit = rows_within(making.pace, in_time_ns, max(making.most_rows, request.rows), making.now)
        if rows > 0 and fit < rows + request.rows:
            return FATE_STAYS
        if rows == 0 and (fit < request.rows or (
                making.full_waits and 5 * fit * making.full_ns < 4 * making.most_rows
                * run_time_ns(making.pace, fit, making.now))):
            return FATE_LATE
        making.earliest_ns = request.deadline_ns
        making.limit_rows = min(making.limit_rows, fit)
    return FATE_JOINS if rows == 0 or rows + request.rows <= making.limit_rows else FATE_STAYS
