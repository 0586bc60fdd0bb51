"""Who is told of a version's replies as they leave: shadows and captures.

Taps stand in a VersionEntry's `taps`; whoever adds one takes it out again. Loop thread.
"""

from infer._core.model_version cimport VersionEntry
from infer._core.request cimport Request, Segment


cdef class Tap:
    # The request is about to be answered with the message in `segments`, prefix included, which is not its to change.
    # What it keeps of body and segments it takes references of; it does no more than that now.
    cdef void offer(self, Request *request, const Segment *segments, int n_segments) noexcept

cdef void add_tap(VersionEntry entry, Tap tap)
cdef void remove_tap(VersionEntry entry, Tap tap)
# Only of an entry that is `tapped`.
cdef void tell_taps(VersionEntry entry, Request *request, const Segment *segments, int n_segments) noexcept
