"""Appends execution providers to a session's options, with their settings.

Called at model load, with the GIL. CUDA's libraries, where pip installed them, are loaded once and stay in the process.
"""

from importlib.util import find_spec
from pathlib import Path

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from posix.dlfcn cimport RTLD_GLOBAL, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW, dlopen, dlsym

from infer._core.capi.onnxruntime cimport OrtProviderOptions, OrtStatus
from infer._core.ort_runtime cimport ort, take_words

from infer.errors import ModelLoadError

SUFFIX = "ExecutionProvider"
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
CUDA_ADVICE = ("install CUDA's libraries beside it: pip install 'onnxruntime-gpu[cuda,cudnn]'; or serve on the CPU "
               "with --provider cpu")

ctypedef int (*cuda_init_function)(unsigned int) noexcept nogil
ctypedef int (*cuda_count_function)(int *) noexcept nogil

cdef bint nvidia_loaded = False


def nvidia_libraries():
    """Shared libraries of the `nvidia-*` packages that pip installed."""
    package = find_spec("nvidia")
    if package is None or not package.submodule_search_locations:
        return []
    return sorted({path for folder in package.submodule_search_locations
                   for path in Path(folder).glob("*/lib/*.so*") if path.is_file()}
                  | {path for folder in package.submodule_search_locations
                     for path in Path(folder).glob("*/*/lib/*.so*") if path.is_file()})


cdef load_nvidia():
    """Loads them so that the provider's own library finds them by name. They need one another in no known order, so it
    is tried until a pass loads nothing more; what is still missing then is left for the provider to name."""
    global nvidia_loaded
    cdef bytes path
    if nvidia_loaded:
        return
    waiting = [str(path).encode() for path in nvidia_libraries()]
    while waiting:
        failed = []
        for path in waiting:
            if dlopen(path, RTLD_LAZY | RTLD_GLOBAL) == NULL:
                failed.append(path)
        if len(failed) == len(waiting):
            break
        waiting = failed
    nvidia_loaded = True


def cuda_devices():
    """CUDA devices that the driver reports; 0 without a driver."""
    cdef int count = 0
    cdef void *driver = dlopen(b"libcuda.so.1", RTLD_NOW | RTLD_LOCAL)
    cdef void *init
    cdef void *get_count
    if driver == NULL:
        return 0
    init = dlsym(driver, b"cuInit")
    get_count = dlsym(driver, b"cuDeviceGetCount")
    if init == NULL or get_count == NULL or (<cuda_init_function> init)(0) != 0:
        return 0
    if (<cuda_count_function> get_count)(&count) != 0:
        return 0
    return count


cdef str full_name(str name, list available):
    """The library's name of the provider that a user calls `name`."""
    folded = name.lower().removesuffix(SUFFIX.lower())
    for candidate in available:
        if candidate.removesuffix(SUFFIX).lower() == folded:
            return candidate
    listed = ", ".join(candidate.removesuffix(SUFFIX) for candidate in available)
    raise ModelLoadError(f"provider {name} is not in the installed ONNX Runtime library, which has: {listed}; install "
                         "the onnxruntime package that carries it (onnxruntime-gpu for CUDA and TensorRT, "
                         "onnxruntime-openvino for OpenVINO)")


cdef OrtStatus *append_one(OrtSessionOptions *options, str name, const char **keys, const char **values, size_t count):
    cdef OrtProviderOptions *settings = NULL
    cdef OrtStatus *status
    if name == CUDA:
        status = ort.CreateCUDAProviderOptions(&settings)
        if status == NULL:
            status = ort.UpdateCUDAProviderOptions(settings, keys, values, count)
        if status == NULL:
            with nogil:
                status = ort.SessionOptionsAppendExecutionProvider_CUDA_V2(options, settings)
        if settings != NULL:
            ort.ReleaseCUDAProviderOptions(settings)
        return status
    if name == TENSORRT:
        status = ort.CreateTensorRTProviderOptions(&settings)
        if status == NULL:
            status = ort.UpdateTensorRTProviderOptions(settings, keys, values, count)
        if status == NULL:
            with nogil:
                status = ort.SessionOptionsAppendExecutionProvider_TensorRT_V2(options, settings)
        if settings != NULL:
            ort.ReleaseTensorRTProviderOptions(settings)
        return status
    short = name.removesuffix(SUFFIX).encode()
    return ort.SessionOptionsAppendExecutionProvider(options, short, keys, values, count)


cdef append(OrtSessionOptions *options, str name, dict settings):
    cdef size_t count = len(settings)
    cdef const char **keys
    cdef OrtStatus *status
    cdef size_t i
    if name in (CUDA, TENSORRT):
        load_nvidia()
    encoded = [(str(key).encode(), str(value).encode()) for key, value in settings.items()]
    keys = <const char **> PyMem_Malloc((2 * count + 1) * sizeof(char *))
    if keys == NULL:
        raise MemoryError("no memory for provider options")
    try:
        for i in range(count):
            keys[i] = <bytes> encoded[i][0]
            keys[count + i] = <bytes> encoded[i][1]
        status = append_one(options, name, keys, keys + count, count)
    finally:
        PyMem_Free(keys)
    if status != NULL:
        advice = f"; {CUDA_ADVICE}" if name in (CUDA, TENSORRT) else ""
        raise ModelLoadError(f"provider {name.removesuffix(SUFFIX)} cannot be used: {take_words(status)}{advice}")


cdef list append_providers(OrtSessionOptions *options, Runtime runtime, wanted, list messages):
    if wanted == "auto" or not wanted:
        if CUDA in runtime.providers and cuda_devices() > 0:
            try:
                append(options, CUDA, {})
                return [(CUDA, {}), (CPU, {})]
            except ModelLoadError as error:
                messages.append(f"a CUDA device is here but the model runs on the CPU: {error}")
        return [(CPU, {})]
    used = []
    for name, settings in wanted:
        name = full_name(name, runtime.providers)
        short = name.removesuffix(SUFFIX)
        if any(name == other for other, _ in used):
            raise ModelLoadError(f"provider {short} is named twice")
        if name == CPU:
            if settings:
                raise ModelLoadError(f"provider CPU takes no options, got: {', '.join(map(str, settings))}")
        elif any(other == CPU for other, _ in used):
            raise ModelLoadError(f"provider {short} comes after CPU, which runs all that is left; put CPU last")
        else:
            append(options, name, settings)
        used.append((name, dict(settings)))
    if not any(name == CPU for name, _ in used):
        used.append((CPU, {}))
    return used
