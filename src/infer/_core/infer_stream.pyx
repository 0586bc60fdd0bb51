"""Slots of a stream of requests, and the message that each reply becomes. See infer_stream.pxd.

Sources: WIRE 4.1, 4.3, 4.4 for ModelStreamInferResponse and for what a client may ask of it.
"""

from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from infer._core.block cimport block_data, block_new, block_unref
from infer._core.debug cimport try_malloc
from infer._core.grpc_message cimport PREFIX_BYTES, write_prefix
from infer._core.status cimport STATUS_OK, STATUS_RESOURCE_EXHAUSTED, STATUS_UNAUTHENTICATED
from infer._core.wire cimport WIRE_BYTES, bytes_field_size, varint_size, write_bytes, write_tag, write_varint

cdef enum:
    INLINE_SEGMENTS = 3
    COPIED_HEAD_BYTES = 16384    # a first segment no larger is copied behind the new head
    STREAM_ERROR = 1             # fields of ModelStreamInferResponse
    STREAM_REPLY = 2
    RESPONSE_ID = 3              # a field of ModelInferResponse

# `parameters` of a ModelInferResponse with one entry: triton_final_response, a bool_param of true.
cdef bytes FINAL_ENTRY = b"\x0a\x15triton_final_response\x12\x02\x08\x01"
cdef bytes FINAL_FIELD = b"\x22" + bytes([len(FINAL_ENTRY)]) + FINAL_ENTRY


cdef InferStream *infer_stream_new(Stream *stream, void *session, int32_t room) noexcept:
    cdef InferStream *talk = <InferStream *> try_malloc(sizeof(InferStream))
    if talk == NULL:
        return NULL
    memset(talk, 0, sizeof(InferStream))
    talk.slots = <Slot *> try_malloc(room * sizeof(Slot))
    if talk.slots == NULL:
        free(talk)
        return NULL
    talk.stream = stream
    talk.session = session
    talk.room = room
    return talk


cdef void free_segments(Slot *slot) noexcept:
    if slot.segments != slot.inline_segments:
        free(slot.segments)


cdef uint64_t infer_stream_free(InferStream *talk) noexcept:
    cdef uint64_t reply_bytes = 0
    cdef Slot *slot
    cdef int i
    while talk.first < talk.last:
        slot = &talk.slots[talk.first % talk.room]
        reply_bytes += slot.reply_bytes
        for i in range(slot.n_segments):
            block_unref(slot.segments[i].block)
        pass_slot(talk)
    free(talk.slots)
    free(talk)
    return reply_bytes


cdef Slot *claim_slot(InferStream *talk) noexcept:
    cdef Slot *slot = &talk.slots[talk.last % talk.room]
    memset(slot, 0, sizeof(Slot))
    slot.owner = talk
    slot.segments = slot.inline_segments
    talk.last += 1
    return slot


cdef Slot *oldest_answered(InferStream *talk) noexcept:
    cdef Slot *slot = &talk.slots[talk.first % talk.room]
    return slot if talk.first < talk.last and slot.answered else NULL


cdef void pass_slot(InferStream *talk) noexcept:
    free_segments(&talk.slots[talk.first % talk.room])
    talk.first += 1


cdef uint8_t *add_block(Slot *slot, uint64_t size_bytes) noexcept:
    """A Block of its own as the next segment; NULL: no memory."""
    cdef Segment *segment = &slot.segments[slot.n_segments]
    segment.block = block_new(size_bytes)
    if segment.block == NULL:
        return NULL
    segment.block.size_bytes = segment.size_bytes = size_bytes
    segment.data = block_data(segment.block)
    slot.n_segments += 1
    return block_data(segment.block)


cdef void keep_reply(Slot *slot, Reply *reply) noexcept:
    cdef int i
    slot.answered = 1
    if reply.code != STATUS_OK:
        keep_error(slot, reply)
    elif not keep_message(slot, reply):
        # Without memory for a message there is none to say so in.
        slot.code = STATUS_RESOURCE_EXHAUSTED
    for i in range(slot.n_segments):
        slot.reply_bytes += slot.segments[i].size_bytes


cdef void keep_error(Slot *slot, Reply *reply) noexcept:
    """A message with the text and the request's id, or the text alone with which the stream ends."""
    cdef uint64_t inner_bytes = bytes_field_size(reply.id_bytes) if reply.id_bytes > 0 else 0
    cdef uint64_t size_bytes = bytes_field_size(reply.message_bytes)
    cdef uint8_t *to
    # Who may not be served has no part of the stream.
    if slot.owner.real_status or reply.code == STATUS_UNAUTHENTICATED:
        slot.code = reply.code
        to = add_block(slot, reply.message_bytes)
        if to != NULL:
            memcpy(to, reply.message, reply.message_bytes)
        return
    if inner_bytes > 0:
        size_bytes += bytes_field_size(inner_bytes)
    to = add_block(slot, PREFIX_BYTES + size_bytes)
    if to == NULL:
        slot.code = STATUS_RESOURCE_EXHAUSTED
        return
    write_prefix(to, <uint32_t> size_bytes)
    to = write_bytes(to + PREFIX_BYTES, STREAM_ERROR, reply.message, reply.message_bytes)
    if inner_bytes > 0:
        to = write_varint(write_tag(to, STREAM_REPLY, WIRE_BYTES), inner_bytes)
        write_bytes(to, RESPONSE_ID, reply.id, reply.id_bytes)


cdef bint keep_message(Slot *slot, Reply *reply) noexcept:
    """The reply inside a message of its own: a new head, and behind it the reply's segments without their prefix."""
    cdef uint64_t final_bytes = <uint64_t> len(FINAL_FIELD) if reply.final else 0
    cdef uint64_t inner_bytes = final_bytes
    cdef uint64_t outer_bytes, head_bytes
    cdef uint64_t copied_bytes = 0
    cdef int start = 0
    cdef int i
    cdef uint8_t *to = NULL
    for i in range(reply.n_segments):
        inner_bytes += reply.segments[i].size_bytes
    inner_bytes -= PREFIX_BYTES
    outer_bytes = 1 + varint_size(inner_bytes) + inner_bytes
    head_bytes = PREFIX_BYTES + 1 + varint_size(inner_bytes) + final_bytes
    if reply.segments[0].size_bytes <= COPIED_HEAD_BYTES:
        copied_bytes = reply.segments[0].size_bytes - PREFIX_BYTES
        start = 1
    if outer_bytes <= UINT32_MAX and reserve_segments(slot, reply.n_segments + 1):
        to = add_block(slot, head_bytes + copied_bytes)
    if to == NULL:
        for i in range(reply.n_segments):
            block_unref(reply.segments[i].block)
        return False
    write_prefix(to, <uint32_t> outer_bytes)
    to = write_varint(write_tag(to + PREFIX_BYTES, STREAM_REPLY, WIRE_BYTES), inner_bytes)
    if final_bytes > 0:
        memcpy(to, <const char *> FINAL_FIELD, final_bytes)
        to += final_bytes
    if start == 1:
        memcpy(to, reply.segments[0].data + PREFIX_BYTES, copied_bytes)
        block_unref(reply.segments[0].block)
    memcpy(slot.segments + 1, reply.segments + start, (reply.n_segments - start) * sizeof(Segment))
    slot.n_segments += reply.n_segments - start
    if start == 0:
        slot.segments[1].data += PREFIX_BYTES
        slot.segments[1].size_bytes -= PREFIX_BYTES
    return True


cdef bint reserve_segments(Slot *slot, int count) noexcept:
    if count <= INLINE_SEGMENTS:
        return True
    slot.segments = <Segment *> try_malloc(count * sizeof(Segment))
    if slot.segments == NULL:
        slot.segments = slot.inline_segments
        return False
    return True
