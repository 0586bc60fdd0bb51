"""ONNX Runtime's C API, as far as it is used: positions in the OrtApi table and the signatures that stand there.

The table only ever grows at its end, so a position is valid for every library at least as new as the function. Handles
are opaque; a call answers NULL or a status that the caller releases. Source: the table's documented order; held against
an independent copy by tests/conformance/test_ort_slots.py.
"""

from libc.stdint cimport int64_t, uint32_t

cdef enum:
    ORT_TABLE_VERSION = 20       # every slot below but the last exists there
    ORT_HAS_SHAPE_VERSION = 24

cdef enum:
    SLOT_GetErrorCode = 1
    SLOT_GetErrorMessage = 2
    SLOT_DisableTelemetryEvents = 6
    SLOT_CreateSession = 7
    SLOT_Run = 9
    SLOT_CreateSessionOptions = 10
    SLOT_SetSessionExecutionMode = 13
    SLOT_DisableMemPattern = 17
    SLOT_SetSessionGraphOptimizationLevel = 23
    SLOT_SetIntraOpNumThreads = 24
    SLOT_SetInterOpNumThreads = 25
    SLOT_SessionGetInputCount = 30
    SLOT_SessionGetOutputCount = 31
    SLOT_SessionGetInputTypeInfo = 33
    SLOT_SessionGetOutputTypeInfo = 34
    SLOT_SessionGetInputName = 36
    SLOT_SessionGetOutputName = 37
    SLOT_CreateRunOptions = 39
    SLOT_RunOptionsSetTerminate = 46
    SLOT_RunOptionsUnsetTerminate = 47
    SLOT_CreateTensorAsOrtValue = 48
    SLOT_CreateTensorWithDataAsOrtValue = 49
    SLOT_IsTensor = 50
    SLOT_GetTensorMutableData = 51
    SLOT_GetStringTensorDataLength = 53
    SLOT_GetStringTensorContent = 54
    SLOT_CastTypeInfoToTensorInfo = 55
    SLOT_GetOnnxTypeFromTypeInfo = 56
    SLOT_GetTensorElementType = 60
    SLOT_GetDimensionsCount = 61
    SLOT_GetDimensions = 62
    SLOT_GetSymbolicDimensions = 63
    SLOT_GetTensorTypeAndShape = 65
    SLOT_CreateCpuMemoryInfo = 69
    SLOT_AllocatorFree = 76
    SLOT_GetAllocatorWithDefaultOptions = 78
    SLOT_ReleaseEnv = 92
    SLOT_ReleaseStatus = 93
    SLOT_ReleaseSession = 95
    SLOT_ReleaseValue = 96
    SLOT_ReleaseRunOptions = 97
    SLOT_ReleaseTypeInfo = 98
    SLOT_ReleaseTensorTypeAndShapeInfo = 99
    SLOT_ReleaseSessionOptions = 100
    SLOT_SessionGetModelMetadata = 111
    SLOT_ModelMetadataGetProducerName = 112
    SLOT_ModelMetadataGetGraphName = 113
    SLOT_ModelMetadataGetDomain = 114
    SLOT_ModelMetadataGetDescription = 115
    SLOT_ModelMetadataLookupCustomMetadataMap = 116
    SLOT_ModelMetadataGetVersion = 117
    SLOT_ReleaseModelMetadata = 118
    SLOT_DisablePerSessionThreads = 120
    SLOT_CreateThreadingOptions = 121
    SLOT_ReleaseThreadingOptions = 122
    SLOT_ModelMetadataGetCustomMetadataMapKeys = 123
    SLOT_GetAvailableProviders = 125
    SLOT_ReleaseAvailableProviders = 126
    SLOT_AddSessionConfigEntry = 130
    SLOT_SetGlobalIntraOpNumThreads = 147
    SLOT_SetGlobalInterOpNumThreads = 148
    SLOT_SetGlobalSpinControl = 149
    SLOT_CreateEnvWithCustomLoggerAndGlobalThreadPools = 151
    SLOT_SessionOptionsAppendExecutionProvider_TensorRT_V2 = 170
    SLOT_CreateTensorRTProviderOptions = 171
    SLOT_UpdateTensorRTProviderOptions = 172
    SLOT_ReleaseTensorRTProviderOptions = 174
    SLOT_HasValue = 192
    SLOT_SessionOptionsAppendExecutionProvider_CUDA_V2 = 204
    SLOT_CreateCUDAProviderOptions = 205
    SLOT_UpdateCUDAProviderOptions = 206
    SLOT_ReleaseCUDAProviderOptions = 208
    SLOT_SessionOptionsAppendExecutionProvider = 216
    SLOT_CastTypeInfoToOptionalTypeInfo = 250
    SLOT_GetOptionalContainedTypeInfo = 251
    SLOT_GetResizedStringTensorElementBuffer = 252
    SLOT_TensorTypeAndShape_HasShape = 390

cdef enum:
    ORT_INVALID_ARGUMENT = 2     # the one code that blames the caller

cdef enum:
    ONNX_TYPE_TENSOR = 1
    ONNX_TYPE_SEQUENCE = 2
    ONNX_TYPE_MAP = 3
    ONNX_TYPE_SPARSE_TENSOR = 5
    ONNX_TYPE_OPTIONAL = 6

cdef enum:
    ORT_LOGGING_WARNING = 2
    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_ALL = 99
    ORT_PARALLEL = 1
    ORT_DEVICE_ALLOCATOR = 0
    ORT_MEMORY_DEFAULT = 0

ctypedef void OrtStatus
ctypedef void OrtEnv
ctypedef void OrtThreadingOptions
ctypedef void OrtSessionOptions
ctypedef void OrtRunnable                # OrtSession
ctypedef void OrtRunOptions
ctypedef void OrtValue
ctypedef void OrtMemoryInfo
ctypedef void OrtAllocator
ctypedef void OrtTypeInfo
ctypedef void OrtShapeInfo               # OrtTensorTypeAndShapeInfo
ctypedef void OrtModelMetadata
ctypedef void OrtProviderOptions         # OrtCUDAProviderOptionsV2, OrtTensorRTProviderOptionsV2

ctypedef void (*logging_function)(void *parameter, int severity, const char *category, const char *log_id,
                                  const char *location, const char *message) noexcept nogil

ctypedef struct OrtApiBase:
    const void *(*GetApi)(uint32_t version) noexcept nogil
    const char *(*GetVersionString)() noexcept nogil

ctypedef const OrtApiBase *(*get_api_base_function)() noexcept nogil

# Filled from the table once, by ort_runtime.
cdef struct OrtApi:
    int (*GetErrorCode)(const OrtStatus *) noexcept nogil
    const char *(*GetErrorMessage)(const OrtStatus *) noexcept nogil
    void (*ReleaseStatus)(OrtStatus *) noexcept nogil

    OrtStatus *(*CreateEnvWithCustomLoggerAndGlobalThreadPools)(
        logging_function, void *parameter, int severity, const char *log_id, const OrtThreadingOptions *,
        OrtEnv **) noexcept nogil
    void (*ReleaseEnv)(OrtEnv *) noexcept nogil
    OrtStatus *(*DisableTelemetryEvents)(const OrtEnv *) noexcept nogil
    OrtStatus *(*CreateThreadingOptions)(OrtThreadingOptions **) noexcept nogil
    void (*ReleaseThreadingOptions)(OrtThreadingOptions *) noexcept nogil
    OrtStatus *(*SetGlobalIntraOpNumThreads)(OrtThreadingOptions *, int) noexcept nogil
    OrtStatus *(*SetGlobalInterOpNumThreads)(OrtThreadingOptions *, int) noexcept nogil
    OrtStatus *(*SetGlobalSpinControl)(OrtThreadingOptions *, int) noexcept nogil
    OrtStatus *(*GetAvailableProviders)(char ***names, int *count) noexcept nogil
    OrtStatus *(*ReleaseAvailableProviders)(char **names, int count) noexcept nogil
    OrtStatus *(*CreateCpuMemoryInfo)(int allocator_type, int memory_type, OrtMemoryInfo **) noexcept nogil
    OrtStatus *(*GetAllocatorWithDefaultOptions)(OrtAllocator **) noexcept nogil
    OrtStatus *(*AllocatorFree)(OrtAllocator *, void *) noexcept nogil

    OrtStatus *(*CreateSessionOptions)(OrtSessionOptions **) noexcept nogil
    void (*ReleaseSessionOptions)(OrtSessionOptions *) noexcept nogil
    OrtStatus *(*SetSessionExecutionMode)(OrtSessionOptions *, int mode) noexcept nogil
    OrtStatus *(*DisableMemPattern)(OrtSessionOptions *) noexcept nogil
    OrtStatus *(*SetSessionGraphOptimizationLevel)(OrtSessionOptions *, int) noexcept nogil
    OrtStatus *(*SetIntraOpNumThreads)(OrtSessionOptions *, int) noexcept nogil
    OrtStatus *(*SetInterOpNumThreads)(OrtSessionOptions *, int) noexcept nogil
    OrtStatus *(*DisablePerSessionThreads)(OrtSessionOptions *) noexcept nogil
    OrtStatus *(*AddSessionConfigEntry)(OrtSessionOptions *, const char *key, const char *value) noexcept nogil
    OrtStatus *(*SessionOptionsAppendExecutionProvider)(
        OrtSessionOptions *, const char *name, const char **keys, const char **values, size_t count) noexcept nogil
    OrtStatus *(*SessionOptionsAppendExecutionProvider_CUDA_V2)(
        OrtSessionOptions *, const OrtProviderOptions *) noexcept nogil
    OrtStatus *(*CreateCUDAProviderOptions)(OrtProviderOptions **) noexcept nogil
    OrtStatus *(*UpdateCUDAProviderOptions)(
        OrtProviderOptions *, const char **keys, const char **values, size_t count) noexcept nogil
    void (*ReleaseCUDAProviderOptions)(OrtProviderOptions *) noexcept nogil
    OrtStatus *(*SessionOptionsAppendExecutionProvider_TensorRT_V2)(
        OrtSessionOptions *, const OrtProviderOptions *) noexcept nogil
    OrtStatus *(*CreateTensorRTProviderOptions)(OrtProviderOptions **) noexcept nogil
    OrtStatus *(*UpdateTensorRTProviderOptions)(
        OrtProviderOptions *, const char **keys, const char **values, size_t count) noexcept nogil
    void (*ReleaseTensorRTProviderOptions)(OrtProviderOptions *) noexcept nogil

    OrtStatus *(*CreateSession)(const OrtEnv *, const char *path, const OrtSessionOptions *,
                                OrtRunnable **) noexcept nogil
    void (*ReleaseSession)(OrtRunnable *) noexcept nogil
    OrtStatus *(*SessionGetInputCount)(const OrtRunnable *, size_t *) noexcept nogil
    OrtStatus *(*SessionGetOutputCount)(const OrtRunnable *, size_t *) noexcept nogil
    OrtStatus *(*SessionGetInputTypeInfo)(const OrtRunnable *, size_t index, OrtTypeInfo **) noexcept nogil
    OrtStatus *(*SessionGetOutputTypeInfo)(const OrtRunnable *, size_t index, OrtTypeInfo **) noexcept nogil
    OrtStatus *(*SessionGetInputName)(const OrtRunnable *, size_t index, OrtAllocator *, char **) noexcept nogil
    OrtStatus *(*SessionGetOutputName)(const OrtRunnable *, size_t index, OrtAllocator *, char **) noexcept nogil
    OrtStatus *(*GetOnnxTypeFromTypeInfo)(const OrtTypeInfo *, int *) noexcept nogil
    OrtStatus *(*CastTypeInfoToTensorInfo)(const OrtTypeInfo *, const OrtShapeInfo **) noexcept nogil
    OrtStatus *(*CastTypeInfoToOptionalTypeInfo)(const OrtTypeInfo *, const void **) noexcept nogil
    OrtStatus *(*GetOptionalContainedTypeInfo)(const void *, OrtTypeInfo **) noexcept nogil
    void (*ReleaseTypeInfo)(OrtTypeInfo *) noexcept nogil
    OrtStatus *(*GetTensorElementType)(const OrtShapeInfo *, int *) noexcept nogil
    OrtStatus *(*GetDimensionsCount)(const OrtShapeInfo *, size_t *) noexcept nogil
    OrtStatus *(*GetDimensions)(const OrtShapeInfo *, int64_t *, size_t) noexcept nogil
    OrtStatus *(*GetSymbolicDimensions)(const OrtShapeInfo *, const char **, size_t) noexcept nogil
    unsigned char (*TensorTypeAndShape_HasShape)(const OrtShapeInfo *) noexcept nogil    # NULL: an older library
    void (*ReleaseTensorTypeAndShapeInfo)(OrtShapeInfo *) noexcept nogil

    OrtStatus *(*SessionGetModelMetadata)(const OrtRunnable *, OrtModelMetadata **) noexcept nogil
    OrtStatus *(*ModelMetadataGetProducerName)(const OrtModelMetadata *, OrtAllocator *, char **) noexcept nogil
    OrtStatus *(*ModelMetadataGetGraphName)(const OrtModelMetadata *, OrtAllocator *, char **) noexcept nogil
    OrtStatus *(*ModelMetadataGetDomain)(const OrtModelMetadata *, OrtAllocator *, char **) noexcept nogil
    OrtStatus *(*ModelMetadataGetDescription)(const OrtModelMetadata *, OrtAllocator *, char **) noexcept nogil
    OrtStatus *(*ModelMetadataGetVersion)(const OrtModelMetadata *, int64_t *) noexcept nogil
    OrtStatus *(*ModelMetadataGetCustomMetadataMapKeys)(
        const OrtModelMetadata *, OrtAllocator *, char ***keys, int64_t *count) noexcept nogil
    OrtStatus *(*ModelMetadataLookupCustomMetadataMap)(
        const OrtModelMetadata *, OrtAllocator *, const char *key, char **value) noexcept nogil
    void (*ReleaseModelMetadata)(OrtModelMetadata *) noexcept nogil

    OrtStatus *(*CreateRunOptions)(OrtRunOptions **) noexcept nogil
    void (*ReleaseRunOptions)(OrtRunOptions *) noexcept nogil
    OrtStatus *(*RunOptionsSetTerminate)(OrtRunOptions *) noexcept nogil          # any thread, while it runs
    OrtStatus *(*RunOptionsUnsetTerminate)(OrtRunOptions *) noexcept nogil
    OrtStatus *(*Run)(OrtRunnable *, const OrtRunOptions *, const char **input_names, const OrtValue **inputs,
                      size_t n_inputs, const char **output_names, size_t n_outputs, OrtValue **outputs) noexcept nogil
    OrtStatus *(*CreateTensorAsOrtValue)(OrtAllocator *, const int64_t *shape, size_t rank, int element_type,
                                         OrtValue **) noexcept nogil
    OrtStatus *(*CreateTensorWithDataAsOrtValue)(
        const OrtMemoryInfo *, void *data, size_t size_bytes, const int64_t *shape, size_t rank, int element_type,
        OrtValue **) noexcept nogil
    OrtStatus *(*HasValue)(const OrtValue *, int *) noexcept nogil
    OrtStatus *(*IsTensor)(const OrtValue *, int *) noexcept nogil
    OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *, OrtShapeInfo **) noexcept nogil
    OrtStatus *(*GetTensorMutableData)(OrtValue *, void **) noexcept nogil
    OrtStatus *(*GetStringTensorDataLength)(const OrtValue *, size_t *) noexcept nogil
    OrtStatus *(*GetStringTensorContent)(const OrtValue *, void *, size_t, size_t *offsets,
                                         size_t count) noexcept nogil
    OrtStatus *(*GetResizedStringTensorElementBuffer)(OrtValue *, size_t index, size_t size_bytes,
                                                      char **) noexcept nogil
    void (*ReleaseValue)(OrtValue *) noexcept nogil
