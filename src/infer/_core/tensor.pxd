"""Codec of ModelInferRequest and ModelInferResponse: views over the message's own bytes, no protobuf objects.

`decode_request` reads the message without knowing the model; `bind_inputs` then holds it against the model's signature.
All of it is nogil, may run on any thread, owns nothing but InferMessage's growable arrays, and answers a gRPC status with
a text in ErrorText. Rules and codes: WIRE 4.2-4.4.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from infer._core.span cimport Span
from infer._core.tensor_view cimport OutputMask, Signature, TensorView

cdef enum:
    ERROR_TEXT_BYTES = 1024
    MAX_ID_BYTES = 1024
    MAX_TENSORS = 4096           # inputs, raw entries or requested outputs of one message
    DEFERRED_BYTES = 262144      # typed contents above this are decoded on an executor

# A message for the client: UTF-8, NUL-terminated, cut at a character's edge. Foreign bytes go in escaped and cut.
cdef struct ErrorText:
    uint32_t size_bytes
    char text[1024]

# One InferInputTensor as it stands on the wire. Spans point into the message.
cdef struct InputFields:
    Span name
    Span data_type
    Span whole                   # the submessage itself: typed contents are read from it when they are decoded
    int64_t shape[12]
    int32_t rank                 # dimensions seen; those past MAX_RANK are counted, not kept
    int32_t has_contents
    int32_t has_shared_memory

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
    int32_t unsupported_output   # 1: an output asks for shared memory; 2: for classification
    int32_t sequence             # 1: sequence_id or another stateful parameter came

# What binding finds beside the views.
cdef struct Binding:
    int64_t rows                 # 1 for a model that is not batched
    OutputMask outputs
    uint64_t shape_hash          # of every input's dimensions past the row; equal shapes, equal hash
    uint64_t typed_bytes         # bytes of typed contents; 0: every view is raw
    int32_t deferred             # 1: views are FORM_TYPED, to be decoded by `decode_contents`

cdef void message_init(InferMessage *message) noexcept nogil
cdef void message_free(InferMessage *message) noexcept nogil

# Reads the message. STATUS_OK, STATUS_INTERNAL (malformed protobuf), STATUS_INVALID_ARGUMENT (a rule that needs no model:
# id too long, raw and typed mixed, raw count, parameter types, shared memory -> STATUS_UNIMPLEMENTED) or
# STATUS_RESOURCE_EXHAUSTED.
cdef int decode_request(const uint8_t *data, uint64_t size_bytes, InferMessage *message, ErrorText *error) noexcept nogil

# Holds the message against the signature and fills one view per model input, in the model's order (data_type TYPE_NONE: an
# optional input left out). Raw views point into the message; typed contents stay FORM_TYPED views over the InferInputTensor
# submessage with size_bytes the *decoded* size (BYTES: the length-prefixed size), to be decoded into the caller's memory.
cdef int bind_inputs(const InferMessage *message, const Signature *signature, TensorView *views, Binding *binding,
                     ErrorText *error) noexcept nogil

# Decodes the typed contents of a FORM_TYPED view into `to` (view.size_bytes of room): raw little-endian elements.
# `input` (index in the signature) is named in the error.
cdef int decode_contents(const TensorView *view, const Signature *signature, int input, uint8_t *to,
                         ErrorText *error) noexcept nogil

# One output of one reply.
cdef struct OutputSlice:
    const TensorView *tensor     # type and shape of the whole batch's tensor; dimension 0 is replaced by `rows` if batched
    const uint8_t *data
    uint64_t size_bytes

# `prefix` is the encoded model_name and model_version fields (`encode_prefix`). The head is everything before the raw
# contents; each raw entry is a tag, its length (`encode_raw_tag`) and the bytes.
cdef uint64_t response_head_bytes(const Signature *signature, const OutputMask *mask, const OutputSlice *slices,
                                  int64_t rows, uint64_t prefix_bytes, const Span *id) noexcept nogil
cdef uint8_t *encode_response_head(uint8_t *to, const Signature *signature, const OutputMask *mask,
                                   const OutputSlice *slices, int64_t rows, const uint8_t *prefix, uint64_t prefix_bytes,
                                   const Span *id) noexcept nogil
cdef uint64_t raw_tag_bytes(uint64_t size_bytes) noexcept nogil
cdef uint8_t *encode_raw_tag(uint8_t *to, uint64_t size_bytes) noexcept nogil
cdef bytes encode_prefix(bytes model_name, bytes model_version)

# Appends to an error. `say_name` escapes what is not printable ASCII and cuts at 64 bytes.
cdef void say(ErrorText *error, const char *text) noexcept nogil
cdef void say_name(ErrorText *error, const uint8_t *data, uint64_t size_bytes) noexcept nogil
cdef void say_int(ErrorText *error, int64_t value) noexcept nogil
# `FP32 [-1,4]` as the protocol writes types and shapes.
cdef void say_tensor(ErrorText *error, int data_type, int rank, const int64_t *shape) noexcept nogil

cdef int data_type_of(const Span *name) noexcept nogil             # TYPE_NONE: unknown
cdef const char *data_type_name(int data_type) noexcept nogil      # "FP32"; "?" for what the protocol has no name for
