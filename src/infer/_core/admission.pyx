"""Gates in front of the queue. Pure functions.

Design note. A request is refused for its deadline where the queue in front of it, at the measured pace, and its own
batch take longer than it has left. The estimate counts what is in front of it alone - others may come behind it and
share its batch, but the batcher makes no batch so large that it would be late - and is low where nothing was measured.
An idle version refuses nobody: that is how a measure that is wrong comes right.
"""

from infer._core.codel cimport codel_sheds
from infer._core.pace cimport Pace, held_up_ns, run_time_ns
from infer._core.queue_order cimport held_bytes, requests_of, rows_before, rows_before_this
from infer._core.queue_policy cimport (
    REFUSED_ADAPTIVE, REFUSED_BYTES, REFUSED_BYTES_TOTAL, REFUSED_DEADLINE, REFUSED_REQUESTS, REFUSED_ROWS,
    REFUSED_ROWS_TOTAL, REFUSED_STANDING, REFUSED_TIMEOUT)
from infer._core.status cimport (
    STATUS_DEADLINE_EXCEEDED, STATUS_FAILED_PRECONDITION, STATUS_INTERNAL, STATUS_INVALID_ARGUMENT, STATUS_NOT_FOUND,
    STATUS_OK, STATUS_UNAVAILABLE)
from infer._core.tensor cimport say, say_int

cdef enum:
    MARGIN_SHARE = 4             # a quarter of the expected time: calls and replies travel, and estimates err
    QUEUE_SHARE = 3              # of a deadline for what waits, where enough come in any case: it waits for that twice


cdef int admit_deadline(int64_t deadline_ns, int64_t now) noexcept nogil:
    return STATUS_DEADLINE_EXCEEDED if deadline_ns != 0 and deadline_ns <= now else STATUS_OK


cdef void say_full(const Version *version, int64_t queued, int64_t bound, ErrorText *error) noexcept nogil:
    """`version` NULL: the queues of all."""
    if version == NULL:
        say(error, "the queues of all models are full: they hold ")
    else:
        say(error, "the queue of model '")
        say(error, version.name)
        say(error, "' is full: it holds ")
    say_int(error, queued)
    say(error, " of at most ")
    say_int(error, bound)


cdef bint is_over(const Version *version, int64_t queued, int64_t more, int64_t bound, const char *unit,
                  ErrorText *error) noexcept nogil:
    if queued == 0 or queued + more <= bound:
        return False
    say_full(version, queued, bound, error)
    say(error, unit)
    say(error, ", the request brings ")
    say_int(error, more)
    say(error, "; retry later or send to another replica")
    return True


cdef bint is_over_level(const Version *version, const Request *request, ErrorText *error) noexcept nogil:
    cdef int64_t bound = version.policy.of_level[request.level].max_requests
    cdef int64_t queued = requests_of(<const VersionQueue *> version.queue, request.level)
    if bound == 0 or queued < bound:
        return False
    say_full(version, queued, bound, error)
    say(error, " requests")
    if request.level:
        say(error, " of priority ")
        say_int(error, request.level)
    say(error, " (max_queue_size); retry later or send to another replica")
    return True


cdef int64_t expected_ns(const Version *version, int64_t rows, int64_t ahead, int64_t now) noexcept nogil:
    cdef const VersionQueue *queue = <const VersionQueue *> version.queue
    cdef const Pace *pace = <const Pace *> version.pace
    cdef int64_t running = queue.running
    cdef int64_t gathers = version.gather_rows
    cdef int64_t wait_ns = 0
    if pace == NULL or (ahead == 0 and running < version.max_running):
        return 0
    if running >= version.max_running:
        wait_ns = max(queue.taken_ns + run_time_ns(pace, max(queue.taken_rows, <int64_t> 1), now) - now, <int64_t> 0)
    if ahead >= gathers:
        wait_ns += ahead // gathers * run_time_ns(pace, gathers, now, queue.cut)
    return (held_up_ns(pace, wait_ns // version.max_running, now)
            + run_time_ns(pace, min(ahead % gathers + rows, max(gathers, rows)), now, queue.cut))


cdef int64_t ahead_ns(const Version *version, int64_t rows, int64_t ahead, int64_t now) noexcept nogil:
    """What the rows that wait add to a run of its own, as far as they are not run side by side."""
    cdef const VersionQueue *queue = <const VersionQueue *> version.queue
    cdef const Pace *pace = <const Pace *> version.pace
    cdef int64_t gathers = version.gather_rows
    cdef int64_t time_ns = ahead // gathers * run_time_ns(pace, gathers, now, queue.cut) // version.max_running
    time_ns += run_time_ns(pace, min(ahead % gathers + rows, max(gathers, rows)), now, queue.cut)
    return held_up_ns(pace, max(time_ns - run_time_ns(pace, rows, now, queue.cut), <int64_t> 0), now)


cdef int judge_deadline(const Version *version, const Request *request, int64_t now, ErrorText *error) noexcept nogil:
    cdef const Pace *pace = <const Pace *> version.pace
    cdef const VersionQueue *queue = <const VersionQueue *> version.queue
    cdef int64_t expected, run_ns, waiting_ns, left_ns, ahead
    cdef bint stands
    if pace == NULL or not pace.judges:
        return ADMITTED
    ahead = rows_before_this(queue, request)
    expected = expected_ns(version, request.rows, ahead, now)
    if expected + expected // MARGIN_SHARE <= request.deadline_ns - now:
        if not queue.codel.shedding:
            return ADMITTED
        run_ns = run_time_ns(pace, max(queue.taken_rows, <int64_t> 1), now)
        stands = codel_sheds(&queue.codel, expected, run_ns)
        # Those that come behind make its batch longer: a third to wait, a third to run, a third to spare.
        waiting_ns = ahead_ns(version, request.rows, ahead, now)
        left_ns = request.deadline_ns - now - 2 * run_time_ns(pace, request.rows, now)
        if not stands and QUEUE_SHARE * waiting_ns <= left_ns:
            return ADMITTED
        say(error, "the queue of model '")
        say(error, version.name)
        say(error, "' stands, and more comes than it can run: ")
        if stands:
            say(error, "the request would take about ")
            say_int(error, expected // 1000)
            say(error, " us, where two runs take ")
            say_int(error, 2 * run_ns // 1000)
            say(error, " us (--codel-target)")
        else:
            say(error, "what waits takes about ")
            say_int(error, waiting_ns // 1000)
            say(error, " us, more than a third of the time until its deadline in ")
            say_int(error, (request.deadline_ns - now) // 1000)
            say(error, " us")
        say(error, "; retry later or send to another replica")
        return REFUSED_STANDING
    say(error, "model '")
    say(error, version.name)
    say(error, "' cannot answer in time: with what waits before it the request would take about ")
    say_int(error, expected // 1000)
    say(error, " us, its deadline is in ")
    say_int(error, (request.deadline_ns - now) // 1000)
    say(error, " us; it was not run. Send to another replica, or allow it more time")
    return REFUSED_DEADLINE


cdef int admit_to_queue(const Version *version, const Batcher *batcher, const Bounds *bounds, const Request *request,
                        int64_t beside_rows, int64_t now, ErrorText *error) noexcept nogil:
    cdef const VersionQueue *queue = <const VersionQueue *> version.queue
    cdef int64_t held = held_bytes(request)
    if is_over(version, queue.rows + beside_rows, request.rows, version.queue_limit_rows, " rows (--max-queue-rows)",
               error):
        return REFUSED_ROWS
    if is_over(version, queue.bytes, held, version.queue_limit_bytes, " bytes (--max-queue-bytes)", error):
        return REFUSED_BYTES
    if is_over(NULL, batcher.rows, request.rows, bounds.rows, " rows (--max-queue-rows-total)", error):
        return REFUSED_ROWS_TOTAL
    if is_over(NULL, batcher.bytes, held, bounds.bytes, " bytes (--max-queue-bytes-total)", error):
        return REFUSED_BYTES_TOTAL
    if version.policy != NULL and is_over_level(version, request, error):
        return REFUSED_REQUESTS
    if version.adaptive_rows and is_over(version, queue.rows + beside_rows, request.rows, version.adaptive_rows,
                                         " rows (--adaptive-limit: more would only wait longer)", error):
        return REFUSED_ADAPTIVE
    return judge_deadline(version, request, now, error) if request.deadline_ns != 0 else ADMITTED


cdef int triton_code(int code, int refusal, bint ran, ErrorText *error) noexcept nogil:
    if refusal != ADMITTED:
        error.size_bytes = 0
        say(error, "Request timeout expired" if refusal == REFUSED_TIMEOUT else "Exceeds maximum queue size")
        return STATUS_UNAVAILABLE
    # A version that failed to load, and a run that failed, whoever is to blame.
    if code == STATUS_FAILED_PRECONDITION:
        return STATUS_NOT_FOUND
    return STATUS_INTERNAL if ran and code == STATUS_INVALID_ARGUMENT else code


cdef int64_t time_to_drain_ms(const Version *version, int64_t now) noexcept nogil:
    cdef const VersionQueue *queue = <const VersionQueue *> version.queue
    cdef int64_t wait_ns = expected_ns(version, 1, rows_before(queue, queue.levels), now)
    return min(max(wait_ns // 1000000, <int64_t> 1), <int64_t> 10000)


cdef void say_waited(const Version *version, int64_t wait_ns, ErrorText *error) noexcept nogil:
    say(error, "the request waited longer than ")
    say_int(error, wait_ns // 1000)
    say(error, " us in the queue of model '")
    say(error, version.name)
    say(error, "'; it was not run. Send to another replica, or let requests wait for longer "
               "(default_timeout_microseconds, or parameter `timeout` where allow_timeout_override is set)")


cdef void say_overdue(const Version *version, ErrorText *error) noexcept nogil:
    say(error, "model '")
    say(error, version.name)
    say(error, "' version ")
    say(error, version.number)
    say(error, " ran for longer than ")
    say_int(error, version.run_timeout_ns // 1000000)
    say(error, " ms (--run-timeout, or run_timeout of the model) on the batch that held this request, and was stopped; "
               "send fewer rows, or let runs take longer")


cdef void say_no_memory(ErrorText *error) noexcept nogil:
    say(error, "the server's memory for requests is used up; retry later or send to another replica")
