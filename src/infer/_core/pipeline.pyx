"""The stages of a request in their order.

open: the call's headers are here; its deadline starts. submit: decode, route, deadline, bind, cache, queue bound,
quotas, put. An executor runs it. complete: its own status and its own rows, encoded, kept and handed to the transport.
A refusal at any stage ends the call there. Owns the deadline wheel and every Request from `open` until it is freed.
Loop thread only.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from infer._core.admission cimport (
    ADMITTED, admit_deadline, admit_to_queue, say_no_memory, say_overdue, say_waited, time_to_drain_ms)
from infer._core.arena cimport at, offset_of
from infer._core.batch cimport Batch, BatchItem, batch_free
from infer._core.batch_stats cimport count_batch
from infer._core.batcher cimport delay_queued, put, remove_queued, set_max_running
from infer._core.block cimport Block, block_data, block_unref
from infer._core.breaker cimport CLOSED, Breaker
from infer._core.cache cimport CACHE_HIT, CACHE_LEADS, CACHE_WAITS, Cache, CacheVerdict, waiting_rows_of
from infer._core.clock cimport now_ns
from infer._core.counters cimport observe
from infer._core.executor cimport ExecutorPool
from infer._core.fallback cimport divert, record_batch, say_open, static_batch
from infer._core.model_version cimport FALLBACK_PREVIOUS, FALLBACK_UNAVAILABLE, take_handle
from infer._core.queue_order cimport VersionQueue
from infer._core.queue_policy cimport REFUSED_STANDING, REFUSED_TIMEOUT, LevelPolicy, QueuePolicy, level_of, timeout_of
from infer._core.request cimport (
    ANSWERED, DONE, QUEUED, RECEIVING, RUNNING, Reply, ResponseSink, request_new, request_of, try_transition)
from infer._core.request_bind cimport bind_request, decode_typed
from infer._core.ring cimport waker_acknowledge, waker_arm
from infer._core.router cimport ModelSlot
from infer._core.row_cache cimport look_up, reply_hit
from infer._core.second_level cimport admit_forwarded, block_of
from infer._core.span cimport span_left
from infer._core.status cimport (
    STATUS_CANCELLED, STATUS_DEADLINE_EXCEEDED, STATUS_OK, STATUS_RESOURCE_EXHAUSTED, STATUS_UNAVAILABLE)
from infer._core.tenants cimport Tenants
from infer._core.tensor cimport MAX_ID_BYTES, decode_request, message_free, message_init, say
from infer._core.timer_wheel cimport TimerNode, wheel_add, wheel_expire, wheel_next_ns, wheel_remove
from infer._core.variants cimport assign_variant


cdef void expire(TimerNode *node, void *context) noexcept:
    cdef Pipeline pipeline = <Pipeline> context
    if node == &pipeline.watch:
        pipeline.look_at_runs()
    else:
        pipeline.expired(request_of(node))


cdef class Pipeline(Answers):
    """The one instance that transports submit to.

    `loop` is the event loop, `pool` the executors, `routes` the first RouteTable, `tenants` whose calls they are,
    `cache` where answers are kept, None for nowhere. `on_wake` is to be called when `pool.eventfd` becomes readable.
    """

    def __cinit__(self):
        message_init(&self.message)
        memset(&self.watch, 0, sizeof(self.watch))
        self.watch_step_ns = 0
        self.runs_stopped = 0
        self.stuck = {}
        self.withheld = {}
        self.timer = None
        self.timer_ns = INT64_MAX

    def __init__(self, loop, ExecutorPool pool not None, RouteTable routes not None, Tenants tenants not None,
                 Cache cache=None, *, bint judge_deadlines=True, int64_t codel_target_ns=0,
                 int64_t codel_interval_ns=100000000, bint triton_codes=False):
        self.loop = loop
        self.cache = cache
        self.ending_turn = False
        self.pool = pool
        self.routes = routes
        self.tenants = tenants
        self.bounds.rows = self.bounds.bytes = INT64_MAX
        self.judge_deadlines = judge_deadlines
        self.codel_target_ns = codel_target_ns
        self.codel_interval_ns = codel_interval_ns
        self.triton_codes = triton_codes
        self.on_stopped_run = None
        waker_arm(&pool.waker)

    def __dealloc__(self):
        message_free(&self.message)

    # Versions.

    def set_run_timeout(self, VersionEntry entry not None, int64_t timeout_ns):
        """How long a run of the version may take before it is stopped; 0: as long as it likes."""
        entry.c.run_timeout_ns = timeout_ns
        if timeout_ns > 0:
            self.watch_step_ns = min(self.watch_step_ns or timeout_ns, timeout_ns)
            self.watch_runs(now_ns() + timeout_ns)

    def set_routes(self, RouteTable routes not None):
        """Swaps the route table: calls submitted from now on see the new one."""
        self.routes = routes

    def close(self):
        """Stops the deadline timer and lets go of the transport; nothing may be submitted any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.after_turn = None
        if self.cache is not None:
            self.cache.close()

    # open

    cdef Request *open(self, ResponseSink sink, void *call, int64_t received_ns, int64_t deadline_ns) noexcept:
        cdef Request *request = request_new()
        cdef Reply reply
        if request == NULL:
            self.error.size_bytes = 0
            say_no_memory(&self.error)
            memset(&reply, 0, sizeof(reply))
            reply.code = STATUS_RESOURCE_EXHAUSTED
            reply.message = self.error.text
            reply.message_bytes = self.error.size_bytes
            reply.pushback_ms = -1
            self.unrouted[<int> STATUS_RESOURCE_EXHAUSTED] += 1
            sink.finish(call, &reply)
            return NULL
        request.sink = <void *> sink
        request.call = call
        request.received_ns = received_ns
        request.deadline_ns = deadline_ns
        self.in_flight += 1
        if deadline_ns != 0:
            if admit_deadline(deadline_ns, now_ns()) != STATUS_OK:
                self.say_late(request)
                self.answer(request, STATUS_DEADLINE_EXCEEDED, -1)
                return NULL
            wheel_add(&self.wheel, &request.timer, deadline_ns)
            if deadline_ns < self.timer_ns:
                self.arm(deadline_ns)
        return request

    cdef bint identify(self, Request *request, const uint8_t *name, uint64_t name_bytes, int source) noexcept:
        cdef int code
        self.error.size_bytes = 0
        code = self.tenants.identify(request, name, name_bytes, source, &self.error)
        if code != STATUS_OK:
            self.answer(request, code, -1)
        return code == STATUS_OK

    cdef void arm(self, int64_t deadline_ns) except *:
        cdef int64_t wait_ns = deadline_ns - now_ns()
        if self.timer is not None:
            self.timer.cancel()
        self.timer_ns = deadline_ns
        # uvloop's timers count whole milliseconds.
        self.timer = self.loop.call_later(max(1, wait_ns // 1000000 + 1) / 1000.0, self.on_timer)

    def on_timer(self):
        """Ends the calls whose deadline has come."""
        cdef int64_t following
        self.timer = None
        self.timer_ns = INT64_MAX
        wheel_expire(&self.wheel, now_ns(), expire, <void *> self)
        following = wheel_next_ns(&self.wheel)
        if following >= 0:
            self.arm(following)
        if self.after_turn is not None:
            self.after_turn()

    cdef void expired(self, Request *request) noexcept:
        if request.wait_until_ns != 0 and self.waited(request):
            return
        # One that an executor has, if only since this moment, runs on: its caller has the answer, its memory waits.
        if request.state == QUEUED and remove_queued(&self.pool.batcher, request):
            (<VersionEntry> request.version).stats.expired_queued += 1
        elif try_transition(request, RUNNING, ANSWERED):
            (<VersionEntry> request.version).stats.expired_running += 1
        self.say_late(request)
        self.answer(request, STATUS_DEADLINE_EXCEEDED, -1)

    cdef bint waited(self, Request *request) noexcept:
        """Its time in the queue is over, which is nothing to one that runs: from now on its deadline counts alone.
        False: that has come as well."""
        cdef VersionEntry entry = <VersionEntry> request.version
        cdef int64_t wait_ns = request.wait_until_ns - request.queued_ns
        if request.deadline_ns != 0 and request.deadline_ns <= request.wait_until_ns:
            return False
        request.wait_until_ns = 0
        if request.state == QUEUED and request.delays:
            entry.stats.delayed += delay_queued(&self.pool.batcher, request, now_ns())
        elif request.state == QUEUED and remove_queued(&self.pool.batcher, request):
            entry.stats.refused[<int> REFUSED_TIMEOUT] += 1
            self.refusal = REFUSED_TIMEOUT
            self.error.size_bytes = 0
            say_waited(&entry.c, wait_ns, &self.error)
            self.answer(request, STATUS_DEADLINE_EXCEEDED, -1)
            return True
        if request.deadline_ns != 0:
            # `on_timer` sets the loop's timer for it.
            wheel_add(&self.wheel, &request.timer, request.deadline_ns)
        return True

    # Runs that take too long.

    cdef void watch_runs(self, int64_t due_ns) noexcept:
        """Has the runs looked at by that time. One that begins later is due later than this, since it was put before it
        began and no version may take less than `watch_step_ns`."""
        if self.watch.next == NULL or due_ns < self.watch.deadline_ns:
            wheel_add(&self.wheel, &self.watch, due_ns)
            if due_ns < self.timer_ns:
                self.arm(due_ns)

    cdef void look_at_runs(self) noexcept:
        cdef int64_t now = now_ns()
        cdef int64_t next_ns = INT64_MAX
        cdef VersionEntry entry
        cdef Batch *batch
        cdef bint stuck = False
        cdef int i
        for i in range(self.pool.count):
            batch = self.pool.stop_overdue(i, now, &next_ns, &stuck)
            if batch == NULL:
                continue
            entry = <VersionEntry> batch.items[0].request.version
            if stuck:
                self.withhold(batch)
            else:
                self.give_up(batch, now)
            if self.on_stopped_run is not None:
                self.on_stopped_run(entry, now - batch.taken_ns, stuck)
        if self.in_flight > 0 and self.watch_step_ns > 0:
            next_ns = min(next_ns, now + self.watch_step_ns)
        if next_ns != INT64_MAX:
            # `on_timer` sets the loop's timer for it.
            wheel_add(&self.wheel, &self.watch, next_ns)

    cdef void give_up(self, Batch *batch, int64_t now) noexcept:
        """Answers a batch whose run was told to end. Its memory waits until it has: `complete` finds it answered."""
        cdef VersionEntry entry = <VersionEntry> batch.items[0].request.version
        cdef Request *request
        cdef int i
        self.runs_stopped += 1
        if entry.c.breaker != NULL:
            record_batch(entry, batch, STATUS_DEADLINE_EXCEEDED, now - batch.taken_ns, now)
        for i in range(batch.n_items):
            request = batch.items[i].request
            if try_transition(request, RUNNING, ANSWERED):
                self.error.size_bytes = 0
                say_overdue(&entry.c, &self.error)
                self.answer(request, STATUS_DEADLINE_EXCEEDED, -1)

    cdef void withhold(self, Batch *batch) noexcept:
        """Its run does not end: the version gets no other executor until it does, or it might take all of them."""
        cdef VersionEntry entry = <VersionEntry> batch.items[0].request.version
        self.stuck[<uint64_t> batch] = entry
        self.withheld.setdefault(entry, entry.c.max_running)
        set_max_running(&self.pool.batcher, <VersionQueue *> entry.c.queue, 1)

    cdef void give_back(self, Batch *batch) noexcept:
        cdef VersionEntry entry = self.stuck.pop(<uint64_t> batch, None)
        if entry is not None and entry not in self.stuck.values():
            set_max_running(&self.pool.batcher, <VersionQueue *> entry.c.queue, <int32_t> self.withheld.pop(entry))
            self.kick()

    # submit

    cdef void submit(self, Request *request, Block *body, uint64_t start, uint64_t size_bytes) noexcept:
        cdef int code
        cdef void *found
        cdef const ModelSlot *model = NULL
        cdef VersionEntry entry
        cdef Binding binding
        cdef int64_t now = now_ns()
        request.body = body
        request.body_start = <uint32_t> start
        request.body_bytes = <uint32_t> size_bytes
        self.error.size_bytes = 0
        code = decode_request(block_data(body) + start, size_bytes, &self.message, &self.error)
        # An error says whose it is as well; an id that is too long for a reply is the error itself.
        if span_left(&self.message.id) <= MAX_ID_BYTES:
            request.id_offset = offset_of(self.message.id.at)
            request.id_bytes = <uint16_t> span_left(&self.message.id)
        request.final_asked = self.message.final_asked != 0
        if code != STATUS_OK:
            self.answer(request, code, -1)
            return
        found = self.routes.route(&self.message.model_name, &self.message.model_version, &model, &code, &self.error)
        if model != NULL and model.split != NULL and span_left(&self.message.model_version) == 0:
            found = assign_variant(model.split, request, block_data(body) + start, size_bytes, found)
        if found == NULL:
            self.answer(request, code, -1)
            return
        # Its default may be none, and it is for another.
        self.error.size_bytes = 0
        entry = <VersionEntry> found
        if entry.c.closing:
            say(&self.error, "model '")
            say(&self.error, entry.c.name)
            say(&self.error, "' version ")
            say(&self.error, entry.c.number)
            say(&self.error, " is being unloaded; retry later or send to another replica")
            self.answer(request, STATUS_UNAVAILABLE, -1)
            return
        if entry.c.breaker != NULL and (<Breaker *> entry.c.breaker).state != CLOSED:
            found = divert(entry, request, self.routes, span_left(&self.message.model_version) > 0, now)
            entry = <VersionEntry> found
        request.version = found
        take_handle(entry)
        # The timer of a deadline that passed this very moment has not fired yet.
        code = admit_deadline(request.deadline_ns, now)
        if code != STATUS_OK:
            self.say_late(request)
        elif span_left(&self.message.forwarded) > 0:
            code = admit_forwarded(entry, &self.message, &self.error)
        if code != STATUS_OK:
            self.answer(request, code, -1)
            return
        if request.fallback > FALLBACK_PREVIOUS:
            self.stand_in(request, entry, now)
            return
        binding.typed_bytes = 0
        code = bind_request(&self.message, request, entry, &binding, &self.error)
        if code != STATUS_OK:
            self.answer(request, code, -1)
        elif entry.c.cached == NULL or not self.recall(request, entry, now):
            self.enter(request, entry, &binding, now)

    cdef bint recall(self, Request *request, VersionEntry entry, int64_t now) noexcept:
        """Whether the cache has its answer, or has it wait for an identical one's."""
        cdef CacheVerdict verdict = look_up(
            self.cache, request, &self.message, (<VersionQueue *> entry.c.queue).rows, now)
        cdef int n
        if verdict == CACHE_HIT or verdict == CACHE_WAITS:
            # It runs no rows, or none yet.
            if not self.allow(request, entry, 0, now):
                return True
            self.tenants.charge(request, &entry.c, 0)
        if verdict == CACHE_HIT:
            n = reply_hit(self.cache, request, self.segments)
            if n > 0:
                self.send(request, n)
                return True
        elif verdict == CACHE_WAITS:
            request.level = 0 if entry.c.policy == NULL else level_of(entry.c.policy, self.message.priority)
            return True
        elif (verdict == CACHE_LEADS and self.second is not None and not request.planned
              and self.second.ask(request, &self.message)):
            request.level = 0 if entry.c.policy == NULL else level_of(entry.c.policy, self.message.priority)
            return True
        return False

    def on_second(self, uint64_t address, int64_t ticket, bytes tail):
        """What the second level has for a request that asked it; None: nothing. False: it is no answer to that."""
        cdef Request *request = self.second.claim(address, ticket)
        cdef Request *waiting
        cdef VersionEntry entry
        cdef Block *block = NULL
        cdef int64_t now = now_ns()
        cdef bint fits
        if request == NULL:
            return True
        self.error.size_bytes = 0
        fits = tail is None or self.second.fits(request, tail)
        if tail is not None and fits:
            block = block_of(tail)
        if block == NULL:
            self.enter_alone(request)
            self.kick()
        else:
            entry = <VersionEntry> request.version
            if self.allow(request, entry, 0, now):
                self.tenants.charge(request, &entry.c, 0)
                self.cache.keep_tail(request, block_data(block), block.size_bytes)
                waiting = self.cache.take_waiting(request, now)
                while waiting != NULL:
                    self.send_kept(waiting, block)
                    waiting = self.cache.take_waiting(request, now)
                self.send_kept(request, block)
            block_unref(block)
        if self.after_turn is not None:
            self.after_turn()
        return fits

    cdef void enter_alone(self, Request *request) noexcept:
        """One that has waited, whose message is gone."""
        cdef Binding binding
        binding.typed_bytes = 0
        self.error.size_bytes = 0
        self.message.priority = request.level
        self.message.timeout_us = 0
        self.enter(request, <VersionEntry> request.version, &binding, now_ns())

    cdef void enter(self, Request *request, VersionEntry entry, Binding *binding, int64_t now) noexcept:
        """Through the queue's gates and into it, or answered."""
        cdef VersionQueue *queue = <VersionQueue *> entry.c.queue
        cdef int64_t pushback_ms = -1
        # Those that wait for a run take its room as well.
        cdef int64_t beside_rows = waiting_rows_of(&entry.c)
        cdef bint waits = queue.rows + beside_rows > 0
        cdef int code
        code = self.admit(request, entry, binding, beside_rows, now)
        if code == STATUS_OK:
            if not self.allow(request, entry, request.rows, now):
                return
            if entry.c.policy != NULL:
                self.arm_wait(request, entry.c.policy, now)
            if put(&self.pool.batcher, request, queue, now):
                self.tenants.charge(request, &entry.c, request.rows)
                if entry.c.run_timeout_ns > 0:
                    self.watch_runs(now + entry.c.run_timeout_ns)
                return
            say(&self.error, "the server's memory for its queues is used up; retry later or send to another replica")
            code = STATUS_RESOURCE_EXHAUSTED
        elif code == STATUS_RESOURCE_EXHAUSTED and (waits or self.refusal != ADMITTED):
            pushback_ms = time_to_drain_ms(&entry.c, now)
        self.answer(request, code, pushback_ms)

    cdef void stand_in(self, Request *request, VersionEntry entry, int64_t now) noexcept:
        """Answers in the place of a version whose breaker is open."""
        cdef Binding binding
        cdef Batch *batch
        cdef int64_t pushback_ms = -1
        cdef int code
        if request.fallback == FALLBACK_UNAVAILABLE:
            code = say_open(entry, &self.error, now, &pushback_ms)
            self.answer(request, code, pushback_ms)
            return
        binding.typed_bytes = 0
        code = bind_request(&self.message, request, entry, &binding, &self.error)
        if code == STATUS_OK:
            # It runs no rows.
            if not self.allow(request, entry, 0, now):
                return
            self.tenants.charge(request, &entry.c, 0)
            batch = static_batch(entry, request)
            if batch != NULL and self.reply(request, batch, 0):
                batch_free(batch)
                return
            if batch != NULL:
                batch_free(batch)
            say_no_memory(&self.error)
            code = STATUS_RESOURCE_EXHAUSTED
        self.answer(request, code, -1)

    cdef bint allow(self, Request *request, VersionEntry entry, int64_t rows, int64_t now) noexcept:
        """Whether the quotas of its tenant and its model do; False: it was refused."""
        cdef int64_t pushback_ms = -1
        cdef int code = self.tenants.admit(request, &entry.c, rows, now, &pushback_ms, &self.error)
        if code != STATUS_OK:
            self.answer(request, code, pushback_ms)
        return code == STATUS_OK

    cdef int admit(self, Request *request, VersionEntry entry, Binding *binding, int64_t beside_rows,
                   int64_t now) noexcept:
        """Through the gates of the queue; then what is decoded for a request that is taken in alone."""
        cdef VersionQueue *queue = <VersionQueue *> entry.c.queue
        if entry.c.policy != NULL:
            request.level = level_of(entry.c.policy, self.message.priority)
        self.refusal = admit_to_queue(&entry.c, &self.pool.batcher, &self.bounds, request, beside_rows, now,
                                      &self.error)
        queue.codel.came_rows += request.rows
        if self.refusal != ADMITTED:
            entry.stats.refused[self.refusal] += 1
            self.pool.go_first(now)
            self.end_turn_soon()
            if self.refusal == REFUSED_STANDING:
                queue.codel.refused_ns = now
            return STATUS_RESOURCE_EXHAUSTED
        if binding.typed_bytes == 0 or request.deferred:
            return STATUS_OK
        return decode_typed(request, &entry.c.signature, &self.error)

    cdef void arm_wait(self, Request *request, const QueuePolicy *policy, int64_t now) noexcept:
        """How long it may wait: the earlier of that and its deadline is timed."""
        cdef const LevelPolicy *of_level = &policy.of_level[request.level]
        cdef int64_t timeout_ns = timeout_of(of_level, self.message.timeout_us)
        if timeout_ns == 0:
            return
        request.delays = of_level.delays
        request.wait_until_ns = now + timeout_ns
        if request.deadline_ns == 0 or request.wait_until_ns < request.deadline_ns:
            wheel_add(&self.wheel, &request.timer, request.wait_until_ns)
            if request.wait_until_ns < self.timer_ns:
                self.arm(request.wait_until_ns)

    cdef void cancel(self, Request *request, int code=STATUS_CANCELLED) noexcept:
        request.sink = NULL
        self.count(request, code)
        if request.state == QUEUED and remove_queued(&self.pool.batcher, request):
            self.retire(request)
        elif request.state == RECEIVING:
            self.retire(request)
        else:
            wheel_remove(&self.wheel, &request.timer)
            try_transition(request, RUNNING, ANSWERED)

    # complete

    def on_wake(self):
        """Hands out what the executors have finished; called when the pool's eventfd is readable."""
        cdef Batch *batch
        cdef bint armed = False
        waker_acknowledge(&self.pool.waker)
        if self.pool.goes_first():
            self.end_turn_soon()
        while True:
            batch = self.pool.take_finished()
            if batch != NULL:
                self.complete(batch)
            elif armed:
                break
            else:
                waker_arm(&self.pool.waker)
                armed = True
        if self.after_turn is not None:
            self.after_turn()

    cdef void end_turn_soon(self) noexcept:
        """Once whatever is ready now has been read. Owed to the executors after a wake and after a refusal."""
        if not self.ending_turn:
            self.ending_turn = True
            self.loop.call_soon(self.end_turn)

    def end_turn(self):
        """Lets the executors that wait for the loop go on."""
        self.ending_turn = False
        self.pool.end_turn(now_ns())

    cdef void complete(self, Batch *batch) noexcept:
        cdef VersionEntry entry
        cdef BatchItem *item
        cdef Request *request
        cdef Block *text
        cdef int i
        cdef int64_t queue_ns
        cdef int64_t compute_ns = batch.done_ns - batch.taken_ns
        # The version cannot go while this batch's requests hold it.
        entry = <VersionEntry> batch.items[0].request.version
        count_batch(entry, batch)
        if batch.stopped:
            self.give_back(batch)
        elif entry.c.breaker != NULL:
            record_batch(entry, batch, STATUS_OK, compute_ns, batch.done_ns)
        for i in range(batch.n_items):
            item = &batch.items[i]
            request = item.request
            if item.code == STATUS_OK:
                entry.stats.rows += request.rows
            queue_ns = batch.taken_ns - request.queued_ns
            observe(&entry.stats.queue, queue_ns)
            observe(&entry.stats.compute, compute_ns)
            if item.code == STATUS_OK and request.flight != NULL:
                self.share(request, batch, i)
            if request.state == ANSWERED:
                self.retire(request)
                continue
            try_transition(request, RUNNING, DONE)
            if item.code == STATUS_OK and self.reply(request, batch, i):
                entry.stats.queue_ns += queue_ns
                entry.stats.gather_ns += batch.gathered_ns - batch.taken_ns
                entry.stats.run_ns += batch.ran_ns - batch.gathered_ns
                entry.stats.scatter_ns += batch.done_ns - batch.ran_ns
                continue
            self.error.size_bytes = 0
            if item.code == STATUS_OK:
                item.code = self.say_no_reply(request)
            elif request.error != 0:
                text = <Block *> at(request.error)
                memcpy(self.error.text, block_data(text), text.size_bytes)
                self.error.size_bytes = <uint32_t> text.size_bytes
            elif item.code == STATUS_RESOURCE_EXHAUSTED:
                say_no_memory(&self.error)
            else:
                say(&self.error, "the model could not be run on this request; the server's log says why")
            self.answer(request, item.code, -1)
        if batch.detail != NULL:
            self.report(entry, batch.detail)
        batch_free(batch)
