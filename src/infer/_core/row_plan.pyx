"""Plans of requests whose rows were looked up. See row_plan.pxd."""

from libc.string cimport memcmp, memcpy, memset

from infer._core.arena cimport offset_of
from infer._core.block cimport Block, block_new, block_ref, block_unref
from infer._core.cache cimport CachePart
from infer._core.model_version cimport Signature, VersionEntry
from infer._core.reply cimport encode_reply, id_of, item_slices
from infer._core.span cimport Span
from infer._core.tensor_encode cimport OutputSlice
from infer._core.tensor_view cimport MAX_OUTPUTS, TYPE_NONE, mask_has


cdef inline uint64_t aligned(uint64_t size_bytes) noexcept nogil:
    return (size_bytes + ROW_ALIGNMENT - 1) & ~(<uint64_t> ROW_ALIGNMENT - 1)


cdef inline const Signature *signature_of(const Request *request) noexcept nogil:
    return &(<VersionEntry> request.version).c.signature


cdef uint64_t known_bytes(const Request *request, const TensorView *outputs) noexcept nogil:
    """Room for the outputs of all rows."""
    cdef uint64_t size_bytes = 0
    cdef int i
    for i in range(signature_of(request).n_outputs):
        if mask_has(&request.outputs, i):
            size_bytes += aligned(<uint64_t> request.rows * outputs[i].size_bytes)
    return size_bytes


cdef uint64_t left_bytes(const Request *request, int64_t left_rows) noexcept nogil:
    """Room for the inputs of those that are left."""
    cdef uint64_t size_bytes = 0
    cdef int i
    for i in range(request.n_views):
        if request.views[i].data_type != TYPE_NONE:
            size_bytes += aligned(request.views[i].size_bytes // <uint64_t> request.rows * <uint64_t> left_rows)
    return size_bytes


cdef void take_out(Request *request, const int32_t *source, int64_t left_rows, uint8_t *to) noexcept nogil:
    """Puts the rows that are left one behind the other; `source` is which they are, NULL: all."""
    cdef TensorView *view
    cdef const uint8_t *rows
    cdef uint64_t row_bytes
    cdef int64_t row
    cdef int i
    for i in range(request.n_views):
        view = &request.views[i]
        if view.data_type == TYPE_NONE:
            continue
        row_bytes = view.size_bytes // <uint64_t> request.rows
        rows = <const uint8_t *> at(view.data)
        for row in range(left_rows):
            memcpy(to + <uint64_t> row * row_bytes,
                   rows + <uint64_t> (row if source == NULL else source[row]) * row_bytes, row_bytes)
        view.data = offset_of(to)
        view.size_bytes = row_bytes * <uint64_t> left_rows
        view.shape[0] = left_rows
        to += aligned(view.size_bytes)


cdef bint plan_rows(Request *request, const int32_t *place, const int32_t *source, int64_t new_rows,
                    const TensorView *outputs) noexcept nogil:
    # Of one that is known as a whole all rows stay: it runs where there is no memory for its reply.
    cdef int64_t left_rows = new_rows if new_rows > 0 else request.rows
    # What lies in the Block that the plan takes the place of goes into the plan's.
    cdef bint moves = left_rows < request.rows or request.decoded != NULL
    cdef int n_outputs = signature_of(request).n_outputs if outputs != NULL else 0
    cdef uint64_t place_at = aligned(sizeof(RowPlan))
    cdef uint64_t keys_at = aligned(place_at + <uint64_t> request.rows * sizeof(int32_t))
    cdef uint64_t outputs_at = aligned(keys_at + <uint64_t> new_rows * sizeof(RowKey))
    cdef uint64_t room_at = aligned(outputs_at + <uint64_t> n_outputs * sizeof(TensorView))
    cdef uint64_t left_at = room_at + (known_bytes(request, outputs) if outputs != NULL else 0)
    cdef uint64_t size_bytes = left_at + (left_bytes(request, left_rows) if moves else 0)
    cdef Block *block = block_new(size_bytes)
    cdef RowPlan *plan
    cdef uint8_t *base
    cdef int i
    if block == NULL:
        return False
    block.size_bytes = size_bytes
    base = block_data(block)
    plan = <RowPlan *> base
    memset(plan, 0, sizeof(RowPlan))
    plan.rows = request.rows
    plan.new_rows = new_rows
    plan.place = <int32_t *> (base + place_at)
    plan.keys = <RowKey *> (base + keys_at)
    memcpy(plan.place, place, <uint64_t> request.rows * sizeof(int32_t))
    if outputs != NULL:
        plan.outputs = <TensorView *> (base + outputs_at)
        for i in range(n_outputs):
            if mask_has(&request.outputs, i):
                plan.outputs[i] = outputs[i]
                plan.outputs[i].data = offset_of(base + room_at)
                room_at += aligned(<uint64_t> request.rows * outputs[i].size_bytes)
    if moves:
        take_out(request, source if new_rows > 0 else NULL, left_rows, base + left_at)
        request.rows = left_rows
    block_unref(request.decoded)
    request.decoded = block
    request.planned = 1
    return True


# Replies.

cdef int reply_known(Segment *segments, Request *request) noexcept:
    cdef VersionEntry entry = <VersionEntry> request.version
    cdef OutputSlice slices[MAX_OUTPUTS]
    cdef Block *owners[MAX_OUTPUTS]
    cdef Span identity = id_of(request)
    cdef RowPlan *plan = plan_of(request)
    cdef int i
    for i in range(entry.c.signature.n_outputs):
        if mask_has(&request.outputs, i):
            owners[i] = request.decoded
            slices[i].tensor = &plan.outputs[i]
            slices[i].data = known_at(plan, i, 0)
            slices[i].size_bytes = <uint64_t> plan.rows * plan.outputs[i].size_bytes
    return encode_reply(segments, entry, &request.outputs, slices, owners, plan.rows, &identity, request.fallback,
                        request.arm)


cdef bint same_shapes(const RowPlan *plan, const Request *request, const OutputSlice *slices) noexcept nogil:
    cdef const TensorView *known
    cdef const TensorView *ran
    cdef int i
    for i in range(signature_of(request).n_outputs):
        if not mask_has(&request.outputs, i):
            continue
        known = &plan.outputs[i]
        ran = slices[i].tensor
        if (slices[i].size_bytes != <uint64_t> request.rows * known.size_bytes or ran.rank != known.rank
                or memcmp(&ran.shape[1], &known.shape[1], <uint64_t> (known.rank - 1) * sizeof(int64_t)) != 0):
            return False
    return True


cdef Block *spread(const RowPlan *plan, const Request *request, OutputSlice *slices) noexcept nogil:
    """Puts the rows that ran, which the slices have, where they belong, and has the slices tell of all rows; the owner
    of where those lie, one reference, or NULL: no memory."""
    cdef Block *block = request.decoded
    cdef uint64_t size_bytes = 0
    cdef uint64_t row_bytes
    cdef int64_t row
    cdef uint8_t *to
    cdef int i
    if plan.outputs == NULL:
        for i in range(signature_of(request).n_outputs):
            if mask_has(&request.outputs, i):
                size_bytes += aligned(slices[i].size_bytes // <uint64_t> request.rows * <uint64_t> plan.rows)
        block = block_new(size_bytes)
        if block == NULL:
            return NULL
        block.size_bytes = size_bytes
        size_bytes = 0
    else:
        block_ref(block)
    for i in range(signature_of(request).n_outputs):
        if not mask_has(&request.outputs, i):
            continue
        row_bytes = slices[i].size_bytes // <uint64_t> request.rows
        if plan.outputs == NULL:
            to = block_data(block) + size_bytes
            size_bytes += aligned(<uint64_t> plan.rows * row_bytes)
        else:
            to = known_at(plan, i, 0)
        for row in range(plan.rows):
            if plan.place[row] != ROW_KNOWN:
                memcpy(to + <uint64_t> row * row_bytes, slices[i].data + <uint64_t> plan.place[row] * row_bytes,
                       row_bytes)
        slices[i].data = to
        slices[i].size_bytes = <uint64_t> plan.rows * row_bytes
    return block


cdef int reply_run(Segment *segments, Request *request, const Batch *batch, int index) noexcept:
    cdef VersionEntry entry = <VersionEntry> request.version
    cdef OutputSlice slices[MAX_OUTPUTS]
    cdef Block *owners[MAX_OUTPUTS]
    cdef Block **owned = batch.runs[batch.items[index].run].blocks
    cdef Block *whole = NULL
    cdef Span identity = id_of(request)
    cdef int64_t rows = request.rows
    cdef RowPlan *plan = plan_of(request)
    cdef int i, n
    item_slices(batch, index, &request.outputs, slices)
    if plan != NULL and plan.new_rows < plan.rows:
        if plan.outputs != NULL and not same_shapes(plan, request, slices):
            # Of a version of which this can be said no row is put beside another any more.
            (<CachePart *> entry.c.cached).by_rows = 0
            plan.differs = 1
            return 0
        whole = spread(plan, request, slices)
        if whole == NULL:
            return 0
        for i in range(entry.c.signature.n_outputs):
            owners[i] = whole
        owned = owners
        rows = plan.rows
    n = encode_reply(segments, entry, &request.outputs, slices, owned, rows, &identity, request.fallback, request.arm)
    block_unref(whole)
    return n
