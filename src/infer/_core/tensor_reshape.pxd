"""Between the shape of a tensor in requests and replies and the one that the model has (`reshape` of Triton's
configuration): the same elements in the same order, so only the shape of a view changes.
"""

from infer._core.tensor_view cimport TensorSpec, TensorView

# The view of a request's rows as the model takes it, and of a run's output as replies carry it. False, and the view is
# as it was: its shape is not one that the spec knows. A spec without `reshaped` leaves every view alone.
cdef bint view_to_model(const TensorSpec *spec, TensorView *view) noexcept nogil
cdef bint view_from_model(const TensorSpec *spec, TensorView *view) noexcept nogil
