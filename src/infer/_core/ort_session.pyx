"""A model file loaded for running: options, providers, what it declares, and the cold run of warm-up and self-check.

An OrtSession is made on any thread and must outlive the runs on its `c`: a VersionEntry holds it.
"""

from os import fsencode
from pathlib import Path

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int16_t, int32_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from infer._core.arena cimport at, offset_of
from infer._core.block cimport BLOCK_HEADER_BYTES, Block, block_data, block_new, block_unref
from infer._core.capi.onnxruntime cimport (
    ORT_DISABLE_ALL, ORT_ENABLE_ALL, ORT_ENABLE_BASIC, ORT_ENABLE_EXTENDED, ORT_PARALLEL, OrtRunnable,
    OrtSessionOptions, OrtStatus)
from infer._core.idle_thread cimport run_idle
from infer._core.model_version cimport TensorInfo
from infer._core.ort_inspect cimport declared_inputs, declared_outputs, model_metadata
from infer._core.ort_provider cimport append_providers
from infer._core.ort_run cimport RunOutput, Session, drop_outputs, session_run
from infer._core.ort_runtime cimport LogLines, check, collect_log, log_lines, ort, take_words
from infer._core.span cimport Span
from infer._core.status cimport STATUS_INVALID_ARGUMENT, STATUS_OK, STATUS_RESOURCE_EXHAUSTED
from infer._core.tensor_text cimport ErrorText, data_type_name, data_type_of
from infer._core.tensor_view cimport (
    FORM_RAW, MAX_OUTPUTS, MAX_RANK, TYPE_NONE, OutputMask, TensorSpec, TensorView, element_bytes, mask_add)

from infer.errors import Internal, InvalidArgument, ModelLoadError, ResourceExhausted


GRAPH_OPTIMIZATION = {"off": ORT_DISABLE_ALL, "basic": ORT_ENABLE_BASIC, "extended": ORT_ENABLE_EXTENDED,
                      "all": ORT_ENABLE_ALL}


# What a thread beside the caller's is given to do.
cdef struct Creation:
    void *environment
    const char *path
    const OrtSessionOptions *options
    OrtRunnable *session
    OrtStatus *status
    LogLines *lines

cdef struct ColdRun:
    const Session *session
    const TensorView *views
    const OutputMask *mask
    RunOutput *outputs
    ErrorText *detail
    int code


cdef void create(void *argument) noexcept nogil:
    cdef Creation *creation = <Creation *> argument
    collect_log(creation.lines)
    creation.status = ort.CreateSession(creation.environment, creation.path, creation.options, &creation.session)
    collect_log(NULL)


cdef void release(void *session) noexcept nogil:
    ort.ReleaseSession(<OrtRunnable *> session)


cdef void run_cold(void *argument) noexcept nogil:
    cdef ColdRun *run = <ColdRun *> argument
    run.code = session_run(run.session, NULL, run.views, run.mask, -1, run.outputs, run.detail)


cdef void describe_output(TensorSpec *spec, TensorInfo info) except *:
    cdef int k
    spec.data_type = info.data_type
    spec.served = info.served
    spec.rank = -1 if info.shape is None else <int32_t> len(info.shape)
    if spec.rank > MAX_RANK:
        spec.rank = -1
    for k in range(spec.rank):
        spec.shape[k] = info.shape[k]


@cython.final
cdef class OrtSession:
    """A model file loaded for running. `providers` is "auto" or a list of (name, options); `intra_op` and `inter_op`
    give the session threads of its own instead of the runtime's; `parallel` runs branches of the graph at once."""

    def __cinit__(self):
        memset(&self.c, 0, sizeof(self.c))
        memset(&self.signature, 0, sizeof(self.signature))

    def __init__(self, Runtime runtime not None, path not None, *, providers="auto", intra_op=None,
                 inter_op=None, bint parallel=False, str graph_optimization="all"):
        cdef OrtSessionOptions *options = NULL
        self.runtime = runtime
        self.messages = []
        self._names = []
        check(ort.CreateSessionOptions(&options), "session options")
        try:
            check(ort.SetSessionGraphOptimizationLevel(options, GRAPH_OPTIMIZATION[graph_optimization]),
                  "session options")
            if parallel:
                check(ort.SetSessionExecutionMode(options, ORT_PARALLEL), "session options")
            # The runtime would keep a plan of memory for every shape that it has ever seen, without a bound.
            check(ort.DisableMemPattern(options), "session options")
            self.set_threads(options, intra_op, inter_op)
            self.load(Path(path), providers, options)
        finally:
            ort.ReleaseSessionOptions(options)
        session = <OrtRunnable *> self.c.session
        self.inputs = declared_inputs(session)
        self.outputs = declared_outputs(session)
        self.metadata = model_metadata(session)
        if len(self.outputs) > MAX_OUTPUTS:
            raise ModelLoadError(f"the model has {len(self.outputs)} outputs, at most {MAX_OUTPUTS} can be served")
        if not any(info.served for info in self.outputs):
            listed = ", ".join(f"{info.name} ({info.datatype})" for info in self.outputs)
            raise ModelLoadError(f"none of the model's outputs is a tensor: {listed}; export it with tensor outputs "
                                 "(scikit-learn: convert with options={'zipmap': False})")
        self.describe()

    cdef set_threads(self, OrtSessionOptions *options, intra_op, inter_op):
        # Threads that the runtime makes for a session inherit the scheduling of the thread that loads it.
        self.quiet = intra_op in (None, 1) and inter_op in (None, 1)
        check(ort.SetInterOpNumThreads(options, 1 if inter_op is None else inter_op), "session options")
        if intra_op is None and inter_op is None:
            check(ort.DisablePerSessionThreads(options), "session options")
            return
        check(ort.SetIntraOpNumThreads(options, self.runtime.intra_op if intra_op is None else intra_op),
              "session options")
        for kind in (b"intra", b"inter"):
            check(ort.AddSessionConfigEntry(options, b"session." + kind + b"_op.allow_spinning", b"0"),
                  "session options")

    cdef load(self, file, providers, OrtSessionOptions *options):
        cdef Creation creation
        cdef LogLines lines
        cdef bytes path = fsencode(file)
        cdef bint quiet
        memset(&creation, 0, sizeof(creation))
        self.providers = append_providers(options, self.runtime, providers, self.messages)
        # A device's driver makes threads of its own as well.
        self.quiet = self.quiet and all(name == "CPUExecutionProvider" for name, _ in self.providers)
        creation.environment = self.runtime.environment
        creation.path = path
        creation.options = options
        creation.lines = &lines
        quiet = self.quiet
        with nogil:
            if quiet:
                run_idle(create, &creation)
            else:
                create(&creation)
        self.messages += log_lines(&lines)
        if creation.status != NULL:
            words = take_words(creation.status).replace(f"Load model from {file} failed:", "")
            words = words.replace(f"{file.parent}/", "")
            raise ModelLoadError(f"ONNX Runtime {self.runtime.version} cannot load it: {words}")
        self.c.session = creation.session

    cdef describe(self):
        """The C side of inputs and outputs, as tensors without a row dimension."""
        cdef int i
        self.c.n_inputs = <int32_t> len(self.inputs)
        self.c.n_outputs = <int32_t> len(self.outputs)
        self.c.input_names = <const char **> PyMem_Calloc(self.c.n_inputs + 1, sizeof(char *))
        self.c.output_names = <const char **> PyMem_Calloc(self.c.n_outputs + 1, sizeof(char *))
        self.c.bindable = <uint8_t *> PyMem_Calloc(self.c.n_outputs + 1, 1)
        self.signature.outputs = <TensorSpec *> PyMem_Calloc(self.c.n_outputs + 1, sizeof(TensorSpec))
        if (self.c.input_names == NULL or self.c.output_names == NULL or self.c.bindable == NULL
                or self.signature.outputs == NULL):
            raise MemoryError("no memory for a session's names")
        self.signature.model = b""
        self.signature.n_outputs = self.c.n_outputs
        self.c.signature = &self.signature
        taken = set()
        for i in range(self.c.n_inputs):
            self.c.input_names[i] = self.keep((<TensorInfo> self.inputs[i]).name)
            taken.add((<TensorInfo> self.inputs[i]).name)
        for i in range(self.c.n_outputs):
            info = <TensorInfo> self.outputs[i]
            self.c.output_names[i] = self.keep(info.name)
            # An output that is an input by another way is answered with the input's own memory, never with ours.
            self.c.bindable[i] = info.name not in taken
            describe_output(&self.signature.outputs[i], info)

    cdef const char *keep(self, str name) except NULL:
        encoded = name.encode()
        self._names.append(encoded)
        return <const char *> <bytes> encoded

    def close(self):
        """Gives back the session's memory, without the GIL; nothing may run on it any more. It is closed once."""
        cdef void *session = self.c.session
        cdef bint quiet = self.quiet
        self.c.session = NULL
        if session == NULL:
            return
        with nogil:
            if quiet:
                run_idle(release, session)
            else:
                release(session)

    def __dealloc__(self):
        if self.c.session != NULL:
            ort.ReleaseSession(<OrtRunnable *> self.c.session)
        PyMem_Free(self.c.input_names)
        PyMem_Free(self.c.output_names)
        PyMem_Free(self.c.bindable)
        PyMem_Free(self.signature.outputs)

    def run(self, list inputs not None):
        """Runs once: a (datatype, shape, raw bytes) per input (None: left out), the same per served output. Any thread;
        not for serving: it copies, and notes outputs of another shape than declared, so that they are never bound."""
        cdef TensorView *views = <TensorView *> PyMem_Calloc(self.c.n_inputs + 1, sizeof(TensorView))
        cdef RunOutput *outputs = <RunOutput *> PyMem_Calloc(self.c.n_outputs + 1, sizeof(RunOutput))
        cdef OutputMask mask
        cdef ErrorText detail
        cdef Session unbound = self.c
        cdef ColdRun cold
        cdef bint quiet = self.quiet
        cdef int i
        unbound.bindable = NULL
        memset(&mask, 0, sizeof(mask))
        for i in range(self.c.n_outputs):
            mask_add(&mask, i)
        try:
            if self.c.session == NULL:
                raise InvalidArgument("the session is closed")
            if views == NULL or outputs == NULL:
                raise MemoryError("no memory for a run")
            if len(inputs) != self.c.n_inputs:
                raise InvalidArgument(f"the model has {self.c.n_inputs} inputs, got {len(inputs)}")
            for i in range(self.c.n_inputs):
                if inputs[i] is not None:
                    fill_view(&views[i], inputs[i], (<TensorInfo> self.inputs[i]).name)
            cold.session = &unbound
            cold.views = views
            cold.mask = &mask
            cold.outputs = outputs
            cold.detail = &detail
            with nogil:
                if quiet:
                    run_idle(run_cold, &cold)
                else:
                    run_cold(&cold)
            if cold.code != STATUS_OK:
                words = (<const char *> detail.text).decode("utf-8", "replace")
                raise {STATUS_INVALID_ARGUMENT: InvalidArgument,
                       STATUS_RESOURCE_EXHAUSTED: ResourceExhausted}.get(cold.code, Internal)(words)
            return self.take_results(outputs)
        finally:
            if views != NULL:
                for i in range(self.c.n_inputs):
                    free_view(&views[i])
            if outputs != NULL:
                drop_outputs(outputs, self.c.n_outputs)
            PyMem_Free(views)
            PyMem_Free(outputs)

    cdef list take_results(self, RunOutput *outputs):
        cdef const TensorSpec *spec
        cdef RunOutput *output
        cdef int i, k
        results = []
        for i in range(self.c.n_outputs):
            spec = &self.signature.outputs[i]
            output = &outputs[i]
            if not spec.served:
                continue
            if spec.rank >= 0:
                if output.view.rank != spec.rank:
                    self.c.bindable[i] = 0
                else:
                    for k in range(spec.rank):
                        if spec.shape[k] >= 0 and spec.shape[k] != output.view.shape[k]:
                            self.c.bindable[i] = 0
            results.append((data_type_name(output.view.data_type).decode(),
                            tuple([output.view.shape[k] for k in range(output.view.rank)]),
                            PyBytes_FromStringAndSize(<const char *> at(output.view.data),
                                                      <Py_ssize_t> output.view.size_bytes)))
        return results


cdef int fill_view(TensorView *view, tuple tensor, str name) except -1:
    """A view over a Block of its own that holds the tensor; `free_view` drops it."""
    cdef Block *block
    cdef Span span
    cdef uint64_t size
    cdef int k
    datatype, shape, raw = tensor
    encoded = (<str> datatype).encode()
    span.at = <const uint8_t *> PyBytes_AS_STRING(encoded)
    span.end = span.at + PyBytes_GET_SIZE(encoded)
    if len(shape) > MAX_RANK:
        raise InvalidArgument(f"input {name!r} has {len(shape)} dimensions, at most {MAX_RANK} are possible")
    view.rank = <int16_t> len(shape)
    size = element_bytes(data_type_of(&span))
    for k in range(view.rank):
        view.shape[k] = shape[k]
        size *= <uint64_t> view.shape[k]
    if datatype != "BYTES" and (size != <uint64_t> len(raw) or data_type_of(&span) == TYPE_NONE):
        raise InvalidArgument(f"input {name!r}: {len(raw)} bytes are not {datatype} {list(shape)}")
    block = block_new(<uint64_t> len(raw))
    if block == NULL:
        raise ResourceExhausted(f"no memory for input {name!r} ({len(raw)} bytes)")
    memcpy(block_data(block), PyBytes_AS_STRING(raw), len(raw))
    view.data = offset_of(block_data(block))
    view.size_bytes = <uint64_t> len(raw)
    view.data_type = data_type_of(&span)
    view.form = FORM_RAW
    return 0


cdef void free_view(TensorView *view) noexcept:
    if view.data:
        block_unref(<Block *> (<uint8_t *> at(view.data) - BLOCK_HEADER_BYTES))


cpdef void attach(VersionEntry entry, OrtSession session):
    session.c.signature = &entry.c.signature
    entry.c.session = &session.c
    entry.session = session


cpdef OrtSession take_session(VersionEntry entry):
    cdef OrtSession session = entry.session
    session.c.signature = &session.signature
    entry.c.session = NULL
    entry.session = None
    return session
