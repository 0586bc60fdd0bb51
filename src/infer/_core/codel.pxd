"""Does a queue stand, and is it fed faster than it is emptied? CoDel's question (RFC 8289), of one version's queue.

As there, a queue stands when for a whole interval no request waited less than a target. That alone is no overload: a
closed loop - clients that send again when they are answered - keeps a queue standing by its nature, and loses by every
refusal. So the queue must also have been fed faster than it was emptied, over two intervals that follow one another.
Where CoDel drops one packet after the other, more and more often, to make senders slow down, callers here do not; so
while it sheds, what would wait longer than the target is refused at the door, until for an interval nothing had to be.

Loop thread only.
"""

from libc.stdint cimport int32_t, int64_t

cdef enum:
    FED_SHARE = 8                # fed: an eighth more came than left, and more than two batches
    FED_INTERVALS = 2

cdef struct Codel:
    int64_t target_ns            # 0: never
    int64_t interval_ns
    int64_t window_ns            # when the interval began in which every request waited too long; 0: some did not
    int64_t came_rows            # since then; of all requests, whatever became of them
    int64_t left_rows
    int64_t refused_ns           # when it last had one refused
    int32_t fed                  # intervals in a row
    int32_t shedding

# A batch of `rows` has ended, of which the request that waited least did so for `sojourn_ns`. `run_ns`: as long as a
# run takes, which no queue is to blame for.
cdef inline void codel_left(Codel *codel, int64_t rows, int64_t sojourn_ns, int64_t run_ns, int64_t now) noexcept nogil:
    if codel.target_ns == 0:
        return
    if codel.shedding and now - codel.refused_ns > codel.interval_ns:
        codel.shedding = 0
        codel.fed = 0
    if sojourn_ns < codel.target_ns + run_ns:
        codel.window_ns = 0
        codel.fed = 0
        return
    codel.left_rows += rows
    if codel.window_ns != 0 and now - codel.window_ns < codel.interval_ns:
        return
    if codel.window_ns != 0:
        if codel.came_rows > codel.left_rows + max(codel.left_rows // FED_SHARE, 2 * rows):
            codel.fed += 1
        else:
            codel.fed = 0
        if codel.fed >= FED_INTERVALS and not codel.shedding:
            codel.shedding = 1
            codel.refused_ns = now
    codel.window_ns = now
    codel.came_rows = 0
    codel.left_rows = 0

# Whether one that comes now and would be answered after `expected_ns` is to be refused.
cdef inline bint codel_sheds(const Codel *codel, int64_t expected_ns, int64_t run_ns) noexcept nogil:
    return codel.shedding and expected_ns > codel.target_ns + 2 * run_ns
