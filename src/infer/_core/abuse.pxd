"""What a peer may do on one connection before it is cut: counters in a plain struct, without a clock and without I/O.

A Conduct is part of its session, zeroed at first; AbuseLimits are shared. `now` is the core's time (ns) and never runs
backwards. What says True found the peer over its bound: the caller ends the connection. Where a rule has a limit, it is
a field of AbuseLimits; what a good client does in any number is either not counted or forgotten soon enough.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t

cdef enum:
    RECENT_STREAMS = 1000            # that the share of early resets is taken of
    RECENT_WORDS = 16
    EARLY_NS = 1000000000            # a reset within this of the stream's opening is early
    EARLY_SPAN_NS = 10000000000      # after this, early resets are counted anew
    STREAM_ERROR_NS = 100000000      # one more is allowed each
    SETTINGS_NS = 1000000000
    PING_NS = 10000000000
    PING_BURST = 10
    OVERSIZE_NS = 1000000000
    WINDOW_UPDATES_FREE = 5          # Envoy's bounds: 5 + 2 x (streams + limit x DATA frames sent),
    WINDOW_UPDATES_FACTOR = 2        # limit x (1 + streams) for frames that ask for nothing

cdef struct AbuseLimits:
    int32_t early_resets             # of the last RECENT_STREAMS streams
    int32_t stream_errors            # at once
    int32_t settings_frames          # at once
    int32_t ping_strikes             # PINGs in excess, without a reply of ours between them
    int32_t empty_frames             # in a row
    int32_t oversize_headers         # header blocks over their limit, and further parts of it, at once
    int32_t window_updates           # for each DATA frame that we sent
    int32_t idle_frames              # PRIORITY and unknown frames, for each stream
    int32_t queued_frames            # of ours, that the peer has not taken

cdef struct Conduct:
    int64_t streams                  # opened
    int64_t data_frames              # sent
    int64_t window_updates
    int64_t idle_frames
    int64_t stream_errors_full_ns    # when each bucket is full again
    int64_t settings_full_ns
    int64_t pings_full_ns
    int64_t oversize_full_ns
    int64_t early_since_ns
    uint64_t recent[16]              # RECENT_STREAMS bits: which of the last streams were reset early
    int32_t recent_at
    int32_t early                    # bits that are set
    int32_t ping_strikes
    int32_t empty_frames
    int32_t awaited_acks             # PINGs of ours that are not answered yet

cdef inline bint take_token(int64_t *full_ns, int64_t now, int64_t interval_ns, int64_t burst) noexcept nogil:
    """One of `burst` tokens, of which one comes back every `interval_ns`; False: none is left."""
    cdef int64_t full = full_ns[0] if full_ns[0] > now else now
    if full - now > (burst - 1) * interval_ns:
        return False
    full_ns[0] = full + interval_ns
    return True

cdef inline bint stream_closed(Conduct *conduct, const AbuseLimits *limits, bint early, int64_t now) noexcept nogil:
    """Rapid reset. `early`: the peer reset the stream within EARLY_NS, before a request was whole; never one of a
    streaming method, since a good client may open and cancel any number of such calls, and says nothing on them first.

    Whole requests are not counted, so a client may cancel, or time out, as many calls as it makes: each cost it what a
    call costs. Too many are more than the limit among the last RECENT_STREAMS, within EARLY_SPAN_NS.
    """
    cdef uint64_t *word
    cdef uint64_t bit
    cdef int i
    if early and now - conduct.early_since_ns > <int64_t> EARLY_SPAN_NS:
        for i in range(RECENT_WORDS):
            conduct.recent[i] = 0
        conduct.early = 0
        conduct.early_since_ns = now
    word = &conduct.recent[conduct.recent_at >> 6]
    bit = <uint64_t> 1 << (conduct.recent_at & 63)
    if word[0] & bit:
        conduct.early -= 1
        word[0] &= ~bit
    if early:
        conduct.early += 1
        word[0] |= bit
    conduct.recent_at = conduct.recent_at + 1 if conduct.recent_at + 1 < RECENT_STREAMS else 0
    return conduct.early > limits.early_resets

cdef inline bint stream_error(Conduct *conduct, const AbuseLimits *limits, int64_t now) noexcept nogil:
    """We reset a stream for what the peer did: a malformed request, an overflowed window, a stream too many."""
    return not take_token(&conduct.stream_errors_full_ns, now, STREAM_ERROR_NS, limits.stream_errors)

cdef inline bint settings_came(Conduct *conduct, const AbuseLimits *limits, int64_t now) noexcept nogil:
    return not take_token(&conduct.settings_full_ns, now, SETTINGS_NS, limits.settings_frames)

cdef inline bint oversize_header(Conduct *conduct, const AbuseLimits *limits, int64_t now) noexcept nogil:
    """A header block went over its limit, or over a further part of it."""
    return not take_token(&conduct.oversize_full_ns, now, OVERSIZE_NS, limits.oversize_headers)

cdef inline bint ping_came(Conduct *conduct, const AbuseLimits *limits, int64_t now) noexcept nogil:
    """A PING, or an answer to none of ours."""
    if take_token(&conduct.pings_full_ns, now, PING_NS, PING_BURST):
        return False
    conduct.ping_strikes += 1
    return conduct.ping_strikes > limits.ping_strikes

cdef inline bint ping_answered(Conduct *conduct, const AbuseLimits *limits, int64_t now) noexcept nogil:
    if conduct.awaited_acks == 0:
        return ping_came(conduct, limits, now)
    conduct.awaited_acks -= 1
    return False

cdef inline void headers_sent(Conduct *conduct) noexcept nogil:
    conduct.ping_strikes = 0

cdef inline void data_sent(Conduct *conduct) noexcept nogil:
    conduct.ping_strikes = 0
    conduct.data_frames += 1

cdef inline bint empty_data_came(Conduct *conduct, const AbuseLimits *limits) noexcept nogil:
    """DATA without data and without END_STREAM. The caller clears `empty_frames` at any other DATA frame."""
    conduct.empty_frames += 1
    return conduct.empty_frames > limits.empty_frames

cdef inline bint window_update_came(Conduct *conduct, const AbuseLimits *limits) noexcept nogil:
    conduct.window_updates += 1
    return conduct.window_updates > WINDOW_UPDATES_FREE + WINDOW_UPDATES_FACTOR * (
        conduct.streams + limits.window_updates * conduct.data_frames)

cdef inline bint idle_frame_came(Conduct *conduct, const AbuseLimits *limits) noexcept nogil:
    """A frame that asks for nothing: PRIORITY, a type unknown to us, a reset of a stream that is gone."""
    conduct.idle_frames += 1
    return conduct.idle_frames > limits.idle_frames * (1 + conduct.streams)
