"""What bounds a transport, and what it counts. Structs alone: the endpoint owns one of each, its sessions share it."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from infer._core.abuse cimport AbuseLimits

cdef enum RefusedKind:
    REFUSED_HEADERS = 0          # a header block over the limit
    REFUSED_MESSAGE = 1          # a message over the limit
    REFUSED_BUFFERED = 2         # too many bytes of unfinished requests
    REFUSED_CONNECTIONS = 3
    REFUSED_PREFACE = 4          # no preface or no SETTINGS acknowledgement in time
    REFUSED_STALLED = 5          # a peer that does not read
    REFUSED_EMPTY_FRAMES = 6     # too many empty DATA frames in a row
    REFUSED_STREAMS = 7          # more streams at once than were allowed
    # Connections cut for their conduct: see abuse.pxd.
    REFUSED_EARLY_RESETS = 8
    REFUSED_STREAM_ERRORS = 9
    REFUSED_SETTINGS_FRAMES = 10
    REFUSED_PINGS = 11
    REFUSED_OVERSIZE_HEADERS = 12
    REFUSED_WINDOW_UPDATES = 13
    REFUSED_IDLE_FRAMES = 14
    REFUSED_QUEUED_FRAMES = 15
    REFUSED_CONTINUATIONS = 16
    REFUSED_PROTOCOL = 17        # libnghttp2's own judgement: a frame too large, an id that is not the peer's, ...
    # Connections that came to their end.
    REFUSED_KEEPALIVE = 18       # no sign of life
    REFUSED_IDLE = 19
    REFUSED_AGE = 20
    REFUSED_AGE_GRACE = 21       # with calls under way
    REFUSED_KINDS = 22

# Bounds of a transport, each a setting; shared by its sessions.
cdef struct Limits:
    int32_t header_bytes
    int32_t max_streams
    int32_t stream_window_bytes
    int32_t connection_window_bytes
    int32_t stream_messages      # of one stream of messages, handed over and not yet taken
    int64_t stream_outbound_bytes  # of one stream's replies, at which it has to wait
    int32_t reply_encodings      # a set of Encoding: which replies may have; two: that of the request
    int32_t coding_jobs          # messages that workers inflate or compress
    int64_t turn_events          # of one connection, in one turn of the loop
    int64_t max_message_bytes
    int64_t connection_buffered_bytes
    int64_t process_buffered_bytes
    const char *tenant_key       # metadata that names the tenant
    uint64_t tenant_key_bytes    # 0: none does
    uint8_t tenant_of_certificate  # over TLS the client's certificate does
    const char *routing_key      # metadata that a split goes by
    uint64_t routing_key_bytes   # 0: none
    AbuseLimits abuse

# Written by the loop thread, read by a scrape.
cdef struct TransportStats:
    int64_t connections
    int64_t connections_total
    int64_t streams
    int64_t streams_total
    int64_t cold_calls_total
    int64_t streams_held_total   # times that a stream of messages brought more than may wait
    int64_t turns_ended_total    # times that a connection brought more than is read in a turn of the loop
    int64_t calls_without_te     # `te: trailers`: by clients or proxies that may lose trailers
    int64_t received_bytes
    int64_t sent_bytes
    int64_t buffered_bytes       # of messages whose calls are not answered yet
    int64_t outbound_bytes       # of replies, not yet handed to a socket
    int64_t coding_jobs          # messages with workers now
    int64_t coding_refused       # for there being too many
    int64_t inflated_bytes       # of messages, once inflated
    int64_t tls_handshakes       # that ended in HTTP/2
    int64_t tls_failures         # handshakes and connections that ended in a TLS error
    int64_t tls_not_h2           # handshakes that did not agree on h2
    int64_t refused[22]          # by RefusedKind
