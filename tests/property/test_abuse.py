"""The rules for a peer's conduct against plain models: exact windows, fractions of tokens, Envoy's sums."""

from collections import deque
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core import _testing_abuse as abuse
from infer._core._testing_abuse import Peer

SECOND = 1_000_000_000
LIMITS = {"early_resets": 500, "stream_errors": 100, "settings_frames": 10, "ping_strikes": 100, "empty_frames": 16,
          "oversize_headers": 20, "window_updates": 10, "idle_frames": 100, "queued_frames": 10_000}
BUCKETS = {"stream_error": ("stream_errors", abuse.STREAM_ERROR_NS), "settings_came": ("settings_frames", SECOND),
           "oversize_header": ("oversize_headers", SECOND)}
steps_ns = st.one_of(st.just(0), st.integers(0, 50_000_000), st.integers(0, 30 * SECOND))


class Bucket:
    """Tokens as fractions, added as time passes."""

    def __init__(self, burst: int, interval_ns: int) -> None:
        self.tokens, self.burst, self.interval_ns, self.then = Fraction(burst), burst, interval_ns, 0

    def take(self, now: int) -> bool:
        self.tokens = min(Fraction(self.burst), self.tokens + Fraction(now - self.then, self.interval_ns))
        self.then = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@given(st.sampled_from(sorted(BUCKETS)), st.integers(1, 12), st.lists(steps_ns, max_size=100))
def test_buckets_are_exact(rule: str, burst: int, steps: list[int]):
    limit, interval_ns = BUCKETS[rule]
    peer = Peer(**LIMITS | {limit: burst})
    model = Bucket(burst, interval_ns)
    now = 0
    for step in steps:
        now += step
        assert getattr(peer, rule)(now) == (not model.take(now))


@given(st.integers(0, 5), st.lists(st.tuples(steps_ns, st.sampled_from(
    ["ping", "ping", "ping", "ping", "ask", "answer", "headers", "data"])), max_size=150))
def test_pings(strikes: int, steps: list[tuple[int, str]]):
    peer = Peer(**LIMITS | {"ping_strikes": strikes})
    model = Bucket(abuse.PING_BURST, abuse.PING_NS)
    now = struck = awaited = 0
    for step, what in steps:
        now += step
        if what == "ask":
            peer.ping_sent()
            awaited += 1
        elif what == "headers":
            peer.headers_sent()
            struck = 0
        elif what == "data":
            peer.data_sent()
            struck = 0
        elif what == "answer" and awaited > 0:
            awaited -= 1
            assert not peer.ping_answered(now)
        else:
            allowed = model.take(now)
            struck += not allowed
            over = peer.ping_answered(now) if what == "answer" else peer.ping_came(now)
            assert over == (not allowed and struck > strikes)


@given(st.integers(0, 40), st.integers(0, 2000),
       st.lists(st.tuples(st.integers(0, 4 * SECOND), st.booleans(), st.integers(1, 80)), max_size=60))
def test_early_resets_of_the_last_streams(limit: int, before: int, runs: list[tuple[int, bool, int]]):
    peer = Peer(**LIMITS | {"early_resets": limit})
    recent: deque[bool] = deque([False] * abuse.RECENT_STREAMS, abuse.RECENT_STREAMS)
    now = since = 0
    for _ in range(before):
        peer.stream_closed(False, now)
    for step, early, count in runs:
        now += step
        for _ in range(count):
            if early and now - since > abuse.EARLY_SPAN_NS:
                recent.extend([False] * abuse.RECENT_STREAMS)
                since = now
            recent.append(early)
            assert peer.stream_closed(early, now) == (sum(recent) > limit)


@given(st.integers(1, 12), st.integers(0, 5),
       st.lists(st.sampled_from(["stream", "data", "update", "update", "update", "idle", "idle"]), max_size=300))
def test_frames_by_envoys_sums(updates: int, idles: int, steps: list[str]):
    peer = Peer(**LIMITS | {"window_updates": updates, "idle_frames": idles})
    counts = dict.fromkeys(("stream", "data", "update", "idle"), 0)
    for what in steps:
        counts[what] += 1
        if what == "stream":
            peer.stream_opened()
        elif what == "data":
            peer.data_sent()
        elif what == "update":
            allowed = 5 + 2 * (counts["stream"] + updates * counts["data"])
            assert peer.window_update_came() == (counts["update"] > allowed)
        else:
            assert peer.idle_frame_came() == (counts["idle"] > idles * (1 + counts["stream"]))


@pytest.mark.parametrize("per_second", [49, 200, 20_000])
def test_the_rate_at_which_early_resets_are_too_many(per_second: int):
    peer = Peer(**LIMITS)
    over = [peer.stream_closed(True, number * SECOND // per_second) for number in range(60 * per_second)]
    assert any(over) == (per_second > 49)


def test_half_of_the_streams_reset_early_is_not_too_many():
    peer = Peer(**LIMITS)
    assert not any(peer.stream_closed(bool(number % 2), 0) for number in range(10_000))


def test_a_connection_pays_little_for_it():
    assert Peer(**LIMITS).size_bytes <= 256
