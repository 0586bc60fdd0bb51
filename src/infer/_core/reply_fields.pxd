"""Header fields of replies and refusals, as nghttp2 takes them. Builds, does not send: nothing here calls the library.

Sources: gRPC `doc/PROTOCOL-HTTP2.md`; gRFC A6 for `grpc-retry-pushback-ms`, which stands beside the RetryInfo that says
the same (`retry_info`).
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from infer._core.capi.nghttp2 cimport nghttp2_nv

cdef enum:
    REFUSAL_FIELDS = 9
    MESSAGE_BYTES = 1024         # of grpc-message, percent-encoded
    DETAILS_BYTES = 1468         # of grpc-status-details-bin with such a message, base64

# `:status 200` and the content type: the head of every reply. And the trailer of a good one.
cdef nghttp2_nv[2] reply_head
cdef nghttp2_nv[3] gzip_head               # of a reply whose messages may be compressed
cdef nghttp2_nv[3] deflate_head
cdef nghttp2_nv[1] ok_trailer

# The fields of a Trailers-Only reply and the texts that they point to; used up by the time the library has copied it.
cdef struct Refusal:
    nghttp2_nv fields[9]
    int n_fields
    char status_text[12]
    char code_text[12]
    char pushback_text[24]
    uint8_t message[1024]
    uint32_t message_bytes       # that are in it, before they were encoded
    uint8_t details[1468]

cdef void build_refusal(Refusal *refusal, int http_status, int code, const char *message, uint32_t message_bytes,
                        int64_t pushback_ms, bint say_encodings) noexcept
# The RetryInfo of a refusal that was built with the same code and message.
cdef void add_retry_info(Refusal *refusal, int code, const char *message, int64_t pushback_ms) noexcept
# What was to answer, bytes that outlive the struct; NULL: nothing is added.
cdef void add_variant(Refusal *refusal, void *variant) noexcept
# Of a good reply that names what has answered.
cdef void build_ok_trailers(Refusal *refusal, void *variant) noexcept
# The status alone, for a reply that has a head.
cdef void build_trailers(Refusal *refusal, int code, const char *message, uint32_t message_bytes) noexcept
# `fields` and behind them `pairs` of (bytes name, bytes value), which both have to outlive it; to be freed. NULL: no
# memory.
cdef nghttp2_nv *join_pairs(const nghttp2_nv *fields, int count, list pairs) noexcept
