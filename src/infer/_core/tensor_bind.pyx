"""The likely request brings its inputs in the model's order, under the model's own type names: each of those is one
comparison. What is wrong with a request, and what to say, is worked out only once something is.
"""

from libc.stdint cimport int16_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, strlen

from infer._core.arena cimport offset_of
from infer._core.span cimport Span, span_left
from infer._core.status cimport STATUS_INVALID_ARGUMENT, STATUS_OK
from infer._core.tensor_contents cimport check_raw, contents_field, contents_field_name, decode_contents
from infer._core.tensor_contents cimport measure_contents
from infer._core.tensor_request cimport InferMessage, InputFields
from infer._core.tensor_text cimport ErrorText, clear_error, data_type_name, data_type_of, say, say_input, say_int
from infer._core.tensor_text cimport say_name, say_shape, say_tensor
from infer._core.tensor_view cimport FORM_RAW, FORM_TYPED, MAX_OUTPUTS, MAX_RANK, TYPE_BOOL, TYPE_BYTES, TYPE_NONE
from infer._core.tensor_view cimport Signature, TensorSpec, TensorView, element_bytes, mask_add, mask_has

cdef extern from * nogil:
    bint __builtin_mul_overflow(int64_t left, int64_t right, int64_t *product)

cdef enum:
    NAMES_LISTED = 8

cdef enum Wanted:
    LIST_ALL
    LIST_SERVED
    LIST_MISSING


cdef void say_model(ErrorText *error, const Signature *signature) noexcept nogil:
    say(error, "model ")
    say_name(error, <const uint8_t *> signature.model, strlen(signature.model))


cdef void say_specs(ErrorText *error, const TensorSpec *specs, int n_specs, int wanted,
                    const TensorView *views) noexcept nogil:
    """The names of those that are wanted, as many as anyone reads."""
    cdef int listed = 0
    cdef int i
    for i in range(n_specs):
        if wanted == LIST_SERVED and not specs[i].served:
            continue
        if wanted == LIST_MISSING and (views[i].data_type != TYPE_NONE or specs[i].optional):
            continue
        if listed == NAMES_LISTED:
            say(error, ", ...")
            return
        if listed:
            say(error, ", ")
        say_name(error, <const uint8_t *> specs[i].name, specs[i].name_bytes)
        listed += 1
    if listed == 0:
        say(error, "none")


cdef void say_expected(ErrorText *error, const Signature *signature, int input,
                       const InputFields *fields) noexcept nogil:
    """`input 'x' of model 'm': expected FP32 [-1,4], got FP64 [1,4]; `"""
    cdef const TensorSpec *spec = &signature.inputs[input]
    cdef int data_type = data_type_of(&fields.data_type)
    say_input(error, signature, input)
    say(error, "expected ")
    say_tensor(error, spec.data_type, spec.rank, spec.shape)
    say(error, ", got ")
    if data_type == TYPE_NONE:
        say(error, "datatype ")
        say_name(error, fields.data_type.at, span_left(&fields.data_type))
        say(error, " with shape ")
        say_shape(error, fields.rank, fields.shape)
    else:
        say_tensor(error, data_type, fields.rank, fields.shape)
    say(error, "; ")


cdef int refuse_type(const Signature *signature, int input, const InputFields *fields, ErrorText *error) noexcept nogil:
    say_expected(error, signature, input, fields)
    if data_type_of(&fields.data_type) == TYPE_NONE:
        say(error, "the protocol has no such datatype, its names are in capitals: send ")
    else:
        say(error, "cast the data to ")
    say(error, data_type_name(signature.inputs[input].data_type))
    return STATUS_INVALID_ARGUMENT


cdef int refuse_shape(const Signature *signature, int input, const InputFields *fields, const char *advice,
                      ErrorText *error) noexcept nogil:
    say_expected(error, signature, input, fields)
    say(error, advice)
    return STATUS_INVALID_ARGUMENT


cdef int refuse_rows(const Signature *signature, int input, const InputFields *fields, int64_t rows,
                     ErrorText *error) noexcept nogil:
    say_expected(error, signature, input, fields)
    if fields.shape[0] < 1:
        say(error, "send at least 1 row in dimension 0")
    elif fields.shape[0] > signature.max_rows:
        say(error, "a request may carry at most ")
        say_int(error, signature.max_rows)
        say(error, " rows: split it, or raise --max-batch-size")
    else:
        say(error, "the inputs before it have ")
        say_int(error, rows)
        say(error, " rows: send the same number of rows in every input")
    return STATUS_INVALID_ARGUMENT


cdef int refuse_size(const Signature *signature, int input, const InputFields *fields, uint64_t expected_bytes,
                     uint64_t size_bytes, ErrorText *error) noexcept nogil:
    say_input(error, signature, input)
    say(error, "expected ")
    say_int(error, <int64_t> expected_bytes)
    say(error, " bytes of raw data for ")
    say_tensor(error, signature.inputs[input].data_type, fields.rank, fields.shape)
    say(error, ", got ")
    say_int(error, <int64_t> size_bytes)
    say(error, "; send every element, little-endian and without padding")
    return STATUS_INVALID_ARGUMENT


cdef int refuse_untyped(const Signature *signature, int input, const InputFields *fields,
                        ErrorText *error) noexcept nogil:
    """No data where there should be some, or typed data of a type that travels raw only."""
    say_input(error, signature, input)
    if contents_field(signature.inputs[input].data_type) == 0:
        say(error, data_type_name(signature.inputs[input].data_type))
        say(error, " has no field in `contents`; send it in raw_input_contents")
        return STATUS_INVALID_ARGUMENT
    say(error, "no data came for ")
    say_tensor(error, signature.inputs[input].data_type, fields.rank, fields.shape)
    say(error, "; send it in raw_input_contents or in ")
    say(error, contents_field_name(signature.inputs[input].data_type))
    return STATUS_INVALID_ARGUMENT


cdef inline uint64_t mixed(uint64_t hash, uint64_t value) noexcept nogil:
    hash = (hash ^ value) * 0x9E3779B97F4A7C15ULL
    return hash ^ (hash >> 32)


cdef inline int bind_shape(const InputFields *fields, const Signature *signature, int input, TensorView *view,
                           Binding *binding, int64_t *elements, ErrorText *error) noexcept nogil:
    """Holds the shape against the spec; *elements is its product, with `size_bytes` of the view what those take."""
    cdef const TensorSpec *spec = &signature.inputs[input]
    cdef uint64_t width = element_bytes(spec.data_type)
    cdef uint64_t hash = <uint64_t> input + 1
    cdef int64_t size, wanted, size_bytes
    cdef int64_t product = 1
    cdef bint empty = False
    cdef bint is_open = spec.optional or spec.rank < 0
    cdef int d
    if fields.rank != spec.rank and (spec.rank >= 0 or fields.rank > MAX_RANK):
        return refuse_shape(signature, input, fields, "reshape the data, -1 stands for any size", error)
    if signature.batched:
        if fields.rank == 0:
            return refuse_shape(signature, input, fields, "dimension 0 is the row", error)
        if fields.shape[0] < 1 or fields.shape[0] > signature.max_rows or (
                binding.rows and fields.shape[0] != binding.rows):
            return refuse_rows(signature, input, fields, binding.rows, error)
        binding.rows = fields.shape[0]
    for d in range(fields.rank):
        size = fields.shape[d]
        view.shape[d] = size
        wanted = spec.shape[d] if spec.rank >= 0 else -1
        if d > 0 or not signature.batched:
            if size < 0 or (wanted >= 0 and size != wanted):
                return refuse_shape(signature, input, fields, "reshape the data, -1 stands for any size", error)
            if wanted < 0:
                is_open = True
                hash = mixed(hash, <uint64_t> size)
        if size == 0:
            empty = True
        elif __builtin_mul_overflow(product, size, &product):
            return refuse_shape(signature, input, fields, "the shape overflows, no tensor is that large", error)
    if __builtin_mul_overflow(product, <int64_t> width if width else 4, &size_bytes):
        return refuse_shape(signature, input, fields, "the shape overflows, no tensor is that large", error)
    if is_open:
        binding.shape_hash += mixed(hash, <uint64_t> fields.rank)
    elements[0] = 0 if empty else product
    view.size_bytes = 0 if empty else <uint64_t> size_bytes
    view.rank = <int16_t> fields.rank
    view.data_type = spec.data_type
    return STATUS_OK


cdef int bind_typed(const InputFields *fields, const Signature *signature, int input, int64_t elements,
                    TensorView *view, Binding *binding, ErrorText *error) noexcept nogil:
    cdef int status = STATUS_OK
    view.form = FORM_RAW
    view.data = offset_of(fields.delimited)
    if elements and not fields.has_contents or contents_field(view.data_type) == 0 and fields.has_contents:
        return refuse_untyped(signature, input, fields, error)
    if elements == 0:
        return decode_contents(view, signature, input, NULL, error)
    if view.data_type == TYPE_BYTES:
        status = measure_contents(fields.delimited, signature, input, <uint64_t> elements, &view.size_bytes, error)
    view.form = FORM_TYPED
    binding.typed_bytes += view.size_bytes
    if binding.typed_bytes > DEFERRED_BYTES or fields.delimited_bytes > DEFERRED_BYTES:
        binding.deferred = 1
    return status


cdef inline int bind_input(const InferMessage *message, int position, const Signature *signature, int input,
                           TensorView *view, Binding *binding, ErrorText *error) noexcept nogil:
    cdef const InputFields *fields = &message.inputs[position]
    cdef int data_type = signature.inputs[input].data_type
    cdef const char *type_name = data_type_name(data_type)
    cdef uint64_t name_bytes = strlen(type_name)
    cdef const Span *raw
    cdef int64_t elements
    cdef int status
    if span_left(&fields.data_type) != name_bytes or memcmp(fields.data_type.at, type_name, name_bytes) != 0:
        return refuse_type(signature, input, fields, error)
    status = bind_shape(fields, signature, input, view, binding, &elements, error)
    if status:
        return status
    if message.n_raw == 0:
        return bind_typed(fields, signature, input, elements, view, binding, error)
    raw = &message.raw[position]
    if data_type != TYPE_BYTES and span_left(raw) != view.size_bytes:
        return refuse_size(signature, input, fields, view.size_bytes, span_left(raw), error)
    view.form = FORM_RAW
    view.data = offset_of(raw.at)
    view.size_bytes = span_left(raw)
    if data_type == TYPE_BYTES or data_type == TYPE_BOOL:
        return check_raw(raw, signature, input, <uint64_t> elements, error)
    return STATUS_OK


cdef inline int index_of(const TensorSpec *specs, int n_specs, int guess, const Span *name) noexcept nogil:
    """Where `name` is among the specs, looked for from `guess` on and around; -1: nowhere."""
    cdef uint64_t size_bytes = span_left(name)
    cdef int _tried
    for _tried in range(n_specs):
        if guess >= n_specs:
            guess = 0
        if specs[guess].name_bytes == size_bytes and memcmp(specs[guess].name, name.at, size_bytes) == 0:
            return guess
        guess += 1
    return -1


cdef int refuse_name(const Signature *signature, const char *kind, const Span *name, bint duplicate,
                     ErrorText *error) noexcept nogil:
    say_model(error, signature)
    say(error, ": ")
    say(error, kind)
    say(error, " ")
    say_name(error, name.at, span_left(name))
    if duplicate:
        say(error, " came twice; name it once")
        return STATUS_INVALID_ARGUMENT
    say(error, " is unknown; the model's ")
    say(error, kind)
    say(error, "s are ")
    if kind[0] == c'i':
        say_specs(error, signature.inputs, signature.n_inputs, LIST_ALL, NULL)
    else:
        say_specs(error, signature.outputs, signature.n_outputs, LIST_SERVED, NULL)
    return STATUS_INVALID_ARGUMENT


cdef int refuse_missing(const Signature *signature, const TensorView *views, ErrorText *error) noexcept nogil:
    say_model(error, signature)
    say(error, ": expected input ")
    say_specs(error, signature.inputs, signature.n_inputs, LIST_MISSING, views)
    say(error, ", got none; send every input, the model's are ")
    say_specs(error, signature.inputs, signature.n_inputs, LIST_ALL, NULL)
    return STATUS_INVALID_ARGUMENT


cdef int refuse_unserved(const Signature *signature, int output, ErrorText *error) noexcept nogil:
    say(error, "output ")
    say_name(error, <const uint8_t *> signature.outputs[output].name, signature.outputs[output].name_bytes)
    say(error, " of ")
    say_model(error, signature)
    say(error, " is a sequence or a map, not a tensor, and is not served; export the model without it "
               "(with skl2onnx: zipmap=False in its options), or request ")
    say_specs(error, signature.outputs, signature.n_outputs, LIST_SERVED, NULL)
    return STATUS_INVALID_ARGUMENT


cdef inline int bind_outputs(const InferMessage *message, const Signature *signature, Binding *binding,
                             ErrorText *error) noexcept nogil:
    cdef int n_outputs = signature.n_outputs if signature.n_outputs < MAX_OUTPUTS else MAX_OUTPUTS
    cdef int output = 0
    cdef int i
    if message.n_outputs == 0:
        for i in range(n_outputs):
            if signature.outputs[i].served:
                mask_add(&binding.outputs, i)
        return STATUS_OK
    for i in range(message.n_outputs):
        output = index_of(signature.outputs, n_outputs, output, &message.outputs[i])
        if output < 0:
            return refuse_name(signature, "output", &message.outputs[i], False, error)
        if not signature.outputs[output].served:
            return refuse_unserved(signature, output, error)
        if mask_has(&binding.outputs, output):
            return refuse_name(signature, "output", &message.outputs[i], True, error)
        mask_add(&binding.outputs, output)
        output += 1
    return STATUS_OK


cdef int bind_inputs(const InferMessage *message, const Signature *signature, TensorView *views, Binding *binding,
                     ErrorText *error) noexcept nogil:
    cdef int input = 0
    cdef int i, status
    clear_error(error)
    binding.rows = 0 if signature.batched else 1
    binding.outputs.bits[0] = binding.outputs.bits[1] = binding.outputs.bits[2] = binding.outputs.bits[3] = 0
    binding.shape_hash = binding.typed_bytes = 0
    binding.deferred = 0
    for i in range(signature.n_inputs):
        views[i].data_type = TYPE_NONE
    for i in range(message.n_inputs):
        input = index_of(signature.inputs, signature.n_inputs, input, &message.inputs[i].name)
        if input < 0:
            return refuse_name(signature, "input", &message.inputs[i].name, False, error)
        if views[input].data_type != TYPE_NONE:
            return refuse_name(signature, "input", &message.inputs[i].name, True, error)
        status = bind_input(message, i, signature, input, &views[input], binding, error)
        if status:
            return status
        input += 1
    if message.n_inputs < signature.n_inputs:
        for i in range(signature.n_inputs):
            if views[i].data_type == TYPE_NONE and not signature.inputs[i].optional:
                return refuse_missing(signature, views, error)
    if binding.rows == 0 and signature.n_inputs:
        return refuse_missing(signature, views, error)
    return bind_outputs(message, signature, binding, error)
