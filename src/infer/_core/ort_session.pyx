"""One ONNX Runtime session: loading, one run, and the cold run that warm-up and self-check use.

`session_run` is called by several executors at once and never wants the GIL. It owns every handle that it makes and
releases it before it returns; the Blocks of its outputs are the caller's. What the inputs' views point to must stay until it
returns. An OrtSession is made on any thread and must outlive the runs on its `c`: a VersionEntry holds it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset, strlen, strstr

from infer._core.arena cimport arena_base, at, offset_of
from infer._core.block cimport BLOCK_HEADER_BYTES, block_data, block_new, block_unref
from infer._core.capi.onnxruntime cimport (
    ORT_ENABLE_ALL, ORT_FAIL, ORT_INVALID_ARGUMENT, ORT_RUNTIME_EXCEPTION, OrtRunnable, OrtSessionOptions, OrtShapeInfo,
    OrtStatus, OrtValue)
from infer._core.model_version cimport TensorInfo
from infer._core.ort_inspect cimport declared_inputs, declared_outputs, model_metadata
from infer._core.ort_provider cimport append_providers
from infer._core.ort_runtime cimport LogLines, check, collect_log, cpu_memory, default_allocator, log_lines, ort
from infer._core.ort_runtime cimport take_words
from infer._core.span cimport Span
from infer._core.status cimport STATUS_INTERNAL, STATUS_INVALID_ARGUMENT, STATUS_OK, STATUS_RESOURCE_EXHAUSTED
from infer._core.tensor_text cimport ERROR_TEXT_BYTES, clear_error, data_type_name, data_type_of, say, say_int
from infer._core.tensor_view cimport (
    MAX_OUTPUTS, MAX_RANK, TYPE_BYTES, TYPE_COUNT, TYPE_NONE, FORM_RAW, TensorSpec, element_bytes, mask_add, mask_has)

from infer.errors import Internal, InvalidArgument, ModelLoadError, ResourceExhausted

cdef enum:
    FEW_POINTERS = 64            # handles of one run that fit on the stack; more are malloc'd
    LARGEST_BOUND_LOG2 = 40

# The handles of one run. `inputs` and `outputs` are released with it; `which` maps each output to the model's order.
cdef struct Handles:
    int32_t n_inputs
    int32_t n_outputs
    const char **input_names
    OrtValue **inputs
    const char **output_names
    OrtValue **outputs
    int64_t *which
    void *malloced
    void *few[64]


cdef bint handles_open(Handles *handles, int32_t n_inputs, int32_t n_outputs) noexcept nogil:
    cdef size_t pointers = 2 * <size_t> n_inputs + 3 * <size_t> n_outputs
    cdef void **room = handles.few
    handles.malloced = NULL
    handles.n_inputs = 0
    handles.n_outputs = 0
    if pointers > FEW_POINTERS:
        handles.malloced = malloc(pointers * sizeof(void *))
        if handles.malloced == NULL:
            return False
        room = <void **> handles.malloced
    handles.input_names = <const char **> room
    handles.inputs = <OrtValue **> (room + n_inputs)
    handles.output_names = <const char **> (room + 2 * n_inputs)
    handles.outputs = <OrtValue **> (room + 2 * n_inputs + n_outputs)
    handles.which = <int64_t *> (room + 2 * n_inputs + 2 * n_outputs)
    return True


cdef void handles_close(Handles *handles) noexcept nogil:
    cdef int32_t i
    for i in range(handles.n_inputs):
        if handles.inputs[i] != NULL:
            ort.ReleaseValue(handles.inputs[i])
    for i in range(handles.n_outputs):
        if handles.outputs[i] != NULL:
            ort.ReleaseValue(handles.outputs[i])
    free(handles.malloced)


cdef void say_words(ErrorText *detail, const char *words) noexcept nogil:
    """Appends what the runtime said, cut where the text is full."""
    cdef size_t size = strlen(words)
    cdef size_t room = ERROR_TEXT_BYTES - 1 - detail.size_bytes
    if size > room:
        size = room
        while size > 0 and (<uint8_t> words[size] & 0xC0) == 0x80:
            size -= 1
    memcpy(&detail.text[detail.size_bytes], words, size)
    detail.size_bytes += <uint32_t> size
    detail.text[detail.size_bytes] = 0


cdef bint speaks_of_memory(const char *words) noexcept nogil:
    return (strstr(words, b"bad_alloc") != NULL or strstr(words, b"ailed to allocate") != NULL
            or strstr(words, b"out of memory") != NULL or strstr(words, b"AllocateRawInternal") != NULL
            or strstr(words, b"llocation failed") != NULL)


cdef int take_failure(OrtStatus *status, ErrorText *detail) noexcept nogil:
    """STATUS_OK for NULL, else the gRPC code of a status, which it releases."""
    cdef int code, error
    cdef const char *words
    if status == NULL:
        return STATUS_OK
    error = ort.GetErrorCode(status)
    words = ort.GetErrorMessage(status)
    say_words(detail, words)
    if speaks_of_memory(words):
        code = STATUS_RESOURCE_EXHAUSTED
    elif error == ORT_INVALID_ARGUMENT:
        code = STATUS_INVALID_ARGUMENT
    else:
        code = STATUS_INTERNAL
    ort.ReleaseStatus(status)
    return code


cdef int no_memory(ErrorText *detail) noexcept nogil:
    say(detail, b"no memory for the run")
    return STATUS_RESOURCE_EXHAUSTED


cdef int fill_strings(OrtValue *value, const TensorView *view, ErrorText *detail) noexcept nogil:
    """Elements of a BYTES view, each a length and its bytes, into a string tensor; they may hold NUL."""
    cdef const uint8_t *from_ = <const uint8_t *> at(view.data)
    cdef uint64_t left = view.size_bytes
    cdef uint64_t elements = 1
    cdef uint64_t i
    cdef uint32_t size
    cdef char *to = NULL
    cdef int code
    for i in range(<uint64_t> view.rank):
        elements *= <uint64_t> view.shape[i]
    for i in range(elements):
        if left < 4:
            break
        memcpy(&size, from_, 4)
        if size > left - 4:
            break
        code = take_failure(ort.GetResizedStringTensorElementBuffer(value, i, size, &to), detail)
        if code != STATUS_OK:
            return code
        memcpy(to, from_ + 4, size)
        from_ += 4 + size
        left -= 4 + size
    else:
        if left == 0:
            return STATUS_OK
    say(detail, b"a BYTES tensor does not hold the elements that its shape counts")
    return STATUS_INVALID_ARGUMENT


cdef int make_inputs(const Session *session, const TensorView *views, Handles *handles,
                     ErrorText *detail) noexcept nogil:
    cdef const TensorView *view
    cdef OrtValue **value
    cdef int32_t i
    cdef int code
    for i in range(session.n_inputs):
        view = &views[i]
        if view.data_type == TYPE_NONE:
            continue
        handles.input_names[handles.n_inputs] = session.input_names[i]
        value = &handles.inputs[handles.n_inputs]
        value[0] = NULL
        handles.n_inputs += 1
        if view.data_type == TYPE_BYTES:
            code = take_failure(ort.CreateTensorAsOrtValue(
                default_allocator, view.shape, <size_t> view.rank, TYPE_BYTES, value), detail)
            if code == STATUS_OK:
                code = fill_strings(value[0], view, detail)
        else:
            code = take_failure(ort.CreateTensorWithDataAsOrtValue(
                cpu_memory, at(view.data), view.size_bytes, view.shape, <size_t> view.rank, view.data_type, value),
                detail)
        if code != STATUS_OK:
            return code
    return STATUS_OK


cdef uint64_t bound_bytes(const TensorSpec *spec, int64_t rows, int64_t *shape) noexcept nogil:
    """Bytes and shape of an output whose size is known before the run, else 0 (also where it holds nothing)."""
    cdef uint64_t size = element_bytes(spec.data_type)
    cdef int32_t k
    if spec.rank < 0 or (rows >= 0 and spec.rank == 0):
        return 0
    for k in range(spec.rank):
        shape[k] = rows if k == 0 and rows >= 0 else spec.shape[k]
        if shape[k] <= 0 or shape[k] >> 31 or size >> LARGEST_BOUND_LOG2:
            return 0
        size *= <uint64_t> shape[k]
    return 0 if size >> LARGEST_BOUND_LOG2 else size


cdef int make_outputs(const Session *session, const OutputMask *mask, int64_t rows, RunOutput *outputs, Handles *handles,
                      ErrorText *detail) noexcept nogil:
    """Binds memory to the outputs whose shape is known; the others are left to the runtime."""
    cdef const TensorSpec *spec
    cdef RunOutput *output
    cdef OrtValue **value
    cdef uint64_t size_bytes
    cdef int32_t i
    cdef int code
    for i in range(session.n_outputs):
        spec = &session.signature.outputs[i]
        if not mask_has(mask, i) or not spec.served:
            continue
        output = &outputs[i]
        handles.output_names[handles.n_outputs] = session.output_names[i]
        handles.which[handles.n_outputs] = i
        value = &handles.outputs[handles.n_outputs]
        value[0] = NULL
        handles.n_outputs += 1
        if session.bindable == NULL or not session.bindable[i]:
            continue
        size_bytes = bound_bytes(spec, rows, output.view.shape)
        if not size_bytes:
            continue
        output.block = block_new(size_bytes)
        if output.block == NULL:
            return no_memory(detail)
        output.block.size_bytes = size_bytes
        output.view.data = offset_of(block_data(output.block))
        output.view.size_bytes = size_bytes
        output.view.data_type = spec.data_type
        output.view.rank = <int16_t> spec.rank
        code = take_failure(ort.CreateTensorWithDataAsOrtValue(
            cpu_memory, block_data(output.block), size_bytes, output.view.shape, <size_t> spec.rank, spec.data_type,
            value), detail)
        if code != STATUS_OK:
            return code
    return STATUS_OK


cdef int copy_strings(OrtValue *value, uint64_t elements, int64_t rows, RunOutput *output,
                      ErrorText *detail) noexcept nogil:
    """A string tensor as length-prefixed elements, and where each row of a batched one ends."""
    cdef size_t total = 0
    cdef size_t *starts
    cdef uint8_t *data
    cdef uint64_t i, size, from_, to, per_row
    cdef uint32_t prefix
    cdef int code = take_failure(ort.GetStringTensorDataLength(value, &total), detail)
    if code != STATUS_OK:
        return code
    output.block = block_new(total + 4 * elements)
    starts = <size_t *> malloc((elements + 1) * sizeof(size_t))
    if rows >= 0:
        output.element_ends = <uint64_t *> malloc((<uint64_t> rows + 1) * sizeof(uint64_t))
    if output.block == NULL or starts == NULL or (rows >= 0 and output.element_ends == NULL):
        free(starts)
        return no_memory(detail)
    data = block_data(output.block)
    output.block.size_bytes = total + 4 * elements
    # The content goes to the end of the block and is moved forward element by element: a place is written to only after
    # everything in front of it was read.
    if elements > 0:
        code = take_failure(ort.GetStringTensorContent(value, data + 4 * elements, total, starts, elements), detail)
    starts[elements] = total
    per_row = elements // <uint64_t> rows if rows > 0 else 0
    to = 0
    if code == STATUS_OK:
        for i in range(elements):
            from_ = 4 * elements + starts[i]
            size = starts[i + 1] - starts[i]
            if size > <uint64_t> 0xFFFFFFFF:
                say(detail, b"an element of a BYTES output is over 4 GiB")
                code = STATUS_INTERNAL
                break
            prefix = <uint32_t> size
            memcpy(data + to, &prefix, 4)
            memmove(data + to + 4, data + from_, size)
            to += 4 + size
            if per_row and (i + 1) % per_row == 0:
                output.element_ends[i // per_row] = to
    free(starts)
    if per_row == 0 and rows > 0:
        memset(output.element_ends, 0, <uint64_t> rows * sizeof(uint64_t))
    return code


cdef int copy_output(OrtValue *value, const TensorSpec *spec, int64_t rows, RunOutput *output,
                     ErrorText *detail) noexcept nogil:
    """A tensor that the runtime made, copied into a Block of its own."""
    cdef OrtShapeInfo *shape_info = NULL
    cdef size_t rank = 0
    cdef size_t k
    cdef uint64_t elements = 1
    cdef uint64_t size_bytes
    cdef void *data = NULL
    cdef int element_type = 0
    cdef int present = 0
    cdef int code = take_failure(ort.HasValue(value, &present), detail)
    if code == STATUS_OK and present:
        code = take_failure(ort.IsTensor(value, &present), detail)
    if code == STATUS_OK and not present:
        say(detail, b"an output came without a tensor")
        code = STATUS_INTERNAL
    if code == STATUS_OK:
        code = take_failure(ort.GetTensorTypeAndShape(value, &shape_info), detail)
    if code == STATUS_OK:
        code = take_failure(ort.GetTensorElementType(shape_info, &element_type), detail)
    if code == STATUS_OK:
        code = take_failure(ort.GetDimensionsCount(shape_info, &rank), detail)
    if code == STATUS_OK and (rank > MAX_RANK or element_type != spec.data_type):
        say(detail, b"an output is not of the type or rank that the model declares")
        code = STATUS_INTERNAL
    if code == STATUS_OK:
        code = take_failure(ort.GetDimensions(shape_info, output.view.shape, rank), detail)
    if shape_info != NULL:
        ort.ReleaseTensorTypeAndShapeInfo(shape_info)
    if code == STATUS_OK and rows >= 0 and (rank == 0 or output.view.shape[0] != rows):
        say(detail, b"an output has not as many rows as the batch, which has ")
        say_int(detail, rows)
        code = STATUS_INTERNAL
    if code != STATUS_OK:
        return code
    for k in range(rank):
        elements *= <uint64_t> output.view.shape[k]
    if element_type == TYPE_BYTES:
        code = copy_strings(value, elements, rows, output, detail)
    else:
        size_bytes = elements * element_bytes(element_type)
        output.block = block_new(size_bytes)
        if output.block == NULL:
            return no_memory(detail)
        output.block.size_bytes = size_bytes
        if size_bytes:
            code = take_failure(ort.GetTensorMutableData(value, &data), detail)
            if code == STATUS_OK:
                memcpy(block_data(output.block), data, size_bytes)
    if code == STATUS_OK:
        output.view.data = offset_of(block_data(output.block))
        output.view.size_bytes = output.block.size_bytes
        output.view.data_type = element_type
        output.view.rank = <int16_t> rank
    return code


cdef void drop_outputs(RunOutput *outputs, int32_t count) noexcept nogil:
    cdef int32_t i
    for i in range(count):
        block_unref(outputs[i].block)
        free(outputs[i].element_ends)
        outputs[i].block = NULL
        outputs[i].element_ends = NULL


cdef int session_run(const Session *session, const TensorView *inputs, const OutputMask *mask, int64_t rows,
                     RunOutput *outputs, ErrorText *detail) noexcept nogil:
    cdef Handles handles
    cdef RunOutput *output
    cdef int32_t i
    cdef int code
    clear_error(detail)
    memset(outputs, 0, <size_t> session.n_outputs * sizeof(RunOutput))
    if not handles_open(&handles, session.n_inputs, session.n_outputs):
        return no_memory(detail)
    code = make_inputs(session, inputs, &handles, detail)
    if code == STATUS_OK:
        code = make_outputs(session, mask, rows, outputs, &handles, detail)
    if code == STATUS_OK:
        code = take_failure(ort.Run(
            <OrtRunnable *> session.session, NULL, handles.input_names, <const OrtValue **> handles.inputs,
            <size_t> handles.n_inputs, handles.output_names, <size_t> handles.n_outputs, handles.outputs), detail)
    if code == STATUS_OK:
        for i in range(handles.n_outputs):
            output = &outputs[handles.which[i]]
            if output.block == NULL:
                code = copy_output(handles.outputs[i], &session.signature.outputs[handles.which[i]], rows, output, detail)
                if code != STATUS_OK:
                    break
    handles_close(&handles)
    if code != STATUS_OK:
        drop_outputs(outputs, session.n_outputs)
    return code


cdef void describe_output(TensorSpec *spec, TensorInfo info):
    cdef int k
    spec.data_type = info.data_type
    spec.served = info.served
    spec.rank = -1 if info.shape is None else <int32_t> len(info.shape)
    if spec.rank > MAX_RANK:
        spec.rank = -1
    for k in range(spec.rank):
        spec.shape[k] = info.shape[k]


cdef class OrtSession:
    """A model file loaded for running. `providers` is "auto" or a list of (name, options); `intra_op` gives the session
    threads of its own instead of the runtime's."""

    def __cinit__(self):
        memset(&self.c, 0, sizeof(self.c))
        memset(&self.signature, 0, sizeof(self.signature))

    def __init__(self, Runtime runtime not None, path not None, *, providers="auto", intra_op=None):
        self.runtime = runtime
        self.messages = []
        self._names = []
        self.load(str(path).encode(), providers, intra_op)
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

    cdef load(self, bytes path, providers, intra_op):
        cdef OrtSessionOptions *options = NULL
        cdef OrtRunnable *session = NULL
        cdef OrtStatus *status
        cdef LogLines lines
        cdef const char *encoded = path
        check(ort.CreateSessionOptions(&options), "session options")
        try:
            check(ort.SetSessionGraphOptimizationLevel(options, ORT_ENABLE_ALL), "session options")
            check(ort.SetInterOpNumThreads(options, 1), "session options")
            if intra_op is None:
                check(ort.DisablePerSessionThreads(options), "session options")
            else:
                check(ort.SetIntraOpNumThreads(options, intra_op), "session options")
                check(ort.AddSessionConfigEntry(options, b"session.intra_op.allow_spinning", b"0"), "session options")
            self.providers = append_providers(options, self.runtime, providers, self.messages)
            with nogil:
                collect_log(&lines)
                status = ort.CreateSession(self.runtime.environment, encoded, options, &session)
                collect_log(NULL)
            self.messages += log_lines(&lines)
            if status != NULL:
                words = take_words(status).replace(f"Load model from {path.decode()} failed:", "")
                raise ModelLoadError(f"ONNX Runtime {self.runtime.version} cannot load it: {words}")
            self.c.session = session
        finally:
            ort.ReleaseSessionOptions(options)

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

    def __dealloc__(self):
        if self.c.session != NULL:
            ort.ReleaseSession(<OrtRunnable *> self.c.session)
        PyMem_Free(self.c.input_names)
        PyMem_Free(self.c.output_names)
        PyMem_Free(self.c.bindable)
        PyMem_Free(self.signature.outputs)

    def run(self, list inputs not None):
        """Runs once: a (datatype, shape, raw bytes) per input (None: left out), the same per served output. Any thread; not
        for serving: it copies, and notes which outputs have another shape than declared, so that they are never bound."""
        cdef TensorView *views = <TensorView *> PyMem_Calloc(self.c.n_inputs + 1, sizeof(TensorView))
        cdef RunOutput *outputs = <RunOutput *> PyMem_Calloc(self.c.n_outputs + 1, sizeof(RunOutput))
        cdef OutputMask mask
        cdef ErrorText detail
        cdef Session unbound = self.c
        cdef int code
        cdef int i
        unbound.bindable = NULL
        memset(&mask, 0, sizeof(mask))
        for i in range(self.c.n_outputs):
            mask_add(&mask, i)
        try:
            if views == NULL or outputs == NULL:
                raise MemoryError("no memory for a run")
            if len(inputs) != self.c.n_inputs:
                raise InvalidArgument(f"the model has {self.c.n_inputs} inputs, got {len(inputs)}")
            for i in range(self.c.n_inputs):
                if inputs[i] is not None:
                    fill_view(&views[i], inputs[i], (<TensorInfo> self.inputs[i]).name)
            with nogil:
                code = session_run(&unbound, views, &mask, -1, outputs, &detail)
            if code != STATUS_OK:
                words = (<const char *> detail.text).decode("utf-8", "replace")
                raise {STATUS_INVALID_ARGUMENT: InvalidArgument,
                       STATUS_RESOURCE_EXHAUSTED: ResourceExhausted}.get(code, Internal)(words)
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
