"""Builds the header fields of replies. See reply_fields.pxd."""

from libc.stdio cimport snprintf
from libc.string cimport memcpy

from infer._core.capi.nghttp2 cimport (
    NGHTTP2_NV_FLAG_NO_COPY_NAME, NGHTTP2_NV_FLAG_NO_COPY_VALUE, NGHTTP2_NV_FLAG_NO_INDEX, NGHTTP2_NV_FLAG_NONE)
from infer._core.debug cimport try_malloc
from infer._core.grpc_message cimport encodable_bytes, percent_encode
from infer._core.retry_info cimport RETRY_OVERHEAD_BYTES, encode_base64, write_retry_status


cdef nghttp2_nv field(const char *name, size_t name_bytes, const char *value, size_t value_bytes) noexcept:
    """A header field whose name and value outlive the session."""
    cdef nghttp2_nv nv
    nv.name = <uint8_t *> name
    nv.namelen = name_bytes
    nv.value = <uint8_t *> value
    nv.valuelen = value_bytes
    nv.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE
    return nv

reply_head[0] = field(":status", 7, "200", 3)
reply_head[1] = field("content-type", 12, "application/grpc", 16)
gzip_head[:] = [reply_head[0], reply_head[1], field("grpc-encoding", 13, "gzip", 4)]
deflate_head[:] = [reply_head[0], reply_head[1], field("grpc-encoding", 13, "deflate", 7)]
ok_trailer[0] = field("grpc-status", 11, "0", 1)


cdef void add(Refusal *refusal, const char *name, size_t name_bytes, const char *value, size_t value_bytes) noexcept:
    """A field whose value is gone after the call."""
    refusal.fields[refusal.n_fields] = field(name, name_bytes, value, value_bytes)
    refusal.fields[refusal.n_fields].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME
    refusal.n_fields += 1


cdef void add_status(Refusal *refusal, int code, const char *message, uint32_t message_bytes) noexcept:
    cdef uint64_t encoded_bytes
    add(refusal, "grpc-status", 11, refusal.code_text, <size_t> snprintf(refusal.code_text, 12, "%d", code))
    refusal.message_bytes = 0
    if message_bytes > 0:
        refusal.message_bytes = <uint32_t> encodable_bytes(<const uint8_t *> message, message_bytes, MESSAGE_BYTES)
        encoded_bytes = percent_encode(<const uint8_t *> message, refusal.message_bytes, refusal.message)
        add(refusal, "grpc-message", 12, <const char *> refusal.message, encoded_bytes)
        refusal.fields[refusal.n_fields - 1].flags |= NGHTTP2_NV_FLAG_NO_INDEX


cdef void build_refusal(Refusal *refusal, int http_status, int code, const char *message, uint32_t message_bytes,
                        int64_t pushback_ms, bint say_encodings) noexcept:
    refusal.n_fields = 0
    add(refusal, ":status", 7, refusal.status_text, <size_t> snprintf(refusal.status_text, 12, "%d", http_status))
    add(refusal, "content-type", 12, "application/grpc", 16)
    add_status(refusal, code, message, message_bytes)
    if pushback_ms >= 0:
        add(refusal, "grpc-retry-pushback-ms", 22, refusal.pushback_text,
            <size_t> snprintf(refusal.pushback_text, 24, "%lld", <long long> pushback_ms))
    if say_encodings:
        add(refusal, "grpc-accept-encoding", 20, "identity,deflate,gzip", 21)
    if http_status == 405:
        add(refusal, "allow", 5, "POST", 4)


cdef void add_retry_info(Refusal *refusal, int code, const char *message, int64_t pushback_ms) noexcept:
    cdef uint8_t[MESSAGE_BYTES + RETRY_OVERHEAD_BYTES] status
    cdef uint32_t size_bytes = write_retry_status(status, code, message, refusal.message_bytes, pushback_ms)
    size_bytes = encode_base64(status, size_bytes, refusal.details)
    add(refusal, "grpc-status-details-bin", 23, <const char *> refusal.details, size_bytes)
    refusal.fields[refusal.n_fields - 1].flags |= NGHTTP2_NV_FLAG_NO_INDEX


cdef void add_variant(Refusal *refusal, void *variant) noexcept:
    if variant != NULL:
        add(refusal, "infer-variant", 13, <const char *> <bytes> variant, <size_t> len(<bytes> variant))


cdef void build_ok_trailers(Refusal *refusal, void *variant) noexcept:
    refusal.fields[0] = ok_trailer[0]
    refusal.n_fields = 1
    add_variant(refusal, variant)


cdef void build_trailers(Refusal *refusal, int code, const char *message, uint32_t message_bytes) noexcept:
    refusal.n_fields = 0
    add_status(refusal, code, message, message_bytes)


cdef nghttp2_nv *join_pairs(const nghttp2_nv *fields, int count, list pairs) noexcept:
    cdef nghttp2_nv *joined = <nghttp2_nv *> try_malloc((count + len(pairs)) * sizeof(nghttp2_nv))
    cdef bytes name
    cdef bytes value
    if joined == NULL:
        return NULL
    memcpy(joined, fields, count * sizeof(nghttp2_nv))
    for name, value in pairs:
        joined[count] = field(<const char *> name, len(name), <const char *> value, len(value))
        # The library copies them: the call may end first.
        joined[count].flags = NGHTTP2_NV_FLAG_NONE
        count += 1
    return joined
