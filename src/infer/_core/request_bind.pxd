"""What a decoded request is to its model: tensors in the model's order, its rows, what it may share a batch with.

Loop thread. Each answers a gRPC status, with its text in `error`.
"""

from infer._core.model_version cimport VersionEntry
from infer._core.request cimport Request
from infer._core.tensor cimport Binding, ErrorText, InferMessage
from infer._core.tensor_view cimport Signature

# Views, rows, wanted outputs and batch key, by the model's signature.
cdef int bind_request(const InferMessage *message, Request *request, VersionEntry entry, Binding *binding,
                      ErrorText *error) noexcept
# Small typed contents become raw ones, in a Block of the Request's own.
cdef int decode_typed(Request *request, const Signature *signature, ErrorText *error) noexcept nogil
