"""ModelInferRequest as it stands on the wire: spans over the message's own bytes, no protobuf objects.

nogil, any thread; owns nothing but InferMessage's growable arrays.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from infer._core.span cimport Span
from infer._core.tensor_text cimport ErrorText

cdef enum:
    MAX_ID_BYTES = 1024
    MAX_TENSORS = 4096           # inputs, raw entries or requested outputs of one message
    DIGITS_BYTES = 24            # room for a 64-bit number in decimal

# One InferInputTensor as it stands on the wire. Spans point into the message.
cdef struct InputFields:
    Span name
    Span data_type
    const uint8_t *delimited     # the submessage with its length before it: typed contents are decoded from there
    uint64_t delimited_bytes
    int64_t shape[12]
    int32_t rank                 # dimensions seen; those past MAX_RANK are counted, not kept
    int32_t has_contents

cdef enum CacheUse:
    CACHE_USE                    # whatever the server would do
    CACHE_NO_CACHE               # not answered from what is kept
    CACHE_NO_STORE               # nor kept itself

# A ModelInferRequest. One is reused for request after request by its owning thread.
cdef struct InferMessage:
    Span model_name
    Span model_version
    Span id
    InputFields *inputs
    Span *outputs                # names
    Span *raw
    int32_t n_inputs
    int32_t n_outputs
    int32_t n_raw
    int32_t input_capacity
    int32_t output_capacity
    int32_t raw_capacity
    int64_t priority             # parameter `priority`, 0: default
    int64_t timeout_us           # parameter `timeout`, 0: none
    int64_t max_age_ns           # parameter `infer_cache_max_age_ms`, -1: none
    int32_t cache_use            # parameter `infer_cache`: CacheUse
    int32_t final_asked          # parameter `triton_enable_empty_final_response`
    int32_t sequence             # 1: sequence_id or another stateful parameter came
    Span forwarded               # parameter `infer_forwarded`: of a replica, the SHA-256 of the files that are meant
    Span whole                   # all of it

cdef void message_init(InferMessage *message) noexcept nogil
cdef void message_free(InferMessage *message) noexcept nogil

# Reads the message. STATUS_OK, STATUS_INTERNAL (malformed protobuf), STATUS_INVALID_ARGUMENT (a rule that needs no
# model: id too long, raw and typed mixed, raw count, parameter types), STATUS_UNIMPLEMENTED (shared memory,
# classification) or STATUS_RESOURCE_EXHAUSTED. The names are set as far as they were read whatever the status.
cdef int decode_request(const uint8_t *data, uint64_t size_bytes, InferMessage *message,
                        ErrorText *error) noexcept nogil

# The value of a request's parameter that is a string, or an integer, as its decimal digits, which are written to
# `digits`, DIGITS_BYTES of room. The message is one that decode_request has taken. False: it is not there, empty or of
# another kind.
cdef bint find_parameter(const uint8_t *data, uint64_t size_bytes, const char *name, uint64_t name_bytes, Span *value,
                         char *digits) noexcept nogil
