"""Replies as segments. See reply.pxd."""

from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t
from libc.string cimport memcpy

from infer._core.arena cimport at
from infer._core.arm cimport SKETCHED_OUTPUTS, Arm
from infer._core.batch cimport ItemOutput
from infer._core.block cimport block_data, block_new, block_ref
from infer._core.grpc_message cimport PREFIX_BYTES, write_prefix
from infer._core.model_version cimport FALLBACK_NONE
from infer._core.output_sketch cimport sketch_tensor
from infer._core.span cimport span_left, span_over, try_take
from infer._core.tensor_encode cimport (
    RESPONSE_RAW, encode_identity, encode_raw_tag, encode_response_head, raw_tag_bytes, response_head_bytes)
from infer._core.tensor_view cimport Signature, mask_has
from infer._core.wire cimport WIRE_BYTES, bytes_field_size, try_short_varint


cdef Span id_of(const Request *request) noexcept nogil:
    return span_over(<const uint8_t *> at(request.id_offset), request.id_bytes)


cdef void item_slices(const Batch *batch, int index, const OutputMask *mask, OutputSlice *slices) noexcept nogil:
    cdef const ItemOutput *outputs = &batch.outputs[index * batch.n_outputs]
    cdef int run = batch.items[index].run
    cdef int i
    for i in range(batch.n_outputs):
        if mask_has(mask, i):
            slices[i].tensor = &batch.runs[run].views[i]
            slices[i].data = <const uint8_t *> at(outputs[i].data)
            slices[i].size_bytes = outputs[i].size_bytes


cdef int segment(Segment *segments, int n, Block *block, const uint8_t *data, uint64_t size_bytes) noexcept nogil:
    segments[n].block = block
    segments[n].data = data
    segments[n].size_bytes = size_bytes
    return n + 1


cdef inline uint64_t mark_bytes(void *arm) noexcept:
    return <uint64_t> len((<Arm> arm).mark) if arm != NULL else 0


cdef inline uint8_t *write_mark(uint8_t *to, void *arm) noexcept:
    if arm != NULL:
        memcpy(to, <const char *> (<Arm> arm).mark, mark_bytes(arm))
        to += mark_bytes(arm)
    return to


cdef inline void note_outputs(Arm arm, int n_outputs, const OutputMask *mask, const OutputSlice *slices) noexcept:
    """A value of each of the first outputs."""
    cdef int i
    for i in range(min(n_outputs, <int> SKETCHED_OUTPUTS)):
        if mask_has(mask, i):
            sketch_tensor(&arm.outputs[i], slices[i].tensor.data_type, slices[i].data, slices[i].size_bytes)


cdef void note_tail(Arm arm, const Signature *signature, const OutputMask *mask, Span tail) noexcept:
    """The same of a reply that is kept: who asks for what the cache has is who asks for it elsewhere."""
    cdef uint64_t tag = 0
    cdef uint64_t size = 0
    cdef Span body
    cdef int i
    for i in range(min(signature.n_outputs, <int> SKETCHED_OUTPUTS)):
        if not mask_has(mask, i):
            continue
        # Contents come behind the outputs, in their order.
        while tag >> 3 != RESPONSE_RAW:
            if not try_short_varint(&tail, UINT32_MAX, &tag) or tag & 7 != WIRE_BYTES:
                return
            if not try_short_varint(&tail, UINT32_MAX, &size) or not try_take(&tail, size, &body):
                return
        sketch_tensor(&arm.outputs[i], signature.outputs[i].data_type, body.at, size)
        tag = 0


cdef int encode_reply(Segment *segments, VersionEntry entry, const OutputMask *mask, const OutputSlice *slices,
                      Block **owners, int64_t rows, const Span *id, int fallback=FALLBACK_NONE,
                      void *arm=NULL) noexcept:
    cdef Block *head
    cdef uint8_t *to
    cdef uint8_t *begin
    cdef uint64_t head_bytes, message_bytes
    cdef bytes prefix = entry.prefix if fallback == FALLBACK_NONE else entry.marked[fallback]
    cdef uint64_t prefix_bytes = <uint64_t> len(prefix)
    cdef uint64_t copied = mark_bytes(arm)
    cdef uint64_t total = 0
    cdef int i
    cdef int n = 0
    for i in range(entry.c.signature.n_outputs):
        if not mask_has(mask, i):
            continue
        copied += raw_tag_bytes(slices[i].size_bytes)
        total += slices[i].size_bytes
        if slices[i].size_bytes <= COPIED_REPLY_BYTES:
            copied += slices[i].size_bytes
    head_bytes = response_head_bytes(&entry.c.signature, mask, slices, rows, prefix_bytes, id)
    # A gRPC message's length travels as 32 bits.
    if total + copied + head_bytes > UINT32_MAX:
        return 0
    head = block_new(PREFIX_BYTES + head_bytes + copied)
    if head == NULL:
        return 0
    begin = block_data(head)
    to = encode_response_head(begin + PREFIX_BYTES, &entry.c.signature, mask, slices, rows,
                              <const uint8_t *> <const char *> prefix, prefix_bytes, id)
    to = write_mark(to, arm)
    # What another version has answered in its place says nothing of it.
    if arm != NULL and (<Arm> arm).sketches and fallback == FALLBACK_NONE:
        note_outputs(<Arm> arm, entry.c.signature.n_outputs, mask, slices)
    message_bytes = head_bytes + copied
    for i in range(entry.c.signature.n_outputs):
        if not mask_has(mask, i):
            continue
        to = encode_raw_tag(to, slices[i].size_bytes)
        if slices[i].size_bytes <= COPIED_REPLY_BYTES:
            memcpy(to, slices[i].data, slices[i].size_bytes)
            to += slices[i].size_bytes
            continue
        message_bytes += slices[i].size_bytes
        n = segment(segments, n, head, begin, <uint64_t> (to - begin))
        begin = to
        block_ref(owners[i])
        n = segment(segments, n, owners[i], slices[i].data, slices[i].size_bytes)
    if to != begin:
        n = segment(segments, n, head, begin, <uint64_t> (to - begin))
    head.size_bytes = <uint64_t> (to - block_data(head))
    write_prefix(block_data(head), <uint32_t> message_bytes)
    # block_new's reference is the first head segment's; later ones took their own.
    for i in range(1, n):
        if segments[i].block == head:
            block_ref(head)
    return n


# Tails.

cdef uint64_t tail_bytes(const Signature *signature, const OutputMask *mask, const OutputSlice *slices,
                         int64_t rows) noexcept nogil:
    cdef Span none = span_over(NULL, 0)
    cdef uint64_t size_bytes = response_head_bytes(signature, mask, slices, rows, 0, &none)
    cdef int i
    for i in range(signature.n_outputs):
        if mask_has(mask, i):
            size_bytes += raw_tag_bytes(slices[i].size_bytes) + slices[i].size_bytes
    return size_bytes


cdef void encode_tail(uint8_t *to, const Signature *signature, const OutputMask *mask, const OutputSlice *slices,
                      int64_t rows) noexcept nogil:
    cdef Span none = span_over(NULL, 0)
    cdef int i
    to = encode_response_head(to, signature, mask, slices, rows, NULL, 0, &none)
    for i in range(signature.n_outputs):
        if mask_has(mask, i):
            to = encode_raw_tag(to, slices[i].size_bytes)
            memcpy(to, slices[i].data, slices[i].size_bytes)
            to += slices[i].size_bytes


cdef int encode_kept(Segment *segments, VersionEntry entry, const OutputMask *mask, Block *owner, const uint8_t *tail,
                     uint64_t size_bytes, const Span *id, int fallback=FALLBACK_NONE, void *arm=NULL) noexcept:
    cdef bytes prefix = entry.prefix if fallback == FALLBACK_NONE else entry.marked[fallback]
    cdef uint64_t prefix_bytes = <uint64_t> len(prefix)
    cdef uint64_t head_bytes = PREFIX_BYTES + prefix_bytes + mark_bytes(arm)
    cdef bint copied = size_bytes <= COPIED_REPLY_BYTES
    cdef Block *head
    cdef uint8_t *to
    if id.at != id.end:
        head_bytes += bytes_field_size(span_left(id))
    if head_bytes - PREFIX_BYTES + size_bytes > UINT32_MAX:
        return 0
    head = block_new(head_bytes + (size_bytes if copied else 0))
    if head == NULL:
        return 0
    to = block_data(head)
    write_prefix(to, <uint32_t> (head_bytes - PREFIX_BYTES + size_bytes))
    to = write_mark(encode_identity(
        to + PREFIX_BYTES, <const uint8_t *> <const char *> prefix, prefix_bytes, id), arm)
    if arm != NULL and (<Arm> arm).sketches and fallback == FALLBACK_NONE:
        note_tail(<Arm> arm, &entry.c.signature, mask, span_over(tail, size_bytes))
    if copied:
        memcpy(to, tail, size_bytes)
        to += size_bytes
    head.size_bytes = <uint64_t> (to - block_data(head))
    segment(segments, 0, head, block_data(head), head.size_bytes)
    if copied:
        return 1
    block_ref(owner)
    return segment(segments, 1, owner, tail, size_bytes)
