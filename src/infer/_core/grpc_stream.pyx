"""One call on one HTTP/2 stream. See grpc_stream.pxd.

Sources: gRPC `doc/PROTOCOL-HTTP2.md`; RFC 9113.
"""

from cpython.ref cimport PyObject, Py_XDECREF, Py_XINCREF
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memmove, memset

from infer._core.block cimport block_data, block_grow, block_new, block_unref
from infer._core.debug cimport INFER_DEBUG, LIVE_STREAM, count_live, try_malloc, try_realloc
from infer._core.grpc_message cimport (
    ENCODING_IDENTITY, ENCODING_OTHER, PREFIX_BYTES, TIMEOUT_MALFORMED, accepted_encodings, encoding_of, parse_timeout,
    prefix_length)
from infer._core.status cimport (
    STATUS_INTERNAL, STATUS_OK, STATUS_RESOURCE_EXHAUSTED, STATUS_UNIMPLEMENTED)
from infer._core.tensor cimport say, say_int

cdef enum:
    FIELD_OVERHEAD_BYTES = 32
    FIRST_BODY_BYTES = 512
    FIRST_MESSAGE_BYTES = 16384  # a Block starts no larger than this, whatever the prefix announces
    GROWTH = 4
    LONG_BODY_BYTES = 65536
    LONG_GROWTH = 8              # spares a long message one more move of most of it
    ALIGNMENT = 64
    ROOM_BYTES = 131072          # that body_room makes, where there are fewer: what one read could have brought
    FREE_STREAMS = 4096
    INLINE_SEGMENTS = 2
    FIRST_HELD_BYTES = 4096

cdef int[STREAM_STATES][STREAM_EVENTS] followers = [
    # HEADERS_END     TALK             MESSAGE_END     PART             REPLY             CLOSE
    [STREAM_MESSAGE,  STREAM_TALKING,  -1,             -1,              STREAM_REPLYING,  STREAM_CLOSED],    # HEADERS
    [-1,              -1,              STREAM_CALLED,  -1,              STREAM_REPLYING,  STREAM_CLOSED],    # MESSAGE
    [-1,              -1,              STREAM_CALLED,  STREAM_TALKING,  STREAM_REPLYING,  STREAM_CLOSED],    # TALKING
    [-1,              -1,              -1,             STREAM_CALLED,   STREAM_REPLYING,  STREAM_CLOSED],    # CALLED
    [-1,              -1,              -1,             -1,              -1,               STREAM_CLOSED],    # REPLYING
    [-1,              -1,              -1,             -1,              -1,               -1],               # CLOSED
]

cdef Stream *spare = NULL
cdef int n_spare = 0


cdef Stream *stream_new(int32_t id, int64_t received_ns) noexcept:
    global spare, n_spare
    cdef Stream *stream = spare
    if stream != NULL:
        spare = stream.next
        n_spare -= 1
    else:
        stream = <Stream *> try_malloc(sizeof(Stream))
        if stream == NULL:
            return NULL
    memset(stream, 0, sizeof(Stream))
    stream.id = id
    stream.received_ns = received_ns
    stream.segments = stream.inline_segments
    stream.segment_room = INLINE_SEGMENTS
    count_live(LIVE_STREAM, 1)
    return stream


cdef void set_variant(Stream *stream, void *variant) noexcept:
    Py_XINCREF(<PyObject *> variant)
    Py_XDECREF(<PyObject *> stream.variant)
    stream.variant = variant


cdef void stream_free(Stream *stream) noexcept:
    global spare, n_spare
    cdef int i
    for i in range(stream.segment, stream.n_segments):
        block_unref(stream.segments[i].block)
    if stream.segments != stream.inline_segments:
        free(stream.segments)
    Py_XDECREF(<PyObject *> stream.variant)
    free(stream.end_text)
    block_unref(stream.body)
    block_unref(stream.held)
    count_live(LIVE_STREAM, -1)
    # In debug builds AddressSanitizer sees each Stream by itself.
    if INFER_DEBUG or n_spare >= FREE_STREAMS:
        free(stream)
        return
    stream.next = spare
    spare = stream
    n_spare += 1


cdef int next_state(int state, int event) noexcept nogil:
    if state < 0 or state >= STREAM_STATES or event < 0 or event >= STREAM_EVENTS:
        return -1
    return followers[state][event]


cdef bint advance(Stream *stream, int event) noexcept:
    cdef int following = next_state(stream.state, event)
    if following < 0:
        return False
    stream.state = <uint8_t> following
    return True


cdef inline bint same(const uint8_t *text, uint64_t size_bytes, const char *literal, uint64_t literal_bytes) noexcept:
    return size_bytes == literal_bytes and memcmp(text, literal, literal_bytes) == 0


cdef bint is_grpc(const uint8_t *value, uint64_t size_bytes) noexcept:
    """application/grpc, application/grpc+proto, either with parameters; no other subtype."""
    if size_bytes < 16 or memcmp(value, b"application/grpc", 16) != 0:
        return False
    if size_bytes == 16 or value[16] == c';':
        return True
    return size_bytes >= 22 and memcmp(value + 16, b"+proto", 6) == 0 and (size_bytes == 22 or value[22] == c';')


cdef bint is_base64(const uint8_t *value, uint64_t size_bytes) noexcept:
    """Standard alphabet, padded or not; several values may be joined by commas."""
    cdef uint64_t i
    cdef uint64_t digits = 0
    cdef uint64_t padding = 0
    cdef uint8_t c
    for i in range(size_bytes + 1):
        c = value[i] if i < size_bytes else <uint8_t> c','
        if c == c',':
            if digits % 4 == 1 or padding > 2 or (padding > 0 and (digits + padding) % 4 != 0):
                return False
            digits = padding = 0
        elif c == c'=':
            padding += 1
        elif padding == 0 and (c'A' <= c <= c'Z' or c'a' <= c <= c'z' or c'0' <= c <= c'9' or c == c'+' or c == c'/'):
            digits += 1
        else:
            return False
    return True


cdef int on_field(Stream *stream, const uint8_t *name, uint64_t name_bytes, const uint8_t *value, uint64_t value_bytes,
                  int32_t limit_bytes, ErrorText *error) noexcept:
    cdef int64_t timeout_ns
    stream.header_bytes += <int32_t> (name_bytes + value_bytes) + FIELD_OVERHEAD_BYTES
    if stream.header_bytes > limit_bytes:
        say(error, "the request's headers are larger than ")
        say_int(error, limit_bytes)
        say(error, " bytes (names and values and 32 each); send less metadata")
        return STATUS_RESOURCE_EXHAUSTED
    if same(name, name_bytes, b":method", 7):
        if same(value, value_bytes, b"POST", 4):
            stream.seen |= SEEN_POST
    elif same(name, name_bytes, b"content-type", 12):
        if is_grpc(value, value_bytes):
            stream.seen |= SEEN_GRPC
    elif same(name, name_bytes, b"te", 2):
        stream.seen |= SEEN_TE
    elif same(name, name_bytes, b"grpc-timeout", 12):
        timeout_ns = parse_timeout(value, value_bytes)
        if timeout_ns == TIMEOUT_MALFORMED or stream.seen & SEEN_TIMEOUT:
            stream.seen |= SEEN_BAD_TIMEOUT
        stream.seen |= SEEN_TIMEOUT
        stream.timeout_ns = timeout_ns
    elif same(name, name_bytes, b"grpc-encoding", 13):
        stream.encoding = <uint8_t> encoding_of(value, value_bytes)
        if stream.encoding == ENCODING_OTHER:
            stream.seen |= SEEN_ENCODING
    elif same(name, name_bytes, b"grpc-accept-encoding", 20):
        stream.accepted |= <uint8_t> accepted_encodings(value, value_bytes)
    elif name_bytes > 4 and memcmp(name + name_bytes - 4, b"-bin", 4) == 0:
        if not is_base64(value, value_bytes):
            stream.seen |= SEEN_BAD_METADATA
    return STATUS_OK


cdef int check_headers(const Stream *stream, int *http_status, ErrorText *error) noexcept:
    http_status[0] = 200
    if not stream.seen & SEEN_POST:
        http_status[0] = 405
        say(error, "expected the method POST")
        return STATUS_INTERNAL
    if not stream.seen & SEEN_GRPC:
        http_status[0] = 415
        say(error, "expected the content-type application/grpc or application/grpc+proto")
        return STATUS_INTERNAL
    if stream.seen & SEEN_BAD_TIMEOUT:
        say(error, "malformed grpc-timeout: expected once 1 to 8 digits and one of H M S m u n")
        return STATUS_INTERNAL
    if stream.seen & SEEN_BAD_METADATA:
        say(error, "malformed metadata: the value of a -bin key must be base64")
        return STATUS_INTERNAL
    if stream.seen & SEEN_ENCODING:
        say(error, "unknown grpc-encoding: send identity, deflate or gzip")
        return STATUS_UNIMPLEMENTED
    return STATUS_OK


cdef int refuse_prefix(Stream *stream, const uint8_t *prefix, uint64_t limit_bytes, bint refuse_new,
                       ErrorText *error) noexcept:
    """Judges the 5-byte prefix."""
    cdef uint8_t flag
    cdef uint64_t announced = prefix_length(prefix, &flag)
    if flag > 1 or (flag == 1 and stream.encoding == ENCODING_IDENTITY):
        say(error, "the message's compressed flag is ")
        say_int(error, flag)
        say(error, ": expected 0 or 1" if flag > 1 else ", and no grpc-encoding came with it: expected 0")
        return STATUS_INTERNAL
    if announced > limit_bytes:
        stream.seen |= SEEN_TOO_LONG
        say(error, "the message has ")
        say_int(error, <int64_t> announced)
        say(error, " bytes, the limit is ")
        say_int(error, <int64_t> limit_bytes)
        say(error, " (--max-message-bytes); send less in one call or raise it")
        return STATUS_RESOURCE_EXHAUSTED
    if refuse_new:
        say(error, "too many bytes of unfinished requests are buffered; retry later or send to another replica")
        return STATUS_RESOURCE_EXHAUSTED
    stream.message_bytes = announced + PREFIX_BYTES
    stream.compressed = flag
    return STATUS_OK


cdef bint reserve(Stream *stream, uint64_t more) noexcept:
    """Room for `more` bytes in the body, in multiples of what has come and never past what is announced.

    The first step of a long message also moves it so that its end is aligned: what stands there is mostly the raw data
    of its last tensor, which a run can then use where it is.
    """
    cdef uint64_t needed, room
    cdef uint8_t lead = 0
    cdef Block *grown
    if stream.body == NULL:
        room = more if more > FIRST_BODY_BYTES else FIRST_BODY_BYTES
        if more > FIRST_BODY_BYTES and stream.message_bytes > FIRST_MESSAGE_BYTES:
            lead = <uint8_t> (-stream.message_bytes & (ALIGNMENT - 1))
            room = max(room + lead, <uint64_t> FIRST_MESSAGE_BYTES)
        stream.body = block_new(room)
        if stream.body == NULL:
            return False
        stream.body.size_bytes = lead
        stream.lead = lead
        stream.message_bytes += lead
        return True
    needed = stream.body.size_bytes + more
    if needed <= stream.body.capacity_bytes:
        return True
    if stream.message_bytes > FIRST_MESSAGE_BYTES and stream.lead == 0:
        lead = <uint8_t> (-stream.message_bytes & (ALIGNMENT - 1))
        needed += lead
    room = (GROWTH if stream.body.size_bytes < LONG_BODY_BYTES else LONG_GROWTH) * stream.body.size_bytes
    if room < FIRST_MESSAGE_BYTES:
        room = FIRST_MESSAGE_BYTES
    if stream.message_bytes != 0 and room > stream.message_bytes + lead:
        room = stream.message_bytes + lead
    if room < needed:
        room = needed
    if lead == 0:
        grown = block_grow(stream.body, room)
        if grown == NULL:
            return False
    else:
        grown = block_new(room)
        if grown == NULL:
            return False
        memcpy(block_data(grown) + lead, block_data(stream.body), stream.body.size_bytes)
        grown.size_bytes = stream.body.size_bytes + lead
        block_unref(stream.body)
        stream.lead = lead
        stream.message_bytes += lead
    stream.body = grown
    return True


cdef int take_data(Stream *stream, const uint8_t **data, uint64_t *size_bytes, uint64_t limit_bytes, bint refuse_new,
                   ErrorText *error) noexcept:
    cdef uint64_t taken
    cdef uint64_t kept
    cdef uint8_t *end
    cdef int code
    while size_bytes[0] > 0 and not is_whole(stream):
        kept = 0 if stream.body == NULL else stream.body.size_bytes
        if kept == 0 and size_bytes[0] >= PREFIX_BYTES:
            code = refuse_prefix(stream, data[0], limit_bytes, refuse_new, error)
            if code != STATUS_OK:
                return code
        taken = (stream.message_bytes if stream.message_bytes != 0 else <uint64_t> PREFIX_BYTES) - kept
        if taken > size_bytes[0]:
            taken = size_bytes[0]
        if not reserve(stream, taken):
            say(error, "the server's memory for requests is used up; retry later or send to another replica")
            return STATUS_RESOURCE_EXHAUSTED
        end = block_data(stream.body) + stream.body.size_bytes
        # Else it was read into `body_room`.
        if end != data[0]:
            memcpy(end, data[0], taken)
        stream.body.size_bytes += taken
        data[0] += taken
        size_bytes[0] -= taken
        if stream.message_bytes == 0 and stream.body.size_bytes >= PREFIX_BYTES:
            code = refuse_prefix(stream, block_data(stream.body), limit_bytes, refuse_new, error)
            if code != STATUS_OK:
                return code
    return STATUS_OK


cdef uint64_t body_room(Stream *stream, uint64_t limit_bytes) noexcept:
    cdef uint64_t left
    if stream.body == NULL or stream.message_bytes == 0:
        return 0
    left = min(limit_bytes, stream.message_bytes - stream.body.size_bytes)
    if not reserve(stream, min(left, <uint64_t> ROOM_BYTES)):
        return 0
    return min(left, stream.body.capacity_bytes - stream.body.size_bytes)


cdef int on_data(Stream *stream, const uint8_t *data, uint64_t size_bytes, uint64_t limit_bytes, bint refuse_new,
                 ErrorText *error) noexcept:
    cdef int code = take_data(stream, &data, &size_bytes, limit_bytes, refuse_new, error)
    if code == STATUS_OK and size_bytes > 0:
        say(error, "the request of this call is exactly one message, a second one came")
        return STATUS_UNIMPLEMENTED
    return code


cdef int check_message(const Stream *stream, ErrorText *error) noexcept:
    if stream.body == NULL:
        say(error, "the request of this call is exactly one message, none came")
        return STATUS_UNIMPLEMENTED
    if stream.message_bytes == 0:
        say(error, "the message is cut short in its 5-byte prefix")
        return STATUS_INTERNAL
    if stream.body.size_bytes < stream.message_bytes:
        say(error, "the message is cut short: expected ")
        say_int(error, <int64_t> stream.message_bytes - PREFIX_BYTES - stream.lead)
        say(error, " bytes, got ")
        say_int(error, <int64_t> stream.body.size_bytes - PREFIX_BYTES - stream.lead)
        return STATUS_INTERNAL
    return STATUS_OK


cdef Block *take_body(Stream *stream) noexcept:
    cdef Block *body = stream.body
    stream.body = NULL
    stream.message_bytes = 0
    stream.lead = 0
    return body


cdef bint hold(Stream *stream, const uint8_t *data, uint64_t size_bytes) noexcept:
    cdef Block *held = stream.held
    cdef Block *grown
    if held == NULL:
        held = block_new(max(size_bytes, <uint64_t> FIRST_HELD_BYTES))
        if held == NULL:
            return False
        stream.held_start = 0
    elif held.size_bytes + size_bytes > held.capacity_bytes:
        # What has been looked at goes once it is half of it, so that each byte is moved a bounded number of times.
        if 2 * stream.held_start >= held.size_bytes:
            held.size_bytes -= stream.held_start
            memmove(block_data(held), block_data(held) + stream.held_start, held.size_bytes)
            stream.held_start = 0
        grown = block_grow(held, max(held.size_bytes + size_bytes, 2 * held.size_bytes))
        if grown == NULL:
            return False
        held = grown
    memcpy(block_data(held) + held.size_bytes, data, size_bytes)
    held.size_bytes += size_bytes
    stream.held = held
    return True


cdef bint add_segments(Stream *stream, const Segment *segments, int count) noexcept:
    cdef int i
    if stream.segment > 0 and stream.n_segments + count > stream.segment_room:
        stream.n_segments -= stream.segment
        memmove(stream.segments, stream.segments + stream.segment, stream.n_segments * sizeof(Segment))
        stream.segment = 0
    if stream.n_segments + count > stream.segment_room and not grow_segments(stream, stream.n_segments + count):
        for i in range(count):
            block_unref(segments[i].block)
        return False
    memcpy(stream.segments + stream.n_segments, segments, count * sizeof(Segment))
    stream.n_segments += count
    return True


cdef bint grow_segments(Stream *stream, int needed) noexcept:
    cdef Segment *grown
    cdef int room = max(needed, 2 * stream.segment_room)
    if stream.segments == stream.inline_segments:
        grown = <Segment *> try_malloc(room * sizeof(Segment))
        if grown != NULL:
            memcpy(grown, stream.segments, stream.n_segments * sizeof(Segment))
    else:
        grown = <Segment *> try_realloc(stream.segments, room * sizeof(Segment))
    if grown == NULL:
        return False
    stream.segments = grown
    stream.segment_room = room
    return True


cdef bint set_end(Stream *stream, int code, const char *text, uint32_t size_bytes) noexcept:
    stream.end_code = code
    if size_bytes == 0:
        return True
    stream.end_text = <char *> try_malloc(size_bytes)
    if stream.end_text == NULL:
        return False
    memcpy(stream.end_text, text, size_bytes)
    stream.end_bytes = size_bytes
    return True
