"""Execution providers: CPU always, others where the loaded library has them and the machine can run them."""

from infer._core.capi.onnxruntime cimport OrtSessionOptions
from infer._core.ort_runtime cimport Runtime

# Appends what `wanted` names ("auto", or a list of (name, {option: value})); returns what will be used, in order, as
# (full name, options). ModelLoadError where the library or the machine lacks one; where "auto" has to do without, a
# line in `messages`.
cdef list append_providers(OrtSessionOptions *options, Runtime runtime, wanted, list messages)
