"""Guards of versions. See fallback.pxd.

What counts as an error is what the version did wrong: a run that failed (INTERNAL) or was ended for taking too long. A
request that its version refuses, one that is cancelled or comes too late, and memory that runs out do not count.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int16_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from infer._core.arena cimport offset_of
from infer._core.batch cimport BatchItem, batch_free, batch_new
from infer._core.block cimport Block, block_data, block_new
from infer._core.breaker cimport (
    CALL_ERROR, CALL_GOOD, CALL_NO_MATTER, CLOSED, HALF_OPEN, OPEN, WHOLE_SHARE, WINDOW_BUCKETS, BreakerLimits,
    Breaker, breaker_admit, breaker_count, breaker_init, breaker_limit, breaker_record, breaker_release,
    breaker_wait_ns)
from infer._core.clock cimport now_ns
from infer._core.model_version cimport FALLBACK_PREVIOUS, FALLBACK_STATIC, FALLBACK_UNAVAILABLE, FALLBACKS
from infer._core.span cimport Span, span_over
from infer._core.status cimport STATUS_DEADLINE_EXCEEDED, STATUS_INTERNAL, STATUS_OK, STATUS_UNAVAILABLE
from infer._core.tensor cimport data_type_of, say, say_int
from infer._core.tensor_view cimport TensorView, mask_has

from infer._core.model_version import FALLBACK_NAMES
from infer.errors import InvalidArgument

STATES = {CLOSED: "closed", HALF_OPEN: "half-open", OPEN: "open"}
NAMES = tuple(name.decode() for name in FALLBACK_NAMES)

cdef enum:
    TRIAL_PUSHBACK_MS = 100      # while a trial is on, nobody knows how long


@cython.final
cdef class Guard:
    """A version's breaker and what answers while it is open. `fallback`: previous, static or unavailable; for static,
    `reply` has (datatype, shape, bytes) of every output in its order, of a request of one row. Shares are from 0 to 1;
    `slow_ns` 0: no call is slow."""

    def __init__(self, VersionEntry entry not None, *, on_change=None, **limits):
        memset(self.answered, 0, sizeof(self.answered))
        self.breaker.limits.window_ns = WINDOW_BUCKETS
        self.on_change = on_change
        self.breaker.closed_ns = -1
        self.set_limits(entry, **limits)

    def set_limits(self, VersionEntry entry not None, *, str fallback not None, int64_t window_ns, int64_t min_calls,
                   double error_rate, int64_t slow_ns, double slow_rate, int64_t open_ns, int probes, reply=()):
        """Other limits. What was counted stays, and so does the state."""
        cdef BreakerLimits limits
        if (window_ns < WINDOW_BUCKETS or min(min_calls, open_ns, probes) < 1 or slow_ns < 0
                or not (0 < error_rate <= 1 and 0 < slow_rate <= 1)):
            raise ValueError(f"{entry!r}: limits of its breaker are out of their bounds")
        limits.window_ns = window_ns
        limits.min_calls = min_calls
        limits.error_share = max(1, round(error_rate * WHOLE_SHARE))
        limits.slow_ns = slow_ns
        limits.slow_share = max(1, round(slow_rate * WHOLE_SHARE))
        limits.open_ns = open_ns
        limits.probes = probes
        self.fallback = NAMES.index(fallback, FALLBACK_PREVIOUS)
        self.reply = encoded_reply(entry, reply) if self.fallback == FALLBACK_STATIC else ()
        if self.breaker.closed_ns < 0:
            breaker_init(&self.breaker, &limits, now_ns())
        else:
            breaker_limit(&self.breaker, &limits, now_ns())

    @property
    def state(self):
        """closed, half-open or open, as of its last call."""
        return STATES[self.breaker.state]

    @property
    def state_number(self):
        """0, 1 or 2, in the same order."""
        return self.breaker.state

    @property
    def opened(self):
        return self.breaker.opened_total

    @property
    def wait_ns(self):
        """How long calls are refused for certain."""
        return breaker_wait_ns(&self.breaker, now_ns())

    @property
    def why(self):
        """What it has opened for."""
        cdef ErrorText text
        text.size_bytes = 0
        say_why(self, &text)
        return text.text[:text.size_bytes].decode()

    def answered_by(self):
        """Calls that were meant for the version, by what answered them."""
        cdef int kind
        return {NAMES[kind]: self.answered[kind] for kind in range(FALLBACK_PREVIOUS, FALLBACKS)}


def set_guard(VersionEntry entry not None, limits, on_change=None):
    """Gives the version a guard with these limits, as `Guard` takes them, or others to the one that it has; None:
    nobody watches it any more."""
    if limits is None:
        entry.c.breaker = NULL
        entry.guard = None
    elif entry.guard is not None:
        entry.guard.set_limits(entry, **limits)
    else:
        entry.guard = Guard(entry, on_change=on_change, **limits)
        entry.c.breaker = &(<Guard> entry.guard).breaker


def answers(RouteTable routes not None, VersionEntry entry not None, bint named):
    """Whether a call that is routed to the version would be answered with a prediction, as far as its breaker goes.
    `named`: it names the version."""
    cdef Guard guard = entry.guard
    cdef VersionEntry other
    cdef void *found
    cdef int nth = 0
    if guard is None or breaker_wait_ns(&guard.breaker, now_ns()) == 0:
        return True
    if named:
        return False
    if guard.fallback == FALLBACK_PREVIOUS:
        while (found := routes.below(entry, nth)) != NULL:
            other = <VersionEntry> found
            if other.guard is None or breaker_wait_ns(&(<Guard> other.guard).breaker, now_ns()) == 0:
                return True
            nth += 1
    return guard.fallback == FALLBACK_STATIC


cdef tuple encoded_reply(VersionEntry entry, reply):
    """What `static_batch` copies. Raises InvalidArgument for a reply that the model could not have given."""
    cdef Span span
    cdef bytes kind
    given = {name: (datatype, shape, data) for name, datatype, shape, data in reply}
    encoded = []
    for info in entry.outputs:
        if not info.served:
            encoded.append(None)
            continue
        if info.name not in given:
            raise InvalidArgument(f"the fallback's reply has no output {info.name!r}; it has "
                                  f"{', '.join(given) or 'none'}")
        datatype, shape, data = given.pop(info.name)
        expected = info.shape if not entry.batched or not info.shape else (1, *info.shape[1:])
        if datatype != info.datatype or (expected is not None and (len(shape) != len(expected) or any(
                own >= 0 and own != size for own, size in zip(expected, shape, strict=True)))):
            raise InvalidArgument(f"output {info.name!r} of the fallback's reply: expected {info.datatype} "
                                  f"{list(expected or [])}, got {datatype} {list(shape)}")
        kind = datatype.encode()
        span = span_over(<const uint8_t *> PyBytes_AS_STRING(kind), <uint64_t> len(kind))
        encoded.append((data_type_of(&span), tuple(shape), data))
    if given:
        raise InvalidArgument(f"the model has no output {', '.join(given)}, which the fallback's reply has")
    return tuple(encoded)


cdef void tell(VersionEntry entry, Guard guard, int before) noexcept:
    if guard.breaker.state != before and guard.on_change is not None:
        guard.on_change(entry)


cdef bint admit(VersionEntry entry, Guard guard, Request *request, int64_t now) noexcept:
    cdef int before = guard.breaker.state
    cdef uint32_t probe = 0
    cdef bint admitted = breaker_admit(&guard.breaker, now, &probe)
    request.probe = probe
    if before != CLOSED:
        tell(entry, guard, before)
    return admitted


cdef void *divert(VersionEntry entry, Request *request, RouteTable routes, bint named, int64_t now) noexcept:
    cdef Guard guard = <Guard> entry.guard
    cdef VersionEntry other
    cdef void *found
    cdef int nth = 0
    if admit(entry, guard, request, now):
        return <void *> entry
    if guard.fallback == FALLBACK_PREVIOUS and not named:
        found = routes.below(entry, nth)
        while found != NULL:
            other = <VersionEntry> found
            if not other.c.closing and (other.c.breaker == NULL
                                        or admit(other, <Guard> other.guard, request, now)):
                request.fallback = FALLBACK_PREVIOUS
                guard.answered[<int> FALLBACK_PREVIOUS] += 1
                return found
            nth += 1
            found = routes.below(entry, nth)
    request.fallback = FALLBACK_STATIC if guard.fallback == FALLBACK_STATIC else FALLBACK_UNAVAILABLE
    guard.answered[request.fallback] += 1
    return <void *> entry


cdef void say_why(Guard guard, ErrorText *error) noexcept:
    if guard.breaker.opened_by.errors > 0:
        say_int(error, guard.breaker.opened_by.errors)
    else:
        say_int(error, guard.breaker.opened_by.slow)
    say(error, " of its last ")
    say_int(error, guard.breaker.opened_by.calls)
    if guard.breaker.opened_by.errors > 0:
        say(error, " calls failed")
    else:
        say(error, " calls ran for ")
        say_int(error, guard.breaker.limits.slow_ns // 1000000)
        say(error, " ms or longer")


cdef int say_open(VersionEntry entry, ErrorText *error, int64_t now, int64_t *pushback_ms) noexcept:
    cdef Guard guard = <Guard> entry.guard
    cdef int64_t wait_ns = breaker_wait_ns(&guard.breaker, now)
    say(error, "model '")
    say(error, entry.c.name)
    say(error, "' version ")
    say(error, entry.c.number)
    say(error, " is not called for now, since ")
    say_why(guard, error)
    if wait_ns > 0:
        pushback_ms[0] = (wait_ns + 999999) // 1000000
        say(error, "; it is tried again in ")
        say_int(error, pushback_ms[0])
        say(error, " ms")
    else:
        pushback_ms[0] = TRIAL_PUSHBACK_MS
        say(error, "; it is being tried with other calls")
    say(error, "; retry then, or send to another version or replica")
    return STATUS_UNAVAILABLE


cdef Batch *static_batch(VersionEntry entry, Request *request) noexcept:
    cdef Guard guard = <Guard> entry.guard
    cdef int64_t times = request.rows if entry.c.signature.batched else 1
    cdef Batch *batch = batch_new(&request, 1, request.rows)
    cdef TensorView *view
    cdef Block *block
    cdef bytes data
    cdef uint64_t row_bytes
    cdef int64_t row
    cdef int i, k
    if batch == NULL:
        return NULL
    batch.gathered_ns = batch.ran_ns = batch.done_ns = batch.taken_ns
    batch.n_runs = 1
    batch.items[0].code = STATUS_OK
    memset(batch.runs[0].views, 0, <size_t> batch.n_outputs * sizeof(TensorView))
    memset(batch.runs[0].blocks, 0, <size_t> batch.n_outputs * sizeof(Block *))
    for i in range(batch.n_outputs):
        if not mask_has(&request.outputs, i):
            continue
        data_type, shape, data = guard.reply[i]
        row_bytes = <uint64_t> len(data)
        block = block_new(row_bytes * <uint64_t> times)
        if block == NULL:
            batch_free(batch)
            return NULL
        batch.runs[0].blocks[i] = block
        for row in range(times):
            memcpy(block_data(block) + <uint64_t> row * row_bytes, PyBytes_AS_STRING(data), row_bytes)
        block.size_bytes = row_bytes * <uint64_t> times
        view = &batch.runs[0].views[i]
        view.data = offset_of(block_data(block))
        view.size_bytes = block.size_bytes
        view.data_type = data_type
        view.rank = <int16_t> len(shape)
        for k in range(view.rank):
            view.shape[k] = shape[k]
        batch.outputs[i].data = view.data
        batch.outputs[i].size_bytes = view.size_bytes
    return batch


cdef inline int outcome_of(int code) noexcept nogil:
    if code == STATUS_OK:
        return CALL_GOOD
    return CALL_ERROR if code == STATUS_INTERNAL or code == STATUS_DEADLINE_EXCEEDED else CALL_NO_MATTER


cdef void record_batch(VersionEntry entry, const Batch *batch, int code, int64_t ran_ns, int64_t now) noexcept:
    cdef Breaker *breaker = <Breaker *> entry.c.breaker
    cdef int before = breaker.state
    cdef const BatchItem *item
    cdef int64_t calls = 0
    cdef int64_t errors = 0
    cdef int outcome, i
    for i in range(batch.n_items):
        item = &batch.items[i]
        outcome = outcome_of(item.code if code == STATUS_OK else code)
        if item.request.probe != 0:
            breaker_record(breaker, outcome, ran_ns, item.request.probe, now)
            item.request.probe = 0
        elif outcome != CALL_NO_MATTER:
            calls += 1
            errors += outcome == CALL_ERROR
    breaker_count(breaker, calls, errors, ran_ns, now)
    if breaker.state != before:
        tell(entry, <Guard> entry.guard, before)


cdef void leave_trial(VersionEntry entry, Request *request) noexcept:
    if entry.c.breaker != NULL:
        breaker_release(<Breaker *> entry.c.breaker, request.probe)
    request.probe = 0
