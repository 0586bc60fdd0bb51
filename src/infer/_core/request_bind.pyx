"""Binding and decoding for a Request. See request_bind.pxd."""

from libc.stdint cimport uint64_t

from infer._core.admission cimport say_no_memory
from infer._core.arena cimport offset_of
from infer._core.block cimport block_data, block_new
from infer._core.request cimport request_reserve_views
from infer._core.status cimport STATUS_OK, STATUS_RESOURCE_EXHAUSTED
from infer._core.tensor cimport bind_inputs, decode_contents
from infer._core.tensor_view cimport FORM_RAW, FORM_TYPED, TensorView

cdef enum:
    ALIGNMENT = 64


cdef inline uint64_t mix(uint64_t value) noexcept nogil:
    """splitmix64's finaliser (Steele, Lea, Flood 2014)."""
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL
    return value ^ (value >> 31)


cdef int bind_request(const InferMessage *message, Request *request, VersionEntry entry, Binding *binding,
                      ErrorText *error) noexcept:
    """Its tensors by the model's signature; a gRPC status, with its text in `error`."""
    cdef int code
    if not request_reserve_views(request, entry.c.signature.n_inputs):
        say_no_memory(error)
        return STATUS_RESOURCE_EXHAUSTED
    code = bind_inputs(message, &entry.c.signature, request.views, binding, error)
    if code != STATUS_OK:
        return code
    request.rows = binding.rows
    request.outputs = binding.outputs
    request.deferred = binding.deferred != 0
    request.key.shape = 0
    if entry.c.signature.batched:
        request.key.shape = mix(binding.shape_hash ^ mix(
            binding.outputs.bits[0] ^ binding.outputs.bits[1] ^ binding.outputs.bits[2] ^ binding.outputs.bits[3]))
    # The cache looks at what a model would get.
    if entry.c.cached != NULL and binding.typed_bytes != 0 and not request.deferred:
        code = decode_typed(request, &entry.c.signature, error)
        binding.typed_bytes = 0
    return code


cdef int decode_typed(Request *request, const Signature *signature, ErrorText *error) noexcept nogil:
    """Small typed contents become raw ones here, in a Block of the Request's own."""
    cdef uint64_t room = 0
    cdef uint64_t used = 0
    cdef TensorView *view
    cdef int i, code
    for i in range(request.n_views):
        if request.views[i].form == FORM_TYPED:
            room += (request.views[i].size_bytes + ALIGNMENT - 1) & ~(<uint64_t> ALIGNMENT - 1)
    request.decoded = block_new(room)
    if request.decoded == NULL:
        say_no_memory(error)
        return STATUS_RESOURCE_EXHAUSTED
    for i in range(request.n_views):
        view = &request.views[i]
        if view.form != FORM_TYPED:
            continue
        code = decode_contents(view, signature, i, block_data(request.decoded) + used, error)
        if code != STATUS_OK:
            return code
        view.form = FORM_RAW
        view.data = offset_of(block_data(request.decoded) + used)
        used += (view.size_bytes + ALIGNMENT - 1) & ~(<uint64_t> ALIGNMENT - 1)
    return STATUS_OK
