"""The ONNX Runtime library and the process's one environment with its global thread pools.

The library is found without importing the `onnxruntime` package (that would load a second, separate runtime) and stays
loaded. Runtimes may be made on any thread that holds the GIL. The library counts its environment: a second Runtime
shares the first one's, thread pools included, and must be of the same library.
"""

import re
from importlib.util import find_spec
from os import fsencode
from pathlib import Path

cimport cython
from libc.string cimport memcpy, strlen
from posix.dlfcn cimport RTLD_LOCAL, RTLD_NOW, dlerror, dlopen, dlsym

from infer._core.arena cimport trim_pages
from infer._core.capi.onnxruntime cimport (
    ORT_DEVICE_ALLOCATOR, ORT_HAS_SHAPE_VERSION, ORT_LOGGING_WARNING, ORT_MEMORY_DEFAULT, ORT_TABLE_VERSION,
    OrtApiBase, OrtEnv,  OrtStatus, OrtThreadingOptions,
    SLOT_AddSessionConfigEntry, SLOT_AllocatorFree, SLOT_CastTypeInfoToOptionalTypeInfo,
    SLOT_CastTypeInfoToTensorInfo, SLOT_CreateCUDAProviderOptions, SLOT_CreateCpuMemoryInfo,
    SLOT_CreateEnvWithCustomLoggerAndGlobalThreadPools, SLOT_CreateRunOptions, SLOT_CreateSession,
    SLOT_CreateSessionOptions,
    SLOT_CreateTensorAsOrtValue, SLOT_CreateTensorRTProviderOptions, SLOT_CreateTensorWithDataAsOrtValue,
    SLOT_CreateThreadingOptions, SLOT_DisableMemPattern, SLOT_DisablePerSessionThreads,
    SLOT_DisableTelemetryEvents, SLOT_GetAllocatorWithDefaultOptions, SLOT_GetAvailableProviders,
    SLOT_GetDimensions, SLOT_GetDimensionsCount, SLOT_GetErrorCode, SLOT_GetErrorMessage,
    SLOT_GetOnnxTypeFromTypeInfo, SLOT_GetOptionalContainedTypeInfo, SLOT_GetResizedStringTensorElementBuffer,
    SLOT_GetStringTensorContent, SLOT_GetStringTensorDataLength, SLOT_GetSymbolicDimensions,
    SLOT_GetTensorElementType, SLOT_GetTensorMutableData, SLOT_GetTensorTypeAndShape, SLOT_HasValue, SLOT_IsTensor,
    SLOT_ModelMetadataGetCustomMetadataMapKeys, SLOT_ModelMetadataGetDescription, SLOT_ModelMetadataGetDomain,
    SLOT_ModelMetadataGetGraphName, SLOT_ModelMetadataGetProducerName, SLOT_ModelMetadataGetVersion,
    SLOT_ModelMetadataLookupCustomMetadataMap, SLOT_ReleaseAvailableProviders, SLOT_ReleaseCUDAProviderOptions,
    SLOT_ReleaseEnv, SLOT_ReleaseModelMetadata, SLOT_ReleaseRunOptions, SLOT_ReleaseSession,
    SLOT_ReleaseSessionOptions, SLOT_ReleaseStatus,
    SLOT_ReleaseTensorRTProviderOptions, SLOT_ReleaseTensorTypeAndShapeInfo, SLOT_ReleaseThreadingOptions,
    SLOT_ReleaseTypeInfo, SLOT_ReleaseValue, SLOT_Run, SLOT_RunOptionsSetTerminate, SLOT_RunOptionsUnsetTerminate,
    SLOT_SessionGetInputCount, SLOT_SessionGetInputName,
    SLOT_SessionGetInputTypeInfo, SLOT_SessionGetModelMetadata, SLOT_SessionGetOutputCount,
    SLOT_SessionGetOutputName, SLOT_SessionGetOutputTypeInfo, SLOT_SessionOptionsAppendExecutionProvider,
    SLOT_SessionOptionsAppendExecutionProvider_CUDA_V2, SLOT_SessionOptionsAppendExecutionProvider_TensorRT_V2,
    SLOT_SetGlobalInterOpNumThreads, SLOT_SetGlobalIntraOpNumThreads, SLOT_SetGlobalSpinControl,
    SLOT_SetInterOpNumThreads, SLOT_SetIntraOpNumThreads, SLOT_SetSessionExecutionMode,
    SLOT_SetSessionGraphOptimizationLevel, SLOT_TensorTypeAndShape_HasShape, SLOT_UpdateCUDAProviderOptions,
    SLOT_UpdateTensorRTProviderOptions, get_api_base_function)

from infer.errors import ConfigError, ModelLoadError

MINIMUM_VERSION = (1, 26)        # older ones read a model's external data from outside its directory

cdef str loaded_path = None

cdef extern from "<malloc.h>" nogil:
    int malloc_trim(size_t pad) noexcept

cdef extern from * nogil:
    """
    static __thread void *infer_log_lines;
    """
    LogLines *collecting "infer_log_lines"


# A position "/path/file.cc:123 function(arguments) " that the library puts in front of its words.
SOURCE_POSITION = re.compile(r"\S*/\S+\.(?:cc|cu|h|hpp):\d+ (?:[^()]*\([^()]*\)(?: const)? )?(?:\[[^\]]*\] ?)?")

# The directories in front of a shared library's name.
LIBRARY_DIRECTORY = re.compile(r"/(?:[^\s/:]+/)+(?=[^\s/:]+\.so)")


cdef str plain(const char *words):
    """The runtime's words as one line, without positions in its source or places of its files."""
    text = SOURCE_POSITION.sub("", words.decode("utf-8", "replace"))
    return " ".join(LIBRARY_DIRECTORY.sub("", text).split())


cdef str take_words(OrtStatus *status):
    try:
        return plain(ort.GetErrorMessage(status))
    finally:
        ort.ReleaseStatus(status)


cdef int check(OrtStatus *status, str what) except -1:
    if status != NULL:
        raise ModelLoadError(f"{what}: {take_words(status)}")
    return 0


cdef void collect_log(LogLines *lines) noexcept nogil:
    global collecting
    if lines != NULL:
        lines.used = 0
    collecting = lines


cdef void on_log(void *parameter, int severity, const char *category, const char *log_id, const char *location,
                 const char *message) noexcept nogil:
    cdef LogLines *lines = collecting
    cdef size_t size
    if lines == NULL:
        return
    size = strlen(message) + 1
    if size <= LOG_BYTES - lines.used:
        memcpy(&lines.text[lines.used], message, size)
        lines.used += size


cdef list log_lines(const LogLines *lines):
    cdef size_t at = 0
    found = []
    while at < lines.used:
        found.append(plain(&lines.text[at]))
        at += strlen(&lines.text[at]) + 1
    return found


cdef inline void put(void *function, const void *entry) noexcept nogil:
    (<const void **> function)[0] = entry


cdef void fill(const void **table, const void **newer_table) noexcept nogil:
    """Function pointers from the library's table; `newer_table` is NULL where the library is older."""
    put(&ort.GetErrorCode, table[SLOT_GetErrorCode])
    put(&ort.GetErrorMessage, table[SLOT_GetErrorMessage])
    put(&ort.DisableTelemetryEvents, table[SLOT_DisableTelemetryEvents])
    put(&ort.CreateSession, table[SLOT_CreateSession])
    put(&ort.Run, table[SLOT_Run])
    put(&ort.CreateSessionOptions, table[SLOT_CreateSessionOptions])
    put(&ort.SetSessionExecutionMode, table[SLOT_SetSessionExecutionMode])
    put(&ort.DisableMemPattern, table[SLOT_DisableMemPattern])
    put(&ort.SetSessionGraphOptimizationLevel, table[SLOT_SetSessionGraphOptimizationLevel])
    put(&ort.SetIntraOpNumThreads, table[SLOT_SetIntraOpNumThreads])
    put(&ort.SetInterOpNumThreads, table[SLOT_SetInterOpNumThreads])
    put(&ort.SessionGetInputCount, table[SLOT_SessionGetInputCount])
    put(&ort.SessionGetOutputCount, table[SLOT_SessionGetOutputCount])
    put(&ort.SessionGetInputTypeInfo, table[SLOT_SessionGetInputTypeInfo])
    put(&ort.SessionGetOutputTypeInfo, table[SLOT_SessionGetOutputTypeInfo])
    put(&ort.SessionGetInputName, table[SLOT_SessionGetInputName])
    put(&ort.SessionGetOutputName, table[SLOT_SessionGetOutputName])
    put(&ort.CreateRunOptions, table[SLOT_CreateRunOptions])
    put(&ort.RunOptionsSetTerminate, table[SLOT_RunOptionsSetTerminate])
    put(&ort.RunOptionsUnsetTerminate, table[SLOT_RunOptionsUnsetTerminate])
    put(&ort.ReleaseRunOptions, table[SLOT_ReleaseRunOptions])
    put(&ort.CreateTensorAsOrtValue, table[SLOT_CreateTensorAsOrtValue])
    put(&ort.CreateTensorWithDataAsOrtValue, table[SLOT_CreateTensorWithDataAsOrtValue])
    put(&ort.IsTensor, table[SLOT_IsTensor])
    put(&ort.GetTensorMutableData, table[SLOT_GetTensorMutableData])
    put(&ort.GetStringTensorDataLength, table[SLOT_GetStringTensorDataLength])
    put(&ort.GetStringTensorContent, table[SLOT_GetStringTensorContent])
    put(&ort.CastTypeInfoToTensorInfo, table[SLOT_CastTypeInfoToTensorInfo])
    put(&ort.GetOnnxTypeFromTypeInfo, table[SLOT_GetOnnxTypeFromTypeInfo])
    put(&ort.GetTensorElementType, table[SLOT_GetTensorElementType])
    put(&ort.GetDimensionsCount, table[SLOT_GetDimensionsCount])
    put(&ort.GetDimensions, table[SLOT_GetDimensions])
    put(&ort.GetSymbolicDimensions, table[SLOT_GetSymbolicDimensions])
    put(&ort.GetTensorTypeAndShape, table[SLOT_GetTensorTypeAndShape])
    put(&ort.CreateCpuMemoryInfo, table[SLOT_CreateCpuMemoryInfo])
    put(&ort.AllocatorFree, table[SLOT_AllocatorFree])
    put(&ort.GetAllocatorWithDefaultOptions, table[SLOT_GetAllocatorWithDefaultOptions])
    put(&ort.ReleaseEnv, table[SLOT_ReleaseEnv])
    put(&ort.ReleaseStatus, table[SLOT_ReleaseStatus])
    put(&ort.ReleaseSession, table[SLOT_ReleaseSession])
    put(&ort.ReleaseValue, table[SLOT_ReleaseValue])
    put(&ort.ReleaseTypeInfo, table[SLOT_ReleaseTypeInfo])
    put(&ort.ReleaseTensorTypeAndShapeInfo, table[SLOT_ReleaseTensorTypeAndShapeInfo])
    put(&ort.ReleaseSessionOptions, table[SLOT_ReleaseSessionOptions])
    put(&ort.SessionGetModelMetadata, table[SLOT_SessionGetModelMetadata])
    put(&ort.ModelMetadataGetProducerName, table[SLOT_ModelMetadataGetProducerName])
    put(&ort.ModelMetadataGetGraphName, table[SLOT_ModelMetadataGetGraphName])
    put(&ort.ModelMetadataGetDomain, table[SLOT_ModelMetadataGetDomain])
    put(&ort.ModelMetadataGetDescription, table[SLOT_ModelMetadataGetDescription])
    put(&ort.ModelMetadataLookupCustomMetadataMap, table[SLOT_ModelMetadataLookupCustomMetadataMap])
    put(&ort.ModelMetadataGetVersion, table[SLOT_ModelMetadataGetVersion])
    put(&ort.ReleaseModelMetadata, table[SLOT_ReleaseModelMetadata])
    put(&ort.DisablePerSessionThreads, table[SLOT_DisablePerSessionThreads])
    put(&ort.CreateThreadingOptions, table[SLOT_CreateThreadingOptions])
    put(&ort.ReleaseThreadingOptions, table[SLOT_ReleaseThreadingOptions])
    put(&ort.ModelMetadataGetCustomMetadataMapKeys, table[SLOT_ModelMetadataGetCustomMetadataMapKeys])
    put(&ort.GetAvailableProviders, table[SLOT_GetAvailableProviders])
    put(&ort.ReleaseAvailableProviders, table[SLOT_ReleaseAvailableProviders])
    put(&ort.AddSessionConfigEntry, table[SLOT_AddSessionConfigEntry])
    put(&ort.SetGlobalIntraOpNumThreads, table[SLOT_SetGlobalIntraOpNumThreads])
    put(&ort.SetGlobalInterOpNumThreads, table[SLOT_SetGlobalInterOpNumThreads])
    put(&ort.SetGlobalSpinControl, table[SLOT_SetGlobalSpinControl])
    put(&ort.CreateEnvWithCustomLoggerAndGlobalThreadPools, table[SLOT_CreateEnvWithCustomLoggerAndGlobalThreadPools])
    put(&ort.SessionOptionsAppendExecutionProvider_TensorRT_V2,
        table[SLOT_SessionOptionsAppendExecutionProvider_TensorRT_V2])
    put(&ort.CreateTensorRTProviderOptions, table[SLOT_CreateTensorRTProviderOptions])
    put(&ort.UpdateTensorRTProviderOptions, table[SLOT_UpdateTensorRTProviderOptions])
    put(&ort.ReleaseTensorRTProviderOptions, table[SLOT_ReleaseTensorRTProviderOptions])
    put(&ort.HasValue, table[SLOT_HasValue])
    put(&ort.SessionOptionsAppendExecutionProvider_CUDA_V2, table[SLOT_SessionOptionsAppendExecutionProvider_CUDA_V2])
    put(&ort.CreateCUDAProviderOptions, table[SLOT_CreateCUDAProviderOptions])
    put(&ort.UpdateCUDAProviderOptions, table[SLOT_UpdateCUDAProviderOptions])
    put(&ort.ReleaseCUDAProviderOptions, table[SLOT_ReleaseCUDAProviderOptions])
    put(&ort.SessionOptionsAppendExecutionProvider, table[SLOT_SessionOptionsAppendExecutionProvider])
    put(&ort.CastTypeInfoToOptionalTypeInfo, table[SLOT_CastTypeInfoToOptionalTypeInfo])
    put(&ort.GetOptionalContainedTypeInfo, table[SLOT_GetOptionalContainedTypeInfo])
    put(&ort.GetResizedStringTensorElementBuffer, table[SLOT_GetResizedStringTensorElementBuffer])
    ort.TensorTypeAndShape_HasShape = NULL
    if newer_table != NULL:
        put(&ort.TensorTypeAndShape_HasShape, newer_table[SLOT_TensorTypeAndShape_HasShape])


def find_library():
    """Path of the one ONNX Runtime library that is installed; ConfigError where there is none or more than one."""
    package = find_spec("onnxruntime")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("ONNX Runtime is not installed; run: pip install onnxruntime   (or onnxruntime-gpu)")
    found = {}
    for folder in package.submodule_search_locations:
        for path in sorted(Path(folder, "capi").glob("libonnxruntime.so*")):
            found.setdefault(path.resolve(), path)
    if not found:
        raise ConfigError("the installed onnxruntime package holds no libonnxruntime.so; reinstall it: "
                          "pip install --force-reinstall onnxruntime")
    if len(found) > 1:
        listed = "".join(f"\n    {path}" for path in found.values())
        raise ConfigError(f"{len(found)} ONNX Runtime libraries are installed:{listed}\n"
                          "uninstall all but one of onnxruntime and onnxruntime-gpu, or choose one with "
                          "--onnxruntime-library")
    return str(next(iter(found.values())))


cdef str open_library(str path):
    """Loads the library into the process, once, and returns its version."""
    global loaded_path, cpu_memory, default_allocator
    cdef void *handle
    cdef const OrtApiBase *base
    cdef const void *table
    cdef bytes encoded = fsencode(path)
    cdef const char *encoded_path = encoded
    if loaded_path is not None and loaded_path != path:
        raise ConfigError(f"this process has already loaded {loaded_path}, it cannot load {path} as well")
    with nogil:
        handle = dlopen(encoded_path, RTLD_NOW | RTLD_LOCAL)
    if handle == NULL:
        raise ConfigError(f"cannot load the ONNX Runtime library: {dlerror().decode('utf-8', 'replace')}")
    entry = dlsym(handle, b"OrtGetApiBase")
    if entry == NULL:
        raise ConfigError(f"{path} is not an ONNX Runtime library: it has no OrtGetApiBase")
    base = (<get_api_base_function> entry)()
    version = base.GetVersionString().decode()
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    table = base.GetApi(ORT_TABLE_VERSION)
    if numbers < MINIMUM_VERSION or table == NULL:
        raise ConfigError(f"ONNX Runtime {version} is too old, {MINIMUM_VERSION[0]}.{MINIMUM_VERSION[1]} or newer is "
                          "needed; run: pip install --upgrade onnxruntime")
    if loaded_path is None:
        fill(<const void **> table, <const void **> base.GetApi(ORT_HAS_SHAPE_VERSION))
        check(ort.CreateCpuMemoryInfo(ORT_DEVICE_ALLOCATOR, ORT_MEMORY_DEFAULT, &cpu_memory), "ONNX Runtime")
        check(ort.GetAllocatorWithDefaultOptions(&default_allocator), "ONNX Runtime")
        loaded_path = path
    return version


cdef list provider_names():
    cdef char **names = NULL
    cdef int count = 0
    check(ort.GetAvailableProviders(&names, &count), "ONNX Runtime: list of providers")
    try:
        return [names[i].decode() for i in range(count)]
    finally:
        ort.ReleaseAvailableProviders(names, count)


def give_back_memory():
    """Returns to the kernel what loading a model has used and freed again: arena pages and the allocator's own."""
    with nogil:
        trim_pages(0)
        malloc_trim(0)


@cython.final
cdef class Runtime:
    """The library and its environment. `intra_op` threads serve every session that has no setting of its own."""

    def __cinit__(self):
        self.environment = NULL

    def __init__(self, library=None, int intra_op=1):
        cdef OrtThreadingOptions *threading = NULL
        cdef OrtEnv *environment = NULL
        cdef OrtStatus *status
        self.library_path = str(library) if library else find_library()
        self.version = open_library(self.library_path)
        self.providers = provider_names()
        self.intra_op = intra_op
        check(ort.CreateThreadingOptions(&threading), "ONNX Runtime")
        try:
            check(ort.SetGlobalIntraOpNumThreads(threading, intra_op), "ONNX Runtime")
            check(ort.SetGlobalInterOpNumThreads(threading, 1), "ONNX Runtime")
            check(ort.SetGlobalSpinControl(threading, 0), "ONNX Runtime")
            with nogil:
                status = ort.CreateEnvWithCustomLoggerAndGlobalThreadPools(
                    on_log, NULL, ORT_LOGGING_WARNING, b"infer", threading, &environment)
            check(status, "ONNX Runtime")
            self.environment = environment
            check(ort.DisableTelemetryEvents(environment), "ONNX Runtime")
        finally:
            ort.ReleaseThreadingOptions(threading)

    def __dealloc__(self):
        if self.environment != NULL:
            ort.ReleaseEnv(self.environment)

    def __repr__(self):
        return f"<Runtime ONNX Runtime {self.version}, {self.intra_op} threads per operator>"
