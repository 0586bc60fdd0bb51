"""Sizes that are free in both shapes stand for each other in their order, as Triton has it; `models.config_tensors` has
seen to it that the sizes between them multiply to the same.
"""

from libc.stdint cimport int16_t, int32_t, int64_t
from libc.string cimport memcpy

from infer._core.tensor_view cimport MAX_RANK, TensorSpec, TensorView


cdef bint reshape(TensorView *view, int32_t from_rank, const int64_t *from_shape, int32_t to_rank,
                  const int64_t *to_shape) noexcept nogil:
    cdef int64_t[MAX_RANK] sizes
    cdef int32_t at = 0
    cdef int32_t d
    if view.rank != from_rank:
        return False
    for d in range(from_rank):
        if from_shape[d] >= 0 and view.shape[d] != from_shape[d]:
            return False
    for d in range(to_rank):
        sizes[d] = to_shape[d]
        if to_shape[d] >= 0:
            continue
        while at < from_rank and from_shape[at] >= 0:
            at += 1
        if at == from_rank:
            return False
        sizes[d] = view.shape[at]
        at += 1
    memcpy(view.shape, sizes, <size_t> to_rank * sizeof(int64_t))
    view.rank = <int16_t> to_rank
    return True


cdef bint view_to_model(const TensorSpec *spec, TensorView *view) noexcept nogil:
    if spec.reshaped == NULL:
        return True
    return reshape(view, spec.rank, spec.shape, spec.reshaped.rank, spec.reshaped.shape)


cdef bint view_from_model(const TensorSpec *spec, TensorView *view) noexcept nogil:
    if spec.reshaped == NULL:
        return True
    return reshape(view, spec.reshaped.rank, spec.reshaped.shape, spec.rank, spec.shape)
