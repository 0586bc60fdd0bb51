"""Taps of versions. See tap.pxd."""


cdef class Tap:
    """Told of every reply that a version gives itself, whatever it was asked for by."""

    cdef void offer(self, Request *request, const Segment *segments, int n_segments) noexcept:
        pass


cdef void add_tap(VersionEntry entry, Tap tap):
    entry.taps = (*entry.taps, tap)
    entry.c.tapped = 1


cdef void remove_tap(VersionEntry entry, Tap tap):
    entry.taps = tuple([each for each in entry.taps if each is not tap])
    entry.c.tapped = len(entry.taps) > 0


cdef void tell_taps(VersionEntry entry, Request *request, const Segment *segments, int n_segments) noexcept:
    for tap in entry.taps:
        (<Tap> tap).offer(request, segments, n_segments)
