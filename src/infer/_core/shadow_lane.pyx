"""The lane of shadows: decode, bind, run in batches, compare, publish.

Requests are the loop's before and after; while a group is given, only the lane touches its copies. References of Blocks
are counted by the loop alone: what the lane makes it hands over in the group's batches.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from infer._core.arena cimport at
from infer._core.batch cimport batch_new, batch_run, scratch_clear, scratch_free, scratch_init
from infer._core.block cimport Block, block_data
from infer._core.capi.atomics cimport load_acquire_i32, store_release_i32
from infer._core.capi.pthread cimport (
    SIG_SETMASK, pthread_create, pthread_join, pthread_mutex_trylock, pthread_mutex_unlock, pthread_setname_np,
    pthread_sigmask, sigfillset, sigset_t)
from infer._core.clock cimport now_ns
from infer._core.difference cimport Difference, Output, badness, compare, count_difference
from infer._core.idle_thread cimport become_idle, ensure_proxy
from infer._core.ort_watch cimport watch_stop
from infer._core.queue_order cimport same_shape
from infer._core.reply cimport item_slices
from infer._core.reply_reader cimport output_named, read_reply
from infer._core.ring cimport waker_notify
from infer._core.status cimport STATUS_OK
from infer._core.tensor cimport (
    Binding, OutputSlice, bind_inputs, clear_error, decode_request, message_free, message_init, say)
from infer._core.tensor_view cimport TensorSpec, mask_has

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
    int open_eventfd "eventfd"(unsigned int initial, int flags) noexcept

cdef extern from "<unistd.h>" nogil:
    int close(int fd) noexcept
    ssize_t read(int fd, void *buffer, size_t size) noexcept
    ssize_t write(int fd, const void *buffer, size_t size) noexcept
    int usleep(unsigned int us) noexcept

cdef enum:
    INTERRUPT_US = 1000          # between two attempts to end a run


cdef int lane_open(Lane *lane, Waker *waker) noexcept nogil:
    memset(lane, 0, sizeof(Lane))
    message_init(&lane.message)
    lane.waker = waker
    lane.work_fd = open_eventfd(0, EFD_CLOEXEC)
    return -1 if scratch_init(&lane.scratch) != 0 or lane.work_fd < 0 else 0


cdef void lane_close(Lane *lane) noexcept nogil:
    scratch_free(&lane.scratch)
    message_free(&lane.message)
    if lane.work_fd >= 0:
        close(lane.work_fd)


# The loop's side.

cdef inline void signal(Lane *lane) noexcept nogil:
    cdef uint64_t one = 1
    write(lane.work_fd, &one, sizeof(one))


cdef int lane_start(Lane *lane) noexcept nogil:
    cdef sigset_t every, before
    cdef int failed
    ensure_proxy()
    sigfillset(&every)
    pthread_sigmask(SIG_SETMASK, &every, &before)
    failed = pthread_create(&lane.thread, NULL, work, lane)
    if not failed:
        pthread_setname_np(lane.thread, b"infer-shadow")
        lane.started = 1
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    return failed


cdef void lane_stop(Lane *lane) noexcept nogil:
    if not lane.started:
        return
    store_release_i32(&lane.stopping, 1)
    signal(lane)
    # A run that was just beginning is not seen at the first attempt.
    while not load_acquire_i32(&lane.finished):
        lane_interrupt(lane)
        usleep(INTERRUPT_US)
    pthread_join(lane.thread, NULL)
    lane.started = lane.finished = 0
    scratch_clear(&lane.scratch)


cdef void lane_give(Lane *lane) noexcept nogil:
    store_release_i32(&lane.state, LANE_GIVEN)
    signal(lane)


cdef void lane_interrupt(Lane *lane) noexcept nogil:
    # The lane may have lost its core while it holds it.
    if pthread_mutex_trylock(&lane.scratch.watch.mutex) != 0:
        return
    if lane.scratch.watch.batch != NULL and lane.scratch.watch.stopped_ns == 0:
        watch_stop(&lane.scratch.watch, now_ns())
    pthread_mutex_unlock(&lane.scratch.watch.mutex)


# The lane's own side.

cdef void *work(void *argument) noexcept nogil:
    cdef Lane *lane = <Lane *> argument
    cdef uint64_t count
    become_idle()
    while True:
        if load_acquire_i32(&lane.state) == LANE_GIVEN:
            lane_step(lane)
        elif load_acquire_i32(&lane.stopping):
            store_release_i32(&lane.finished, 1)
            return NULL
        else:
            read(lane.work_fd, &count, sizeof(count))


cdef void fail(Group *group, Copy *copy, const ErrorText *why) noexcept nogil:
    copy.outcome = COPY_FAILED
    if group.failure.size_bytes == 0:
        group.failure = why[0]


cdef bint bind(Lane *lane, Copy *copy) noexcept nogil:
    """Its tensors by the shadow's signature."""
    cdef Request *request = copy.request
    cdef Binding binding
    cdef int code
    clear_error(&lane.error)
    code = decode_request(block_data(request.body) + request.body_start, request.body_bytes, &lane.message,
                          &lane.error)
    if code == STATUS_OK:
        code = bind_inputs(&lane.message, &lane.group.version.signature, request.views, &binding, &lane.error)
    if code != STATUS_OK:
        fail(&lane.group, copy, &lane.error)
        return False
    request.rows = binding.rows
    request.outputs = binding.outputs
    request.deferred = binding.typed_bytes != 0
    return True


cdef int gather(Lane *lane, int first, Request **requests, int64_t *rows) noexcept nogil:
    """The copies that make one batch with the first that is not yet in any; marks them as being in the next one."""
    cdef Group *group = &lane.group
    cdef Copy *copy
    cdef int count = 0
    cdef int i
    rows[0] = 0
    for i in range(first, group.n_copies):
        copy = group.copies[i]
        if copy.item >= 0 or copy.outcome == COPY_FAILED:
            continue
        if count > 0 and (rows[0] + copy.request.rows > group.version.gather_rows
                          or not same_shape(requests[0], copy.request)):
            continue
        requests[count] = copy.request
        rows[0] += copy.request.rows
        copy.item = count
        count += 1
        if not group.version.signature.batched:
            break
    return count


cdef void judge(Lane *lane, Copy *copy) noexcept nogil:
    """Holds its outputs against the primary's."""
    cdef Group *group = &lane.group
    cdef Request *request = copy.request
    cdef OutputSlice slices[256]
    cdef Output own
    cdef const Output *primary
    cdef const TensorSpec *spec
    cdef Difference difference
    cdef int32_t partners = 0
    cdef int32_t k
    if not read_reply(copy.segments, copy.n_segments, &lane.reply):
        clear_error(&lane.error)
        say(&lane.error, "the primary's reply has more than a comparison can hold")
        fail(group, copy, &lane.error)
        return
    item_slices(copy.batch, copy.item, &request.outputs, slices)
    for k in range(group.version.signature.n_outputs):
        if not mask_has(&request.outputs, k):
            continue
        spec = &group.version.signature.outputs[k]
        own.data = slices[k].data
        own.size_bytes = slices[k].size_bytes
        own.data_type = slices[k].tensor.data_type
        own.rank = slices[k].tensor.rank
        memcpy(own.shape, slices[k].tensor.shape, sizeof(own.shape))
        if group.version.signature.batched and own.rank > 0:
            own.shape[0] = request.rows
        memset(&difference, 0, sizeof(Difference))
        primary = output_named(&lane.reply, spec.name, spec.name_bytes)
        if primary != NULL:
            partners += 1
            compare(primary, &own, &group.tolerance, &difference)
        count_difference(&group.outputs[k], &difference)
        copy.badness = max(copy.badness, badness(&difference))
    if partners < lane.reply.count:
        copy.badness = INFINITY
    copy.outcome = COPY_AGREES if copy.badness == 0 else COPY_DIFFERS


cdef void run_batch(Lane *lane, int first) noexcept nogil:
    cdef Group *group = &lane.group
    cdef Request *requests[GROUP_COPIES]
    cdef int64_t rows
    cdef int count = gather(lane, first, requests, &rows)
    cdef Batch *batch = batch_new(requests, count, rows)
    cdef Copy *copy
    cdef Block *text
    cdef int in_batch = 0
    cdef int i
    if batch != NULL:
        group.batches[group.n_batches] = batch
        group.n_batches += 1
        batch_run(batch, &lane.scratch)
    for i in range(first, group.n_copies):
        copy = group.copies[i]
        # They were gathered in this order.
        if in_batch == count or copy.request != requests[in_batch]:
            continue
        in_batch += 1
        copy.batch = batch
        if batch != NULL and batch.items[copy.item].code == STATUS_OK:
            judge(lane, copy)
        elif batch == NULL or batch.stopped == 0:
            clear_error(&lane.error)
            if copy.request.error != 0:
                text = <Block *> at(copy.request.error)
                lane.error.size_bytes = <uint32_t> text.size_bytes
                memcpy(lane.error.text, block_data(text), text.size_bytes)
            else:
                say(&lane.error, "the server's memory for requests is used up")
            fail(group, copy, &lane.error)


cdef void lane_step(Lane *lane) noexcept nogil:
    cdef Group *group = &lane.group
    cdef int i
    for i in range(group.n_copies):
        group.copies[i].item = -1
        bind(lane, group.copies[i])
    for i in range(group.n_copies):
        if load_acquire_i32(group.ended):
            break
        if group.copies[i].item < 0 and group.copies[i].outcome != COPY_FAILED:
            run_batch(lane, i)
    store_release_i32(&lane.state, LANE_ENDED)
    waker_notify(lane.waker)
