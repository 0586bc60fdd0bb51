"""A decoded request held against a model's signature: every rule of WIRE 4.2 that needs the model.

nogil, any thread, owns nothing.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t

from infer._core.tensor_request cimport InferMessage
from infer._core.tensor_text cimport ErrorText
from infer._core.tensor_view cimport OutputMask, Signature, TensorView

cdef enum:
    DEFERRED_BYTES = 262144      # typed contents above this are decoded on an executor

# What binding finds beside the views.
cdef struct Binding:
    int64_t rows                 # 1 for a model that is not batched
    OutputMask outputs
    uint64_t shape_hash          # of every input's open dimensions past the row; equal shapes, equal hash
    uint64_t typed_bytes         # room that the FORM_TYPED views decode to; 0: every view is raw
    int32_t deferred             # 1: so much is typed that an executor decodes it, not the loop

# Holds the message against the signature and fills one view per model input, in the model's order (data_type TYPE_NONE:
# an optional input left out). Raw views point into the message. Typed contents become FORM_TYPED views whose `data` is
# the delimited InferInputTensor and whose size_bytes is the *decoded* size (BYTES: the length-prefixed size);
# `decode_contents` decodes them into the caller's memory. A typed tensor without elements is a raw view of size 0.
cdef int bind_inputs(const InferMessage *message, const Signature *signature, TensorView *views, Binding *binding,
                     ErrorText *error) noexcept nogil
