"""The message of a reply as segments: what is small is copied into one Block, what is large is sent from where it lies.

Loop thread only, since it counts references. Owns nothing: every segment carries a reference of its own.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from infer._core.batch cimport Batch
from infer._core.block cimport Block
from infer._core.model_version cimport VersionEntry
from infer._core.request cimport Request, Segment
from infer._core.span cimport Span
from infer._core.tensor_encode cimport OutputSlice
from infer._core.tensor_view cimport OutputMask, Signature

cdef enum:
    COPIED_REPLY_BYTES = 4096    # an output no larger is copied beside the head; a larger one is sent from its Block
    MAX_SEGMENTS = 514           # two per output and the head

# The request's id, as far as it was read.
cdef Span id_of(const Request *request) noexcept nogil
# Where the wanted outputs of one item of a batch lie; `slices` has an entry for each output of the model.
cdef void item_slices(const Batch *batch, int index, const OutputMask *mask, OutputSlice *slices) noexcept nogil
# Fills `segments`, room for MAX_SEGMENTS, with prefix and message; how many, or 0: no memory, or over 4 GiB. `owners`
# are the Blocks that the slices lie in; `fallback`, and `arm` (an Arm, borrowed, or NULL), are what the reply is marked
# with.
cdef int encode_reply(Segment *segments, VersionEntry entry, const OutputMask *mask, const OutputSlice *slices,
                      Block **owners, int64_t rows, const Span *id, int fallback=*, void *arm=*) noexcept

# What of a message lies behind the request's id, which is all that two replies of one version to the same inputs differ
# in: so it can be kept for the next.
cdef uint64_t tail_bytes(const Signature *signature, const OutputMask *mask, const OutputSlice *slices,
                         int64_t rows) noexcept nogil
cdef void encode_tail(uint8_t *to, const Signature *signature, const OutputMask *mask, const OutputSlice *slices,
                      int64_t rows) noexcept nogil
# As encode_reply, of such a tail, which lies in `owner`.
cdef int encode_kept(Segment *segments, VersionEntry entry, const OutputMask *mask, Block *owner, const uint8_t *tail,
                     uint64_t size_bytes, const Span *id, int fallback=*, void *arm=*) noexcept
