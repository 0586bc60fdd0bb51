"""Batches: gather the rows of several requests, run the model once, hand each request its own rows and status.

A Batch lies in the arena. Its executor makes and runs it, then publishes it; from there on it is the loop's, which
frees it with the Blocks of its runs. Requests stay the pipeline's: of them only views, code and error are touched here.
A Scratch is one executor's own.

Design note. A run that fails says nothing about which row it was, so its halves are run again until each culprit is
alone. Hostile requests could turn that into work without end: a version may spend a tenth of its executor time on it,
and a floor that lets the first failures of a young version be found. An output is sliced only where it has as many rows
as the batch.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from infer._core.arena cimport allocate, at, offset_of, release
from infer._core.block cimport Block, block_data, block_new, block_unref
from infer._core.capi.atomics cimport add_i64, load_acquire_i32, load_relaxed_i64, store_release_i32
from infer._core.clock cimport now_ns
from infer._core.debug cimport LIVE_BATCH, LIVE_BLOCK, count_live, require, try_calloc
from infer._core.model_version cimport VersionEntry
from infer._core.ort_run cimport Session, session_run
from infer._core.ort_watch cimport watch_begin, watch_end, watch_free, watch_init
from infer._core.status cimport (
    STATUS_DEADLINE_EXCEEDED, STATUS_INTERNAL, STATUS_INVALID_ARGUMENT, STATUS_OK, STATUS_RESOURCE_EXHAUSTED)
from infer._core.tensor_contents cimport decode_contents
from infer._core.tensor_reshape cimport view_from_model, view_to_model
from infer._core.tensor_text cimport ErrorText, clear_error, say
from infer._core.tensor_view cimport (
    FORM_RAW, FORM_TYPED, TYPE_NONE, OutputMask, element_bytes)

cdef enum:
    PENDING = -1                 # code of an item that no run has answered
    ALIGNMENT = 64
    BISECT_SHARE = 10            # a version bisects for at most 1/10 of its executor time
    BISECT_FLOOR_NS = 50000000   # ... and this much beyond it
    KEPT_BYTES = 262144          # gathered Blocks larger than this are given back after the batch


cdef int scratch_init(Scratch *scratch) noexcept nogil:
    memset(scratch, 0, sizeof(Scratch))
    watch_init(&scratch.watch)
    scratch.emergency = make_batch(EMERGENCY_ITEMS, 0)
    return -1 if scratch.emergency == NULL else 0


# What an executor keeps from one batch to the next belongs to no call, so it is not counted among what calls leave.

cdef Block *take_gathered(Scratch *scratch, int32_t index, uint64_t size_bytes) noexcept nogil:
    """The Block for an input's rows, of at least `size_bytes`; NULL: no memory."""
    cdef Block *block = scratch.gathered[index]
    if block == NULL or block.capacity_bytes < size_bytes:
        drop_gathered(scratch, index)
        block = scratch.gathered[index] = block_new(size_bytes)
        if block != NULL:
            count_live(LIVE_BLOCK, -1)
    return block


cdef void drop_gathered(Scratch *scratch, int32_t index) noexcept nogil:
    if scratch.gathered[index] != NULL:
        count_live(LIVE_BLOCK, 1)
        block_unref(scratch.gathered[index])
        scratch.gathered[index] = NULL


cdef void scratch_clear(Scratch *scratch) noexcept nogil:
    cdef int32_t i
    for i in range(scratch.n_inputs):
        drop_gathered(scratch, i)


cdef void scratch_free(Scratch *scratch) noexcept nogil:
    scratch_clear(scratch)
    free(scratch.gathered)
    free(scratch.inputs)
    free(scratch.outputs)
    if scratch.emergency != NULL:
        release(offset_of(scratch.emergency), scratch.emergency.allocated_bytes)
    watch_free(&scratch.watch)
    memset(scratch, 0, sizeof(Scratch))


cdef bint scratch_fit(Scratch *scratch, int32_t n_inputs, int32_t n_outputs) noexcept nogil:
    """Room for a model with so many inputs and outputs; False: no memory."""
    cdef Block **gathered
    cdef TensorView *inputs
    cdef RunOutput *outputs
    if n_inputs > scratch.n_inputs:
        gathered = <Block **> try_calloc(<size_t> n_inputs, sizeof(Block *))
        inputs = <TensorView *> try_calloc(<size_t> n_inputs, sizeof(TensorView))
        if gathered == NULL or inputs == NULL:
            free(gathered)
            free(inputs)
            return False
        if scratch.n_inputs > 0:
            memcpy(gathered, scratch.gathered, <size_t> scratch.n_inputs * sizeof(Block *))
        free(scratch.gathered)
        free(scratch.inputs)
        scratch.gathered = gathered
        scratch.inputs = inputs
        scratch.n_inputs = n_inputs
    if n_outputs > scratch.n_outputs:
        outputs = <RunOutput *> try_calloc(<size_t> n_outputs, sizeof(RunOutput))
        if outputs == NULL:
            return False
        free(scratch.outputs)
        scratch.outputs = outputs
        scratch.n_outputs = n_outputs
    return True


cdef Version *version_of(const Request *request) noexcept nogil:
    return &(<VersionEntry> request.version).c


cdef Batch *make_batch(int32_t n_items, int32_t n_outputs) noexcept nogil:
    """An empty Batch; its first run's arrays are part of it, since most batches have one run."""
    cdef uint64_t items_at = (sizeof(Batch) + 15) & ~(<uint64_t> 15)
    cdef uint64_t runs_at = items_at + <uint64_t> n_items * sizeof(BatchItem)
    cdef uint64_t outputs_at = runs_at + <uint64_t> n_items * sizeof(BatchRun)
    cdef uint64_t views_at = outputs_at + <uint64_t> n_items * <uint64_t> n_outputs * sizeof(ItemOutput)
    cdef uint64_t blocks_at = views_at + <uint64_t> n_outputs * sizeof(TensorView)
    cdef uint64_t total = blocks_at + <uint64_t> n_outputs * sizeof(Block *)
    cdef uint64_t offset = allocate(total)
    cdef Batch *batch
    cdef char *base
    if not offset:
        return NULL
    base = <char *> at(offset)
    batch = <Batch *> base
    memset(batch, 0, sizeof(Batch))
    batch.allocated_bytes = total
    batch.items = <BatchItem *> (base + items_at)
    batch.runs = <BatchRun *> (base + runs_at)
    batch.outputs = <ItemOutput *> (base + outputs_at)
    batch.runs[0].views = <TensorView *> (base + views_at)
    batch.runs[0].blocks = <Block **> (base + blocks_at)
    batch.runs[0].allocated_bytes = 0
    batch.n_outputs = n_outputs
    return batch


cdef void enlist(Batch *batch, Request **requests, int count, int64_t rows, int code) noexcept nogil:
    cdef int i
    batch.version = version_of(requests[0])
    batch.n_items = count
    batch.rows = rows
    batch.taken_ns = now_ns()
    for i in range(count):
        batch.items[i].request = requests[i]
        batch.items[i].code = code
        batch.items[i].run = 0


cdef Batch *batch_new(Request **requests, int count, int64_t rows) noexcept nogil:
    cdef Batch *batch = make_batch(count, version_of(requests[0]).signature.n_outputs)
    if batch != NULL:
        enlist(batch, requests, count, rows, PENDING)
        count_live(LIVE_BATCH, 1)
    return batch


cdef Batch *batch_emergency(Scratch *scratch, Request **requests, int count, int64_t rows) noexcept nogil:
    cdef Batch *batch = scratch.emergency
    if load_acquire_i32(&batch.lent):
        return NULL
    require(count <= EMERGENCY_ITEMS, b"batch: more requests than an executor takes")
    enlist(batch, requests, count, rows, STATUS_RESOURCE_EXHAUSTED)
    batch.gathered_ns = batch.ran_ns = batch.done_ns = batch.taken_ns
    batch.lent = 1
    return batch


cdef void batch_free(Batch *batch) noexcept nogil:
    cdef BatchRun *run
    cdef int32_t r, i
    if batch.lent:
        store_release_i32(&batch.lent, 0)
        return
    for r in range(batch.n_runs):
        run = &batch.runs[r]
        for i in range(batch.n_outputs):
            block_unref(run.blocks[i])
        if run.allocated_bytes:
            release(offset_of(run.views), run.allocated_bytes)
    block_unref(batch.detail)
    count_live(LIVE_BATCH, -1)
    release(offset_of(batch), batch.allocated_bytes)


# Errors.

cdef void tell(BatchItem *item, int code, const ErrorText *text) noexcept nogil:
    """Answers an item with an error. Without memory for the text it goes without."""
    cdef Block *block = block_new(text.size_bytes)
    item.code = code
    if block != NULL:
        memcpy(block_data(block), text.text, text.size_bytes)
        block.size_bytes = text.size_bytes
        block_unref(<Block *> at(item.request.error) if item.request.error else NULL)
        item.request.error = offset_of(block)


cdef void fail(Batch *batch, BatchItem *item, int code, const char *why) noexcept nogil:
    cdef ErrorText text
    clear_error(&text)
    say(&text, b"model '")
    say(&text, batch.version.name)
    say(&text, b"' version ")
    say(&text, batch.version.number)
    say(&text, why)
    tell(item, code, &text)


cdef void fail_all(Batch *batch, int32_t first, int32_t end, int code, const char *why) noexcept nogil:
    cdef int32_t i
    for i in range(first, end):
        if batch.items[i].code == PENDING:
            fail(batch, &batch.items[i], code, why)


cdef void fail_stopped(Batch *batch) noexcept nogil:
    fail_all(batch, 0, batch.n_items, STATUS_DEADLINE_EXCEEDED, b" was stopped while it ran; retry later")


cdef void keep_detail(Batch *batch, const ErrorText *detail) noexcept nogil:
    if batch.detail != NULL or detail.size_bytes == 0:
        return
    batch.detail = block_new(detail.size_bytes)
    if batch.detail != NULL:
        memcpy(block_data(batch.detail), detail.text, detail.size_bytes)
        batch.detail.size_bytes = detail.size_bytes


# Gather.

cdef void decode_deferred(Batch *batch, BatchItem *item) noexcept nogil:
    """Typed contents that were left to the executor become raw tensors in a Block of the request's."""
    cdef Request *request = item.request
    cdef TensorView *view
    cdef ErrorText error
    cdef uint64_t room = 0
    cdef uint64_t used = 0
    cdef int32_t i
    cdef int code
    for i in range(request.n_views):
        if request.views[i].form == FORM_TYPED:
            room += (request.views[i].size_bytes + ALIGNMENT - 1) & ~(<uint64_t> ALIGNMENT - 1)
    require(request.decoded == NULL, b"batch: a deferred request was decoded before")
    request.decoded = block_new(room)
    if request.decoded == NULL:
        fail(batch, item, STATUS_RESOURCE_EXHAUSTED,
             b": the server's memory for requests is used up; retry later or send to another replica")
        return
    for i in range(request.n_views):
        view = &request.views[i]
        if view.form != FORM_TYPED:
            continue
        clear_error(&error)
        code = decode_contents(view, &batch.version.signature, i, block_data(request.decoded) + used, &error)
        if code != STATUS_OK:
            tell(item, code, &error)
            return
        view.form = FORM_RAW
        view.data = offset_of(block_data(request.decoded) + used)
        used += (view.size_bytes + ALIGNMENT - 1) & ~(<uint64_t> ALIGNMENT - 1)
    request.deferred = 0


cdef bint gather_input(Batch *batch, Scratch *scratch, int32_t first, int32_t end, int32_t index,
                       int64_t rows) noexcept nogil:
    """The rows of one input, one item behind the other; False: no memory. A tensor that stands alone and aligned is
    used where it is."""
    cdef TensorView *whole = &scratch.inputs[index]
    cdef const TensorView *view
    cdef Block *block
    cdef uint64_t size = 0
    cdef uint64_t alignment
    cdef uint8_t *to
    cdef int32_t count = 0
    cdef int32_t i
    for i in range(first, end):
        if batch.items[i].code != PENDING:
            continue
        view = &batch.items[i].request.views[index]
        if count == 0:
            whole[0] = view[0]
        size += view.size_bytes
        count += 1
    if whole.data_type == TYPE_NONE:
        return True
    if count == 1:
        alignment = element_bytes(whole.data_type)
        if alignment == 0 or whole.data % alignment == 0:
            return True
    block = take_gathered(scratch, index, size)
    if block == NULL:
        return False
    to = block_data(block)
    for i in range(first, end):
        if batch.items[i].code == PENDING:
            view = &batch.items[i].request.views[index]
            memcpy(to, at(view.data), view.size_bytes)
            to += view.size_bytes
    whole.data = offset_of(block_data(block))
    whole.size_bytes = size
    if rows >= 0:
        whole.shape[0] = rows
    return True


cdef void give_back(Scratch *scratch) noexcept nogil:
    cdef int32_t i
    for i in range(scratch.n_inputs):
        if scratch.gathered[i] != NULL and scratch.gathered[i].capacity_bytes > KEPT_BYTES:
            drop_gathered(scratch, i)


# Scatter.

cdef bint run_reserve(Batch *batch) noexcept nogil:
    """Arrays for the next successful run; False: no memory."""
    cdef BatchRun *run = &batch.runs[batch.n_runs]
    cdef uint64_t views_bytes = <uint64_t> batch.n_outputs * sizeof(TensorView)
    cdef uint64_t total = views_bytes + <uint64_t> batch.n_outputs * sizeof(Block *)
    cdef uint64_t offset
    if batch.n_runs == 0:
        return True
    offset = allocate(total)
    if not offset:
        return False
    run.views = <TensorView *> at(offset)
    run.blocks = <Block **> at(offset + views_bytes)
    run.allocated_bytes = total
    return True


cdef void scatter(Batch *batch, Scratch *scratch, int32_t first, int32_t end, int64_t rows) noexcept nogil:
    """Notes for each item where its rows lie in the run's outputs, which the Batch takes over."""
    cdef BatchRun *run = &batch.runs[batch.n_runs]
    cdef RunOutput *output
    cdef ItemOutput *part
    cdef uint64_t row_bytes, begin, finish
    cdef int64_t row
    cdef int32_t i, k
    for k in range(batch.n_outputs):
        output = &scratch.outputs[k]
        run.views[k] = output.view
        # Where the model gave other sizes than its configuration says, the reply has them as they are.
        view_from_model(&batch.version.signature.outputs[k], &run.views[k])
        run.blocks[k] = output.block
        row_bytes = output.view.size_bytes // <uint64_t> rows if rows > 0 else 0
        row = 0
        begin = 0
        for i in range(first, end):
            if batch.items[i].code != PENDING:
                continue
            part = &batch.outputs[i * batch.n_outputs + k]
            finish = output.view.size_bytes
            if rows >= 0:
                row += batch.items[i].request.rows
                finish = <uint64_t> row * row_bytes
                if output.element_ends != NULL:
                    finish = output.element_ends[row - 1] if row > 0 else 0
            part.data = output.view.data + begin
            part.size_bytes = finish - begin
            begin = finish if rows >= 0 else 0
        free(output.element_ends)
        output.element_ends = NULL
        output.block = NULL
    for i in range(first, end):
        if batch.items[i].code == PENDING:
            batch.items[i].code = STATUS_OK
            batch.items[i].run = batch.n_runs
    batch.n_runs += 1


# Run.

cdef bint may_bisect(Version *version) noexcept nogil:
    return (load_relaxed_i64(&version.bisect_ns)
            <= load_relaxed_i64(&version.executor_ns) // BISECT_SHARE + BISECT_FLOOR_NS)


cdef void blame(Batch *batch, BatchItem *item, int code) noexcept nogil:
    """The error of a request that fails on its own."""
    if code == STATUS_INVALID_ARGUMENT:
        fail(batch, item, code, b" failed on this request: the model does not accept its input values, such as an "
             b"index past the end of a table; check the values of the inputs")
    else:
        fail(batch, item, STATUS_INTERNAL, b" failed on this request: the model could not be run on its inputs; the "
             b"server's log says why")


cdef int run_once(Batch *batch, Scratch *scratch, int32_t first, int32_t end) noexcept nogil:
    """One run over the pending items of a range; STATUS_OK answers them."""
    cdef Version *version = batch.version
    cdef const Session *session = <const Session *> version.session
    cdef const OutputMask *mask = NULL
    cdef ErrorText detail
    cdef int64_t rows = 0
    cdef int32_t i
    cdef int code
    for i in range(first, end):
        if batch.items[i].code == PENDING:
            rows += batch.items[i].request.rows
            mask = &batch.items[i].request.outputs
    if not version.signature.batched:
        rows = -1
    for i in range(session.n_inputs):
        if not gather_input(batch, scratch, first, end, i, rows):
            return STATUS_RESOURCE_EXHAUSTED
        if scratch.inputs[i].data_type != TYPE_NONE:
            view_to_model(&version.signature.inputs[i], &scratch.inputs[i])
    if batch.gathered_ns == 0:
        batch.gathered_ns = now_ns()
    if not run_reserve(batch):
        return STATUS_RESOURCE_EXHAUSTED
    watch_begin(&scratch.watch, batch)
    code = session_run(session, scratch.watch.options, scratch.inputs, mask, rows, scratch.outputs, &detail)
    if watch_end(&scratch.watch):
        batch.stopped = 1
    batch.ran_ns = now_ns()
    if code == STATUS_OK:
        scatter(batch, scratch, first, end, rows)
        return STATUS_OK
    if not batch.stopped:
        keep_detail(batch, &detail)
    if batch.n_runs > 0:
        release(offset_of(batch.runs[batch.n_runs].views), batch.runs[batch.n_runs].allocated_bytes)
    return code


cdef void run_range(Batch *batch, Scratch *scratch, int32_t first, int32_t end, bint again) noexcept nogil:
    """Runs the pending items of a range, in ever smaller parts where it fails. `again`: as a part of a failed one."""
    cdef int32_t pending = 0
    cdef int32_t middle = first
    cdef int32_t i, half
    cdef int64_t begun_ns
    cdef int code
    for i in range(first, end):
        pending += batch.items[i].code == PENDING
    if pending == 0:
        return
    # Whoever stopped a run has answered the whole batch.
    if batch.stopped:
        fail_stopped(batch)
        return
    if again:
        if not may_bisect(batch.version):
            return
        begun_ns = now_ns()
        code = run_once(batch, scratch, first, end)
        add_i64(&batch.version.bisect_ns, now_ns() - begun_ns)
    else:
        code = run_once(batch, scratch, first, end)
    if code == STATUS_OK:
        return
    if batch.stopped:
        fail_stopped(batch)
        return
    if code == STATUS_RESOURCE_EXHAUSTED:
        fail_all(batch, first, end, code, b" ran out of memory; send fewer rows or smaller tensors, or retry later")
        return
    if pending == 1:
        for i in range(first, end):
            if batch.items[i].code == PENDING:
                blame(batch, &batch.items[i], code)
        return
    half = pending // 2
    while half > 0:
        half -= batch.items[middle].code == PENDING
        middle += 1
    run_range(batch, scratch, first, middle, True)
    run_range(batch, scratch, middle, end, True)
    fail_all(batch, first, end, STATUS_INTERNAL,
             b" failed on a batch that held this request, and which request it was is not known; send it again")


cdef void batch_run(Batch *batch, Scratch *scratch) noexcept nogil:
    cdef Version *version = batch.version
    cdef int32_t i
    if not scratch_fit(scratch, version.signature.n_inputs, version.signature.n_outputs):
        fail_all(batch, 0, batch.n_items, STATUS_RESOURCE_EXHAUSTED, b": the server is out of memory; retry later")
    for i in range(batch.n_items):
        if batch.items[i].request.deferred and batch.items[i].code == PENDING:
            decode_deferred(batch, &batch.items[i])
    if version.signature.batched:
        run_range(batch, scratch, 0, batch.n_items, False)
    else:
        for i in range(batch.n_items):
            run_range(batch, scratch, i, i + 1, False)
    give_back(scratch)
    batch.done_ns = now_ns()
    if batch.gathered_ns == 0:
        batch.gathered_ns = batch.done_ns
    if batch.ran_ns == 0:
        batch.ran_ns = batch.gathered_ns
    add_i64(&version.executor_ns, batch.done_ns - batch.taken_ns)
