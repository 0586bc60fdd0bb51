"""Reads a session's declared inputs, outputs and metadata into Python objects.

Called once per model load, with the GIL. Everything that the runtime hands out is released here; the results own their
strings.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t

from infer._core.capi.onnxruntime cimport (
    ONNX_TYPE_MAP, ONNX_TYPE_OPTIONAL, ONNX_TYPE_SEQUENCE, ONNX_TYPE_SPARSE_TENSOR, ONNX_TYPE_TENSOR, OrtModelMetadata,
    OrtShapeInfo, OrtStatus, OrtTypeInfo)
from infer._core.model_version cimport TensorInfo
from infer._core.ort_runtime cimport check, default_allocator, ort
from infer._core.tensor_view cimport MAX_RANK, TYPE_BYTES, TYPE_COUNT, TYPE_NONE, element_bytes

from infer.errors import ModelLoadError

ctypedef OrtStatus *(*text_function)(const OrtModelMetadata *, void *, char **) noexcept nogil

# Element types of ONNX that the protocol has no name for, by their number there.
UNSERVED_ELEMENTS = {14: "COMPLEX64", 15: "COMPLEX128", 17: "FP8E4M3FN", 18: "FP8E4M3FNUZ", 19: "FP8E5M2",
                     20: "FP8E5M2FNUZ", 21: "UINT4", 22: "INT4", 23: "FP4E2M1", 24: "UINT2", 25: "INT2"}
NO_VERSION = 2**63 - 1           # the runtime's word for a model that does not say
OTHER_TYPES = {ONNX_TYPE_SEQUENCE: "SEQUENCE", ONNX_TYPE_MAP: "MAP", ONNX_TYPE_SPARSE_TENSOR: "SPARSE_TENSOR",
               ONNX_TYPE_OPTIONAL: "OPTIONAL"}


cdef str take_string(char *text):
    """A string that the runtime allocated; frees it."""
    try:
        return text.decode("utf-8", "replace")
    finally:
        ort.AllocatorFree(default_allocator, text)


cdef TensorInfo tensor_info(str name, const OrtTypeInfo *type_info, bint optional):
    cdef const OrtShapeInfo *shape_info = NULL
    cdef const void *optional_info = NULL
    cdef OrtTypeInfo *contained = NULL
    cdef int64_t *dims = NULL
    cdef const char **symbols = NULL
    cdef size_t rank = 0
    cdef size_t i
    cdef int kind = 0
    cdef int element = 0
    check(ort.GetOnnxTypeFromTypeInfo(type_info, &kind), name)
    if kind == ONNX_TYPE_OPTIONAL and not optional:
        check(ort.CastTypeInfoToOptionalTypeInfo(type_info, &optional_info), name)
        check(ort.GetOptionalContainedTypeInfo(optional_info, &contained), name)
        try:
            return tensor_info(name, contained, True)
        finally:
            ort.ReleaseTypeInfo(contained)
    if kind != ONNX_TYPE_TENSOR:
        return TensorInfo(name, TYPE_NONE, None, served=False, optional=optional,
                          datatype=OTHER_TYPES.get(kind, "OPAQUE"))
    check(ort.CastTypeInfoToTensorInfo(type_info, &shape_info), name)
    check(ort.GetTensorElementType(shape_info, &element), name)
    check(ort.GetDimensionsCount(shape_info, &rank), name)
    shape = None
    names = ()
    if rank > 0 or ort.TensorTypeAndShape_HasShape == NULL or ort.TensorTypeAndShape_HasShape(shape_info):
        dims = <int64_t *> PyMem_Malloc((rank + 1) * sizeof(int64_t))
        symbols = <const char **> PyMem_Malloc((rank + 1) * sizeof(char *))
        try:
            if dims == NULL or symbols == NULL:
                raise MemoryError("no memory for a tensor's shape")
            check(ort.GetDimensions(shape_info, dims, rank), name)
            check(ort.GetSymbolicDimensions(shape_info, symbols, rank), name)
            shape = tuple([dims[i] if dims[i] >= 0 else -1 for i in range(rank)])
            names = tuple([symbols[i].decode("utf-8", "replace") for i in range(rank)])
        finally:
            PyMem_Free(dims)
            PyMem_Free(symbols)
    if element != TYPE_BYTES and (element >= TYPE_COUNT or element_bytes(element) == 0):
        return TensorInfo(name, TYPE_NONE, shape, names, served=False, optional=optional,
                          datatype=UNSERVED_ELEMENTS.get(element, "UNKNOWN"))
    if rank > MAX_RANK:
        raise ModelLoadError(f"tensor {name!r} has {rank} dimensions, at most {MAX_RANK} can be served; reshape it in "
                             "the model")
    return TensorInfo(name, element, shape, names, optional=optional)


cdef list declared_inputs(OrtRunnable *session):
    cdef OrtTypeInfo *type_info = NULL
    cdef char *text = NULL
    cdef size_t count = 0
    cdef size_t i
    cdef TensorInfo info
    check(ort.SessionGetInputCount(session, &count), "inputs")
    inputs = []
    for i in range(count):
        check(ort.SessionGetInputName(session, i, default_allocator, &text), "inputs")
        name = take_string(text)
        check(ort.SessionGetInputTypeInfo(session, i, &type_info), name)
        try:
            info = tensor_info(name, type_info, False)
        finally:
            ort.ReleaseTypeInfo(type_info)
        if not info.served:
            raise ModelLoadError(f"input {name!r} is of type {info.datatype}, which cannot be sent over this protocol; "
                                 "export the model with tensor inputs of BOOL, INT8-64, UINT8-64, FP16, BF16, FP32, "
                                 "FP64 or strings")
        inputs.append(info)
    return inputs


cdef list declared_outputs(OrtRunnable *session):
    cdef OrtTypeInfo *type_info = NULL
    cdef char *text = NULL
    cdef size_t count = 0
    cdef size_t i
    check(ort.SessionGetOutputCount(session, &count), "outputs")
    outputs = []
    for i in range(count):
        check(ort.SessionGetOutputName(session, i, default_allocator, &text), "outputs")
        name = take_string(text)
        check(ort.SessionGetOutputTypeInfo(session, i, &type_info), name)
        try:
            outputs.append(tensor_info(name, type_info, False))
        finally:
            ort.ReleaseTypeInfo(type_info)
    return outputs


cdef str metadata_text(OrtModelMetadata *metadata, text_function read):
    cdef char *text = NULL
    check(read(metadata, default_allocator, &text), "metadata")
    return take_string(text)


cdef dict custom_metadata(OrtModelMetadata *metadata):
    cdef char **keys = NULL
    cdef char *value = NULL
    cdef int64_t count = 0
    cdef int64_t i
    check(ort.ModelMetadataGetCustomMetadataMapKeys(metadata, default_allocator, &keys, &count), "metadata")
    custom = {}
    try:
        for i in range(count):
            value = NULL
            check(ort.ModelMetadataLookupCustomMetadataMap(metadata, default_allocator, keys[i], &value), "metadata")
            if value != NULL:
                custom[keys[i].decode("utf-8", "replace")] = take_string(value)
    finally:
        for i in range(count):
            ort.AllocatorFree(default_allocator, keys[i])
        if keys != NULL:
            ort.AllocatorFree(default_allocator, keys)
    return custom


cdef dict model_metadata(OrtRunnable *session):
    cdef OrtModelMetadata *metadata = NULL
    cdef int64_t version = 0
    check(ort.SessionGetModelMetadata(session, &metadata), "metadata")
    try:
        check(ort.ModelMetadataGetVersion(metadata, &version), "metadata")
        return {
            "producer": metadata_text(metadata, ort.ModelMetadataGetProducerName),
            "graph": metadata_text(metadata, ort.ModelMetadataGetGraphName),
            "domain": metadata_text(metadata, ort.ModelMetadataGetDomain),
            "description": metadata_text(metadata, ort.ModelMetadataGetDescription),
            "version": version if version != NO_VERSION else 0,
            "custom": custom_metadata(metadata),
        }
    finally:
        ort.ReleaseModelMetadata(metadata)
