"""One run of an ONNX Runtime session.

Called by several executors at once, without the GIL; owns every handle that it makes and releases it before it returns.
The Blocks of the outputs are the caller's; what the inputs' views point to must stay until it returns.
"""

from libc.stdint cimport int16_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memmove, memset, strlen, strstr

from infer._core.arena cimport at, offset_of
from infer._core.block cimport block_data, block_new, block_unref
from infer._core.capi.onnxruntime cimport ORT_INVALID_ARGUMENT, OrtRunnable, OrtShapeInfo, OrtStatus, OrtValue
from infer._core.debug cimport try_malloc
from infer._core.ort_runtime cimport cpu_memory, default_allocator, ort
from infer._core.status cimport STATUS_INTERNAL, STATUS_INVALID_ARGUMENT, STATUS_OK, STATUS_RESOURCE_EXHAUSTED
from infer._core.tensor_text cimport ERROR_TEXT_BYTES, clear_error, say, say_int
from infer._core.tensor_view cimport MAX_RANK, TYPE_BYTES, TYPE_NONE, TensorSpec, element_bytes, mask_has

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
        handles.malloced = try_malloc(pointers * sizeof(void *))
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


cdef bint speaks_of_bound_shape(const ErrorText *detail) noexcept nogil:
    """Whether the runtime refused memory that it was given for an output, since the output has another shape."""
    return (strstr(detail.text, b"pre-allocated") != NULL or strstr(detail.text, b"provided for output") != NULL
            or strstr(detail.text, b"shape verification failed") != NULL)


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


cdef uint64_t bound_bytes(const TensorSpec *spec, int64_t rows, TensorView *view) noexcept nogil:
    """Bytes and shape of an output whose size is known before the run, else 0 (also where it holds nothing)."""
    cdef uint64_t size = element_bytes(spec.data_type)
    cdef int32_t rank = spec.rank
    cdef const int64_t *shape = &spec.shape[0]
    cdef int64_t length
    cdef int32_t k
    if spec.reshaped != NULL:
        rank = spec.reshaped.rank
        shape = &spec.reshaped.shape[0]
    if rank < 0 or (rows >= 0 and rank == 0):
        return 0
    for k in range(rank):
        length = rows if k == 0 and rows >= 0 else shape[k]
        if length <= 0 or length >> 31 or size >> LARGEST_BOUND_LOG2:
            return 0
        view.shape[k] = length
        size *= <uint64_t> length
    view.rank = <int16_t> rank
    return 0 if size >> LARGEST_BOUND_LOG2 else size


cdef int make_outputs(const Session *session, const OutputMask *mask, int64_t rows, RunOutput *outputs,
                      Handles *handles, ErrorText *detail) noexcept nogil:
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
        size_bytes = bound_bytes(spec, rows, &output.view)
        if not size_bytes:
            continue
        output.block = block_new(size_bytes)
        if output.block == NULL:
            return no_memory(detail)
        output.block.size_bytes = size_bytes
        output.view.data = offset_of(block_data(output.block))
        output.view.size_bytes = size_bytes
        output.view.data_type = spec.data_type
        code = take_failure(ort.CreateTensorWithDataAsOrtValue(
            cpu_memory, block_data(output.block), size_bytes, output.view.shape, <size_t> output.view.rank,
            spec.data_type, value), detail)
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
    starts = <size_t *> try_malloc((elements + 1) * sizeof(size_t))
    if rows >= 0:
        output.element_ends = <uint64_t *> try_malloc((<uint64_t> rows + 1) * sizeof(uint64_t))
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


cdef int attempt(const Session *session, const void *options, const TensorView *inputs, const OutputMask *mask,
                 int64_t rows, RunOutput *outputs, ErrorText *detail) noexcept nogil:
    """One call of the runtime, with everything that it needs made and released."""
    cdef Handles handles
    cdef const TensorSpec *spec
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
            <OrtRunnable *> session.session, options, handles.input_names, <const OrtValue **> handles.inputs,
            <size_t> handles.n_inputs, handles.output_names, <size_t> handles.n_outputs, handles.outputs), detail)
    if code == STATUS_OK:
        for i in range(handles.n_outputs):
            output = &outputs[handles.which[i]]
            if output.block == NULL:
                spec = &session.signature.outputs[handles.which[i]]
                code = copy_output(handles.outputs[i], spec, rows, output, detail)
                if code != STATUS_OK:
                    break
    handles_close(&handles)
    if code != STATUS_OK:
        drop_outputs(outputs, session.n_outputs)
    return code


cdef int session_run(const Session *session, const void *options, const TensorView *inputs, const OutputMask *mask,
                     int64_t rows, RunOutput *outputs, ErrorText *detail) noexcept nogil:
    cdef Session unbound
    cdef int code = attempt(session, options, inputs, mask, rows, outputs, detail)
    if code == STATUS_OK or session.bindable == NULL or not speaks_of_bound_shape(detail):
        return code
    # The model made an output of another shape than it declares. Without memory of ours the runtime makes whatever it
    # is.
    unbound = session[0]
    unbound.bindable = NULL
    return attempt(&unbound, options, inputs, mask, rows, outputs, detail)
