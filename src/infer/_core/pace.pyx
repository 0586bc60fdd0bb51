"""Moving averages of runs. See pace.pxd.

Design note. An average moves by an eighth of the difference, and one run counts for at most twice the average: a run
that was held up for once raises it by an eighth at most. The first runs of a size, which find caches cold, count by the
shortest of them.
"""

from libc.stdint cimport INT64_MAX

cdef enum:
    SHIFT = 3
    MOST_HELD_UP = 16            # how many times longer than alone a wait is believed to be

cdef enum:
    LONGEST_RUN_NS = 100000000000    # longer ones count as this; products with rows stay within 64 bits

cdef extern from * nogil:
    int __builtin_clzll(unsigned long long value)


cdef inline int size_of(int64_t rows) noexcept nogil:
    cdef int power = 63 - __builtin_clzll(<unsigned long long> rows)
    return power if power < PACE_SIZES else PACE_SIZES - 1


cdef inline int64_t moved(int64_t average, int64_t value) noexcept nogil:
    return average + (min(value, 2 * average) - average) // (1 << SHIFT)


cdef void pace_ran(Pace *pace, int64_t rows, int64_t run_ns, int64_t ended_ns) noexcept nogil:
    cdef SizePace *size
    if rows < 1 or run_ns < 0:
        return
    size = &pace.sizes[size_of(rows)]
    run_ns = min(max(run_ns, <int64_t> 1), <int64_t> LONGEST_RUN_NS)
    if size.runs and ended_ns - size.measured_ns > STALE_NS:
        size.runs = 0
    if size.runs < MEASURED_RUNS:
        if size.runs == 0 or run_ns * size.rows_16ths < size.run_ns * rows * 16:
            size.rows_16ths = rows * 16
            size.run_ns = run_ns
    else:
        size.rows_16ths += (rows * 16 - size.rows_16ths) // (1 << SHIFT)
        size.run_ns = moved(size.run_ns, run_ns)
    size.measured_ns = ended_ns
    size.runs += 1


cdef void pace_ended(Pace *pace, int64_t rows, int64_t ended_ns, int32_t side_by_side, bint waiting) noexcept nogil:
    cdef int64_t gap_ns = ended_ns - pace.ended_ns
    cdef int64_t alone_ns
    if pace.standing and gap_ns > 0:
        alone_ns = run_time_ns(pace, rows, ended_ns) // side_by_side
        if alone_ns > 0:
            if pace.alone_ns == 0:
                pace.gap_ns = gap_ns
                pace.alone_ns = alone_ns
            pace.gap_ns += (gap_ns - pace.gap_ns) // (1 << SHIFT)
            pace.alone_ns += (alone_ns - pace.alone_ns) // (1 << SHIFT)
    elif not pace.standing:
        # What held it up before the queue ran empty says nothing about what does from now on.
        pace.gap_ns = pace.alone_ns = 0
    pace.standing = waiting
    pace.ended_ns = max(pace.ended_ns, ended_ns)


cdef inline bint is_known(const SizePace *size, int64_t now) noexcept nogil:
    return size.runs >= MEASURED_RUNS and now - size.measured_ns <= STALE_NS


cdef int64_t run_time_ns(const Pace *pace, int64_t rows, int64_t now, bint steep=False) noexcept nogil:
    cdef const SizePace *below = NULL
    cdef const SizePace *second = NULL
    cdef const SizePace *above = NULL
    cdef int64_t asked = rows * 16
    cdef int size = size_of(rows)
    cdef int i
    for i in range(size, -1, -1):
        if not is_known(&pace.sizes[i], now):
            continue
        if pace.sizes[i].rows_16ths > asked:
            above = &pace.sizes[i]
        elif below == NULL:
            below = &pace.sizes[i]
        else:
            second = &pace.sizes[i]
            break
    i = size + 1
    while above == NULL and i < PACE_SIZES:
        if is_known(&pace.sizes[i], now):
            above = &pace.sizes[i]
        i += 1
    if below == NULL:
        return 0 if above == NULL else above.run_ns * asked // above.rows_16ths
    if above == NULL and steep:
        return below.run_ns * asked // below.rows_16ths
    if above == NULL:
        # As far again as was seen, along the last two sizes.
        above = below
        below = second
        asked = min(asked, 2 * above.rows_16ths)
        if below == NULL:
            return above.run_ns
    if above.run_ns <= below.run_ns or above.rows_16ths <= below.rows_16ths:
        return below.run_ns
    return below.run_ns + (above.run_ns - below.run_ns) * (asked - below.rows_16ths) // (
        above.rows_16ths - below.rows_16ths)


cdef int64_t rows_within(const Pace *pace, int64_t time_ns, int64_t most, int64_t now) noexcept nogil:
    cdef int64_t low = 0
    cdef int64_t middle
    # Never shorter for more rows, so that halving finds it.
    while low < most:
        middle = low + (most - low + 1) // 2
        if run_time_ns(pace, middle, now) <= time_ns:
            low = middle
        else:
            most = middle - 1
    return low


cdef int64_t held_up_ns(const Pace *pace, int64_t wait_ns, int64_t now) noexcept nogil:
    cdef int64_t gap_ns = pace.gap_ns
    cdef int64_t alone_ns = pace.alone_ns
    if alone_ns <= 0 or gap_ns <= alone_ns or now - pace.ended_ns > STALE_NS:
        return wait_ns
    gap_ns = min(gap_ns, MOST_HELD_UP * alone_ns)
    if wait_ns > INT64_MAX // gap_ns:
        return wait_ns
    return wait_ns * gap_ns // alone_ns
