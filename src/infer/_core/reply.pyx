"""Replies as segments. See reply.pxd."""

from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t
from libc.string cimport memcpy

from infer._core.arena cimport at
from infer._core.batch cimport ItemOutput
from infer._core.block cimport block_data, block_new, block_ref
from infer._core.grpc_message cimport PREFIX_BYTES, write_prefix
from infer._core.span cimport span_over
from infer._core.tensor_encode cimport encode_raw_tag, encode_response_head, raw_tag_bytes, response_head_bytes
from infer._core.tensor_view cimport mask_has


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


cdef int encode_reply(Segment *segments, VersionEntry entry, const OutputMask *mask, const OutputSlice *slices,
                      Block **owners, int64_t rows, const Span *id) noexcept:
    cdef Block *head
    cdef uint8_t *to
    cdef uint8_t *begin
    cdef uint64_t head_bytes, message_bytes
    cdef uint64_t prefix_bytes = <uint64_t> len(entry.prefix)
    cdef uint64_t copied = 0
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
                              <const uint8_t *> <const char *> entry.prefix, prefix_bytes, id)
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
