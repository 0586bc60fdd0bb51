"""What a loaded model says about itself: its inputs and outputs, and its metadata."""

from infer._core.capi.onnxruntime cimport OrtRunnable

cdef list declared_inputs(OrtRunnable *session)        # TensorInfo of each; ModelLoadError for one that cannot be fed
cdef list declared_outputs(OrtRunnable *session)       # TensorInfo of each; what is not a tensor is not `served`
cdef dict model_metadata(OrtRunnable *session)         # producer, graph, domain, description, version, custom
