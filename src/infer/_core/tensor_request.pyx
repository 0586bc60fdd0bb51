"""Reading keeps spans, never copies: an InferMessage is valid as long as the message's bytes are.

The likely request has one-byte tags and ASCII names. Rules are judged only once all has been read, since a field may
come again and the last counts, and since malformed bytes weigh more than a rule that is broken before them.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memcmp, memset

from infer._core.debug cimport try_realloc
from infer._core.span cimport Span, span_left, span_over
from infer._core.status cimport STATUS_INTERNAL, STATUS_INVALID_ARGUMENT, STATUS_OK, STATUS_RESOURCE_EXHAUSTED
from infer._core.status cimport STATUS_UNIMPLEMENTED
from infer._core.tensor_contents cimport INPUT_CONTENTS
from infer._core.tensor_text cimport ErrorText, clear_error, say, say_int, say_name
from infer._core.tensor_view cimport MAX_RANK
from infer._core.utf8 cimport is_utf8
from infer._core.wire cimport WIRE_DEPTH, WIRE_END, WIRE_FIELD, Field, try_field, try_varint

# Tags: number << 3 | wire type.
cdef enum RequestTag:
    REQUEST_MODEL_NAME = 1 << 3 | 2
    REQUEST_MODEL_VERSION = 2 << 3 | 2
    REQUEST_ID = 3 << 3 | 2
    REQUEST_PARAMETERS = 4 << 3 | 2
    REQUEST_INPUTS = 5 << 3 | 2
    REQUEST_OUTPUTS = 6 << 3 | 2
    REQUEST_RAW = 7 << 3 | 2

cdef enum InputTag:
    INPUT_NAME = 1 << 3 | 2
    INPUT_DATA_TYPE = 2 << 3 | 2
    INPUT_SHAPE = 3 << 3 | 0
    INPUT_SHAPE_PACKED = 3 << 3 | 2
    INPUT_PARAMETERS = 4 << 3 | 2

cdef enum OutputTag:
    OUTPUT_NAME = 1 << 3 | 2
    OUTPUT_PARAMETERS = 2 << 3 | 2

cdef enum ParameterTag:
    ENTRY_KEY = 1 << 3 | 2
    ENTRY_VALUE = 2 << 3 | 2
    CHOICE_BOOL = 1 << 3 | 0
    CHOICE_INT64 = 2 << 3 | 0
    CHOICE_STRING = 3 << 3 | 2
    CHOICE_DOUBLE = 4 << 3 | 1
    CHOICE_UINT64 = 5 << 3 | 0
    CHOICE_UNSET = 0
    CHOICE_ABSENT = -1           # the parameter itself did not come

cdef enum Feature:
    FEATURE_NONE
    FEATURE_SHARED_MEMORY
    FEATURE_CLASSIFICATION

cdef struct Parameter:
    Span key
    Span text
    uint64_t number
    int32_t choice

# What is noted while a message is read, to be judged once all of it has been.
cdef struct Reading:
    const char *not_utf8         # the string field that is not; NULL: none
    const char *too_many         # what there is more of than MAX_TENSORS; NULL: nothing
    Parameter priority
    Parameter timeout
    Parameter cache
    Parameter max_age
    Span region                  # of the first tensor that asks for what is not supported, with the tensor's name
    Span asking
    bint asking_output
    int unsupported              # a Feature


cdef void message_init(InferMessage *message) noexcept nogil:
    memset(message, 0, sizeof(InferMessage))


cdef void message_free(InferMessage *message) noexcept nogil:
    free(message.inputs)
    free(message.outputs)
    free(message.raw)
    memset(message, 0, sizeof(InferMessage))


cdef inline bint equals(const Span *text, const void *other, uint64_t size_bytes) noexcept nogil:
    return span_left(text) == size_bytes and memcmp(text.at, other, size_bytes) == 0


cdef inline int read_string(const Span *body, Span *into, const char *name, Reading *reading) noexcept nogil:
    if not is_utf8(body):
        reading.not_utf8 = name
        return STATUS_INTERNAL
    into[0] = body[0]
    return STATUS_OK


cdef int ensure_room(void **items, int32_t n_items, int32_t *capacity, uint64_t item_bytes, const char *what,
                     Reading *reading) noexcept nogil:
    """Room for one item more; arrays keep their room from message to message."""
    cdef int32_t wanted = 8 if capacity[0] == 0 else 2 * capacity[0]
    cdef void *grown
    if n_items < capacity[0]:
        return STATUS_OK
    if n_items == MAX_TENSORS:
        reading.too_many = what
        return STATUS_INVALID_ARGUMENT
    grown = try_realloc(items[0], wanted * item_bytes)
    if grown == NULL:
        return STATUS_RESOURCE_EXHAUSTED
    items[0] = grown
    capacity[0] = wanted
    return STATUS_OK


cdef int read_value(Span body, int depth, Parameter *parameter, Reading *reading) noexcept nogil:
    """An InferParameter: the last member of the oneof stands."""
    cdef Field field
    cdef int step = try_field(&body, &field, depth)
    while step == WIRE_FIELD:
        if field.tag == CHOICE_STRING:
            if read_string(&field.body, &parameter.text, "a parameter's string_param", reading):
                return STATUS_INTERNAL
            parameter.choice = CHOICE_STRING
        elif (field.tag == CHOICE_BOOL or field.tag == CHOICE_INT64 or field.tag == CHOICE_DOUBLE
              or field.tag == CHOICE_UINT64):
            parameter.choice = <int32_t> field.tag
            parameter.number = field.value
        step = try_field(&body, &field, depth)
    return STATUS_OK if step == WIRE_END else STATUS_INTERNAL


cdef int read_parameter(Span entry, int depth, Parameter *parameter, Reading *reading) noexcept nogil:
    """One entry of a map. As in protobuf, an entry with a field that a map entry does not have is no entry at all."""
    cdef Field field
    cdef bint foreign = False
    cdef int step
    memset(parameter, 0, sizeof(Parameter))
    step = try_field(&entry, &field, depth)
    while step == WIRE_FIELD:
        if field.tag == ENTRY_KEY:
            if read_string(&field.body, &parameter.key, "a parameter's key", reading):
                return STATUS_INTERNAL
        elif field.tag == ENTRY_VALUE:
            if read_value(field.body, depth - 1, parameter, reading):
                return STATUS_INTERNAL
        else:
            foreign = True
        step = try_field(&entry, &field, depth)
    if foreign:
        parameter.key.end = parameter.key.at
    return STATUS_OK if step == WIRE_END else STATUS_INTERNAL


cdef int read_request_parameter(Span entry, InferMessage *message, Reading *reading) noexcept nogil:
    cdef Parameter parameter
    if read_parameter(entry, WIRE_DEPTH - 1, &parameter, reading):
        return STATUS_INTERNAL
    if equals(&parameter.key, "priority", 8):
        reading.priority = parameter
    elif equals(&parameter.key, "timeout", 7):
        reading.timeout = parameter
    elif equals(&parameter.key, "infer_cache", 11):
        reading.cache = parameter
    elif equals(&parameter.key, "infer_cache_max_age_ms", 22):
        reading.max_age = parameter
    elif (equals(&parameter.key, "sequence_id", 11) or equals(&parameter.key, "sequence_start", 14)
          or equals(&parameter.key, "sequence_end", 12)):
        message.sequence = 1
    elif equals(&parameter.key, "infer_forwarded", 15) and parameter.choice == CHOICE_STRING:
        message.forwarded = parameter.text
    elif equals(&parameter.key, "triton_enable_empty_final_response", 34):
        message.final_asked = parameter.choice == CHOICE_BOOL and parameter.number != 0
    return STATUS_OK


cdef int read_tensor_parameter(Span entry, bint of_output, Span *region, int *feature, Reading *reading) noexcept nogil:
    cdef Parameter parameter
    if read_parameter(entry, WIRE_DEPTH - 2, &parameter, reading):
        return STATUS_INTERNAL
    if equals(&parameter.key, "shared_memory_region", 20):
        feature[0] = FEATURE_SHARED_MEMORY
        region[0] = parameter.text
    elif of_output and feature[0] == FEATURE_NONE and equals(&parameter.key, "classification", 14):
        feature[0] = FEATURE_CLASSIFICATION
    return STATUS_OK


cdef void note_unsupported(Reading *reading, int feature, const Span *name, const Span *region,
                           bint of_output) noexcept nogil:
    if reading.unsupported == FEATURE_NONE:
        reading.unsupported = feature
        reading.asking = name[0]
        reading.asking_output = of_output
        reading.region = region[0]


cdef inline void add_dimension(InputFields *fields, uint64_t value) noexcept nogil:
    if fields.rank < MAX_RANK:
        fields.shape[fields.rank] = <int64_t> value
    fields.rank += 1


cdef int read_input(const uint8_t *delimited, Span body, InferMessage *message, Reading *reading) noexcept nogil:
    cdef int feature = FEATURE_NONE
    cdef Field field
    cdef Span region
    cdef InputFields *fields
    cdef uint64_t dimension
    cdef int step
    cdef int status = ensure_room(<void **> &message.inputs, message.n_inputs, &message.input_capacity,
                                  sizeof(InputFields), "inputs", reading)
    if status:
        return status
    fields = &message.inputs[message.n_inputs]
    message.n_inputs += 1
    fields.name = fields.data_type = region = span_over(NULL, 0)
    fields.delimited = delimited
    fields.delimited_bytes = <uint64_t> (body.end - delimited)
    fields.rank = fields.has_contents = 0
    step = try_field(&body, &field, WIRE_DEPTH - 1)
    while step == WIRE_FIELD:
        if field.tag == INPUT_NAME:
            status = read_string(&field.body, &fields.name, "an input's name", reading)
        elif field.tag == INPUT_DATA_TYPE:
            status = read_string(&field.body, &fields.data_type, "an input's datatype", reading)
        elif field.tag == INPUT_SHAPE_PACKED:
            while field.body.at < field.body.end:
                if not try_varint(&field.body, &dimension):
                    return STATUS_INTERNAL
                add_dimension(fields, dimension)
        elif field.tag == INPUT_SHAPE:
            add_dimension(fields, field.value)
        elif field.tag == INPUT_CONTENTS:
            fields.has_contents = 1
        elif field.tag == INPUT_PARAMETERS:
            status = read_tensor_parameter(field.body, False, &region, &feature, reading)
        if status:
            return status
        step = try_field(&body, &field, WIRE_DEPTH - 1)
    if feature:
        note_unsupported(reading, feature, &fields.name, &region, False)
    return STATUS_OK if step == WIRE_END else STATUS_INTERNAL


cdef int read_output(Span body, InferMessage *message, Reading *reading) noexcept nogil:
    cdef int feature = FEATURE_NONE
    cdef Field field
    cdef Span region
    cdef Span *name
    cdef int step
    cdef int status = ensure_room(<void **> &message.outputs, message.n_outputs, &message.output_capacity, sizeof(Span),
                                  "outputs", reading)
    if status:
        return status
    name = &message.outputs[message.n_outputs]
    message.n_outputs += 1
    name[0] = region = span_over(NULL, 0)
    step = try_field(&body, &field, WIRE_DEPTH - 1)
    while step == WIRE_FIELD:
        if field.tag == OUTPUT_NAME:
            status = read_string(&field.body, name, "an output's name", reading)
        elif field.tag == OUTPUT_PARAMETERS:
            status = read_tensor_parameter(field.body, True, &region, &feature, reading)
        if status:
            return status
        step = try_field(&body, &field, WIRE_DEPTH - 1)
    if feature:
        note_unsupported(reading, feature, name, &region, True)
    return STATUS_OK if step == WIRE_END else STATUS_INTERNAL


cdef inline const uint8_t *after_tag(const uint8_t *at) noexcept nogil:
    while at[0] & 0x80:
        at += 1
    return at + 1


cdef int read_request(Span body, InferMessage *message, Reading *reading) noexcept nogil:
    cdef Field field
    cdef const uint8_t *start
    cdef int step
    cdef int status = STATUS_OK
    while True:
        start = body.at
        step = try_field(&body, &field, WIRE_DEPTH)
        if step != WIRE_FIELD:
            return STATUS_OK if step == WIRE_END else STATUS_INTERNAL
        if field.tag == REQUEST_RAW:
            status = ensure_room(<void **> &message.raw, message.n_raw, &message.raw_capacity, sizeof(Span),
                                 "raw_input_contents", reading)
            if not status:
                message.raw[message.n_raw] = field.body
                message.n_raw += 1
        elif field.tag == REQUEST_INPUTS:
            status = read_input(after_tag(start), field.body, message, reading)
        elif field.tag == REQUEST_MODEL_NAME:
            status = read_string(&field.body, &message.model_name, "model_name", reading)
        elif field.tag == REQUEST_MODEL_VERSION:
            status = read_string(&field.body, &message.model_version, "model_version", reading)
        elif field.tag == REQUEST_ID:
            status = read_string(&field.body, &message.id, "id", reading)
        elif field.tag == REQUEST_PARAMETERS:
            status = read_request_parameter(field.body, message, reading)
        elif field.tag == REQUEST_OUTPUTS:
            status = read_output(field.body, message, reading)
        if status:
            return status


cdef void say_tensor_name(ErrorText *error, const InferMessage *message, const char *kind,
                          const Span *name) noexcept nogil:
    """`input 'x' of model 'm': ` from the message alone."""
    say(error, kind)
    say_name(error, name.at, span_left(name))
    say(error, " of model ")
    say_name(error, message.model_name.at, span_left(&message.model_name))
    say(error, ": ")


cdef int refuse_unsupported(const InferMessage *message, const Reading *reading, ErrorText *error) noexcept nogil:
    cdef const char *kind = "input "
    cdef const char *instead = "send the data in raw_input_contents"
    if reading.asking_output:
        kind = "output "
        instead = "take the data from raw_output_contents"
    say_tensor_name(error, message, kind, &reading.asking)
    if reading.unsupported == FEATURE_CLASSIFICATION:
        say(error, "`classification` is not supported; compute it client-side from the raw scores")
        return STATUS_UNIMPLEMENTED
    say(error, "shared memory region ")
    say_name(error, reading.region.at, span_left(&reading.region))
    say(error, " cannot be used, shared memory is not supported; ")
    say(error, instead)
    return STATUS_UNIMPLEMENTED


cdef int refuse_parameter(const char *text, ErrorText *error) noexcept nogil:
    say(error, text)
    return STATUS_INVALID_ARGUMENT


cdef int judge_parameters(InferMessage *message, const Reading *reading, ErrorText *error) noexcept nogil:
    cdef uint64_t number = reading.priority.number
    if reading.priority.choice != CHOICE_ABSENT:
        if reading.priority.choice == CHOICE_UINT64:
            message.priority = INT64_MAX if number > <uint64_t> INT64_MAX else <int64_t> number
        elif reading.priority.choice == CHOICE_INT64 and <int64_t> number >= 0:
            message.priority = <int64_t> number
        else:
            return refuse_parameter("parameter `priority`: expected uint64_param, or int64_param of 0 or more", error)
    if reading.timeout.choice != CHOICE_ABSENT:
        message.timeout_us = <int64_t> reading.timeout.number
        if reading.timeout.choice != CHOICE_INT64 or message.timeout_us < 0:
            message.timeout_us = 0
            return refuse_parameter("parameter `timeout`: expected int64_param, microseconds of 0 or more", error)
    return judge_cache_use(message, reading, error)


cdef int judge_cache_use(InferMessage *message, const Reading *reading, ErrorText *error) noexcept nogil:
    cdef int64_t age_ms = <int64_t> reading.max_age.number
    if reading.cache.choice != CHOICE_ABSENT:
        if reading.cache.choice == CHOICE_STRING and equals(&reading.cache.text, "no-cache", 8):
            message.cache_use = CACHE_NO_CACHE
        elif reading.cache.choice == CHOICE_STRING and equals(&reading.cache.text, "no-store", 8):
            message.cache_use = CACHE_NO_STORE
        else:
            return refuse_parameter("parameter `infer_cache`: expected string_param, \"no-cache\" or \"no-store\"",
                                    error)
    if reading.max_age.choice != CHOICE_ABSENT:
        if reading.max_age.choice != CHOICE_INT64 or age_ms < 0:
            return refuse_parameter("parameter `infer_cache_max_age_ms`: expected int64_param, milliseconds of 0 or "
                                    "more", error)
        message.max_age_ns = INT64_MAX if age_ms > INT64_MAX // 1000000 else age_ms * 1000000
    return STATUS_OK


cdef int judge_contents(const InferMessage *message, ErrorText *error) noexcept nogil:
    """Raw or typed for all inputs alike, and a raw entry for each."""
    cdef int i
    for i in range(message.n_inputs):
        if message.inputs[i].has_contents:
            say_tensor_name(error, message, "input ", &message.inputs[i].name)
            say(error, "`contents` came beside raw_input_contents; send every input raw or every input typed")
            return STATUS_INVALID_ARGUMENT
    if message.n_raw != message.n_inputs:
        say(error, "model ")
        say_name(error, message.model_name.at, span_left(&message.model_name))
        say(error, ": expected ")
        say_int(error, message.n_inputs)
        say(error, " entries in raw_input_contents, one for each input, got ")
        say_int(error, message.n_raw)
        say(error, "; send one for each input, in their order")
        return STATUS_INVALID_ARGUMENT
    return STATUS_OK


cdef int refuse_unread(int status, const Reading *reading, ErrorText *error) noexcept nogil:
    if status == STATUS_INTERNAL:
        say(error, "request is not a valid inference.ModelInferRequest: ")
        if reading.not_utf8 == NULL:
            say(error, "malformed protobuf")
        else:
            say(error, reading.not_utf8)
            say(error, " is not UTF-8")
    elif status == STATUS_INVALID_ARGUMENT:
        say(error, "request has too many ")
        say(error, reading.too_many)
        say(error, "; send at most ")
        say_int(error, MAX_TENSORS)
    else:
        say(error, "out of memory while reading the request")
    return status


cdef int decode_request(const uint8_t *data, uint64_t size_bytes, InferMessage *message,
                        ErrorText *error) noexcept nogil:
    cdef Reading reading
    cdef int status
    clear_error(error)
    reading.not_utf8 = reading.too_many = NULL
    reading.priority.choice = reading.timeout.choice = CHOICE_ABSENT
    reading.cache.choice = reading.max_age.choice = CHOICE_ABSENT
    reading.unsupported = FEATURE_NONE
    message.model_name = message.model_version = message.id = message.forwarded = span_over(NULL, 0)
    message.whole = span_over(data, size_bytes)
    message.n_inputs = message.n_outputs = message.n_raw = message.sequence = message.final_asked = 0
    message.priority = message.timeout_us = 0
    message.cache_use = CACHE_USE
    message.max_age_ns = -1
    status = read_request(span_over(data, size_bytes), message, &reading)
    if status:
        return refuse_unread(status, &reading, error)
    if span_left(&message.id) > MAX_ID_BYTES:
        say(error, "request id: expected at most ")
        say_int(error, MAX_ID_BYTES)
        say(error, " bytes, got ")
        say_int(error, <int64_t> span_left(&message.id))
        return STATUS_INVALID_ARGUMENT
    if reading.unsupported:
        return refuse_unsupported(message, &reading, error)
    if message.n_raw:
        status = judge_contents(message, error)
    return status or judge_parameters(message, &reading, error)


cdef bint find_parameter(const uint8_t *data, uint64_t size_bytes, const char *name, uint64_t name_bytes, Span *value,
                         char *digits) noexcept nogil:
    cdef Span body = span_over(data, size_bytes)
    cdef Field field
    cdef Parameter parameter
    cdef Parameter found
    cdef Reading reading
    memset(&found, 0, sizeof(Parameter))
    found.choice = CHOICE_ABSENT
    while try_field(&body, &field, WIRE_DEPTH) == WIRE_FIELD:
        # As in a map, the last one stands.
        if (field.tag == REQUEST_PARAMETERS
                and read_parameter(field.body, WIRE_DEPTH - 1, &parameter, &reading) == STATUS_OK
                and equals(&parameter.key, name, name_bytes)):
            found = parameter
    if found.choice == CHOICE_STRING:
        value[0] = found.text
        return span_left(value) > 0
    if found.choice == CHOICE_INT64:
        value[0] = span_over(<const uint8_t *> digits, <uint64_t> snprintf(
            digits, DIGITS_BYTES, "%lld", <long long> found.number))
        return True
    if found.choice == CHOICE_UINT64:
        value[0] = span_over(<const uint8_t *> digits, <uint64_t> snprintf(
            digits, DIGITS_BYTES, "%llu", <unsigned long long> found.number))
        return True
    return False
