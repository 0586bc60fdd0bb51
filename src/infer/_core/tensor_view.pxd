"""What a tensor is - element type, shape, where its bytes lie - with no behaviour. Shared by codec, model and batch.

Element types are numbered as ONNX's TensorProto.DataType, which ONNX Runtime's C API uses unchanged.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint64_t

cdef enum DataType:
    TYPE_NONE = 0
    TYPE_FP32 = 1
    TYPE_UINT8 = 2
    TYPE_INT8 = 3
    TYPE_UINT16 = 4
    TYPE_INT16 = 5
    TYPE_INT32 = 6
    TYPE_INT64 = 7
    TYPE_BYTES = 8
    TYPE_BOOL = 9
    TYPE_FP16 = 10
    TYPE_FP64 = 11
    TYPE_UINT32 = 12
    TYPE_UINT64 = 13
    TYPE_BF16 = 16
    TYPE_COUNT = 17

cdef enum:
    MAX_RANK = 12

cdef enum ViewForm:
    FORM_RAW = 0                 # little-endian elements; BYTES as length-prefixed elements
    FORM_TYPED = 1               # a protobuf InferTensorContents not yet decoded

# One tensor of one request or of one batch.
cdef struct TensorView:
    uint64_t data                # arena offset of the first byte
    uint64_t size_bytes
    int32_t data_type
    int16_t rank
    int16_t form
    int64_t shape[12]

# How the model has a tensor that requests and replies carry in another shape.
cdef struct ModelShape:
    int32_t rank
    int64_t shape[12]            # -1: any; the size at the same turn among those that are -1 in the other shape

# One input or output that a model declares. Strings are owned by the VersionEntry that holds the spec.
cdef struct TensorSpec:
    const char *name
    uint64_t name_bytes
    int32_t data_type
    int32_t rank                 # -1: the model does not say
    int32_t served               # 0: a sequence or map, listed but not served
    int32_t optional             # 1: a request may leave it out
    int64_t shape[12]            # -1: any; with batching, shape[0] is the batch's and -1
    uint64_t row_elements        # product of shape[1:] (batched) or of shape, 0 where that is not fixed
    const ModelShape *reshaped   # NULL: `shape` is the model's own; owned like the strings

# A model's inputs and outputs as codec and batch see them.
cdef struct Signature:
    const char *model            # NUL-terminated name, for messages
    TensorSpec *inputs
    TensorSpec *outputs          # all that the model declares; only those `served` are answered
    int32_t n_inputs
    int32_t n_outputs
    int32_t batched              # 1: dimension 0 of every tensor is the row
    int32_t padding
    int64_t max_rows             # rows that one request may carry

cdef enum:
    MAX_OUTPUTS = 256            # bits of an OutputMask

# Which of the model's outputs are wanted, a bit each in the model's order.
cdef struct OutputMask:
    uint64_t bits[4]

cdef inline bint mask_has(const OutputMask *mask, int index) noexcept nogil:
    return (mask.bits[index >> 6] >> (index & 63)) & 1

cdef inline void mask_add(OutputMask *mask, int index) noexcept nogil:
    mask.bits[index >> 6] |= <uint64_t> 1 << (index & 63)

cdef inline uint64_t element_bytes(int data_type) noexcept nogil:
    """Bytes of one element; 0 for BYTES, whose elements vary, and for unknown types."""
    if data_type == TYPE_FP32 or data_type == TYPE_INT32 or data_type == TYPE_UINT32:
        return 4
    if data_type == TYPE_INT64 or data_type == TYPE_UINT64 or data_type == TYPE_FP64:
        return 8
    if data_type == TYPE_UINT16 or data_type == TYPE_INT16 or data_type == TYPE_FP16 or data_type == TYPE_BF16:
        return 2
    if data_type == TYPE_UINT8 or data_type == TYPE_INT8 or data_type == TYPE_BOOL:
        return 1
    return 0
