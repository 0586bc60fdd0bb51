"""The transport under any order of events: calls, chunks, resets, replies, deadlines and the loss of the connection."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infer._core import _testing_tensor as codec
from infer._core._testing_transport import EVENTS, STATES, SessionDriver, message_prefix, next_state
from tests.support.h2_peer import (
    CANCEL,
    DATA,
    END_STREAM,
    INFER_PATH,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PREFACE,
    Peer,
    SessionLink,
    frame,
    prefixed,
    request_fields,
    window_update,
)

COLD = "/cold/Method"
FOLLOWERS = {
    ("headers", "headers_end"): "message", ("headers", "talk"): "talking", ("headers", "reply"): "replying",
    ("headers", "close"): "closed",
    ("message", "message_end"): "called", ("message", "reply"): "replying", ("message", "close"): "closed",
    ("talking", "part"): "talking", ("talking", "message_end"): "called", ("talking", "reply"): "replying",
    ("talking", "close"): "closed",
    ("called", "part"): "called", ("called", "reply"): "replying", ("called", "close"): "closed",
    ("replying", "close"): "closed",
}


def test_every_state_and_event():
    for state, state_name in enumerate(STATES):
        for event, event_name in enumerate(EVENTS):
            following = next_state(state, event)
            assert (STATES[following] if following >= 0 else None) == FOLLOWERS.get((state_name, event_name))


@pytest.mark.parametrize(("state", "event"), [(-1, 0), (6, 0), (0, -1), (0, 6), (1 << 20, 0)])
def test_no_such_state_or_event(state: int, event: int):
    assert next_state(state, event) == -1


def test_a_call_is_answered_at_most_once_and_ends_whatever_happens():
    """By following every path: `reply` comes once at most, no part of a reply after it, and from every state `close`
    leads to the end."""
    seen = set()
    paths: list[tuple[tuple[str, ...], str]] = [((), "headers")]
    while paths:
        events, state = paths.pop()
        assert events.count("reply") <= 1
        assert len(events) <= 6
        assert "part" not in events or "reply" not in events[:events.index("part")]
        seen.add(state)
        following = {event: after for (before, event), after in FOLLOWERS.items() if before == state}
        assert state == "closed" or following["close"] == "closed"
        # A part leaves the state as it is: one in each state shows all that more of them would.
        paths += [((*events, event), after) for event, after in following.items()
                  if after != state or events[-1:] != ("part",)]
    assert seen == set(STATES)


# Percent-encoding.


@given(st.text(max_size=400), st.integers(0, 500))
@example("ö%\0\U0001f600", 11)
def test_percent_encoding_is_undone_by_decoding_and_cut_at_a_character(text: str, limit: int):
    data = text.encode()
    assert unquote_to_bytes(codec.percent_encode(data)) == data
    kept = message_prefix(data, limit)
    assert len(codec.percent_encode(data[:kept])) <= limit
    data[:kept].decode()
    if kept < len(data):
        rest = data[kept:].decode()
        assert len(codec.percent_encode(data[:kept] + rest[0].encode())) > limit


# Chunks.

@st.composite
def client_bytes(draw: st.DrawFn) -> bytes:
    """Preface and calls of all kinds, with their frames in any order that keeps each stream's own."""
    peer = Peer(SessionLink(None), greet=False)
    queues = []
    for number in range(draw(st.integers(1, 5))):
        stream = 2 * number + 1
        body = draw(st.sampled_from([
            prefixed(b""), prefixed(b"x" * 20), prefixed(b"y" * 700), prefixed(b"z" * 40_000), b"", b"\0\0",
            b"\1\0\0\0\0", prefixed(b"cut", announced=9), prefixed(b"two") * 2, prefixed(b"", announced=1 << 27)]))
        step = draw(st.sampled_from([1 << 14, 5000, 300]))
        parts = [body[at:at + step] for at in range(0, len(body), step)]
        end = draw(st.sampled_from(["data", "empty", "trailers", "reset", "never"]))
        frames = [(stream, None)]
        frames += [(stream, frame(DATA, END_STREAM if end == "data" and at == len(parts) - 1 else 0, stream, part))
                   for at, part in enumerate(parts)]
        if end == "empty" or (end == "data" and not parts):
            frames.append((stream, frame(DATA, END_STREAM | PADDED, stream, b"\x03\0\0\0")))
        elif end == "reset":
            frames.append((stream, frame(3, 0, stream, CANCEL.to_bytes(4, "big"))))
        elif end == "trailers":
            frames.append((stream, b"trailers"))
        queues.append(frames)
    path = draw(st.lists(st.sampled_from([INFER_PATH, COLD, "/none"]), min_size=5, max_size=5))
    data = PREFACE + peer.settings_frame({}) + frame(4, 1, 0, b"")
    opened = 0
    while any(queues):
        ready = [at for at, queue in enumerate(queues) if queue and (at <= opened)]
        at = draw(st.sampled_from(ready))
        stream, content = queues[at].pop(0)
        if content is None:
            opened = at + 1
            fields = request_fields(path[at], ("grpc-timeout", "9S"), ("key-bin", "YQ"))
            content = peer.headers_frame(stream, fields)
        elif content == b"trailers":
            content = peer.headers_frame(stream, [("late", "x")], end=True)
        data += content
    return data


def outcome(data: bytes, cuts: list[int]) -> tuple[list[Any], list[Any], int, int, list[int]]:
    driver = SessionDriver({COLD: "handler"}, max_message_bytes=1 << 20)
    try:
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            driver.feed(data[begin:end])
        counters = driver.counters()
        return ([event if event[0] != "open" else event[:2] for event in driver.sink.events],
                [(call.path, call.message, call.metadata) for call, _ in driver.cold],
                counters["streams_total"], driver.buffered_bytes, driver.refused())
    finally:
        driver.close()


@given(client_bytes(), st.data())
@settings(max_examples=150)
def test_chunks_make_no_difference(data: bytes, draw: st.DataObject):
    whole = outcome(data, [])
    count = draw.draw(st.integers(1, 12))
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), min_size=count, max_size=count)))
    assert outcome(data, cuts) == whole


@given(client_bytes())
@settings(max_examples=25)
def test_byte_by_byte_makes_no_difference(data: bytes):
    data = data[:4000]
    assert outcome(data, list(range(1, len(data)))) == outcome(data, [])


@given(client_bytes(), st.integers(0, 1 << 32), st.integers(1, 20))
@settings(max_examples=300)
def test_mutated_bytes_end_the_connection_or_are_answered(data: bytes, seed: int, changes: int):
    chance = random.Random(seed)
    mutated = bytearray(data[:20_000])
    for _ in range(changes):
        at = chance.randrange(24, len(mutated))
        kind = chance.randrange(4)
        if kind == 0:
            mutated[at] = chance.randrange(256)
        elif kind == 1:
            mutated[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del mutated[at:at + chance.randrange(1, 12)]
        else:
            mutated[at:at] = chance.randbytes(chance.randrange(1, 12))
        if len(mutated) <= 25:
            break
    driver = SessionDriver({COLD: "handler"}, max_message_bytes=1 << 20)
    try:
        position = 0
        while position < len(mutated):
            step = chance.randrange(1, 5000)
            if not driver.feed(bytes(mutated[position:position + step])) or driver.done:
                break
            position += step
            if chance.random() < 0.5:
                driver.output()
            for number in driver.sink.live:
                if chance.random() < 0.3:
                    driver.sink.answer(number, segments=(prefixed(b"a" * chance.randrange(6000)),))
        driver.output()
    finally:
        driver.close()
    assert driver.streams == driver.buffered_bytes == driver.outbound_bytes == driver.early_replies == 0
    assert driver.sink.live == []


# Interleavings.


class Interleaving(RuleBasedStateMachine):
    """A client, a sink and a loop that do what they may in any order; the model knows each stream's bytes."""

    @initialize(window=st.sampled_from([0, 10, 5000, 1 << 20]), limit=st.sampled_from([300, 1 << 20]))
    def connect(self, window: int, limit: int) -> None:
        self.driver = SessionDriver({COLD: "handler"}, max_streams=12, max_message_bytes=2000,
                                    connection_buffered_bytes=limit)
        self.peer = Peer(SessionLink(self.driver), settings=[(INITIAL_WINDOW_SIZE, window)])
        self.peer.ping()
        self.uploading: dict[int, bytes] = {}       # stream -> what is left to send of its body

    def _open(self) -> list[int]:
        return [stream for stream in self.uploading if not self.peer.replies[stream].ended]

    @precondition(lambda self: len(self._unanswered()) < 10)
    @rule(path=st.sampled_from([INFER_PATH, INFER_PATH, COLD, "/none"]), size=st.integers(0, 2100), more=st.booleans(),
          deadline=st.booleans())
    def open(self, path: str, size: int, more: bool, deadline: bool) -> None:
        fields = request_fields(path, *([("grpc-timeout", "9S")] if deadline else []))
        stream = self.peer.open(fields)
        self.uploading[stream] = prefixed(bytes(size)) + (b"more" if more else b"")

    def _unanswered(self) -> list[int]:
        return [stream for stream, reply in self.peer.replies.items() if not reply.ended]

    @precondition(lambda self: self._open())
    @rule(data=st.data(), size=st.integers(1, 3000), end=st.booleans())
    def send(self, data: st.DataObject, size: int, end: bool) -> None:
        stream = data.draw(st.sampled_from(self._open()))
        body = self.uploading[stream]
        part, rest = body[:size], body[size:]
        self.uploading[stream] = rest
        ended = end or not rest
        self.peer.send(frame(DATA, END_STREAM if ended else 0, stream, part))
        if ended:
            del self.uploading[stream]

    @precondition(lambda self: self._unanswered())
    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(self._unanswered()))
        self.peer.reset(stream)
        self.peer.replies[stream].ended = True
        self.uploading.pop(stream, None)

    @precondition(lambda self: self.driver.sink.live)
    @rule(data=st.data(), code=st.sampled_from([0, 0, 3]), sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=4))
    def reply(self, data: st.DataObject, code: int, sizes: list[int]) -> None:
        number = data.draw(st.sampled_from(self.driver.sink.live))
        submitted = {event[1] for event in self.driver.sink.events if event[0] == "submit"}
        if code == 0 and number in submitted:
            self.driver.sink.answer(number, segments=tuple(bytes(size) for size in sizes))
        else:
            self.driver.sink.answer(number, code=4, text=b"deadline")

    @precondition(lambda self: self.driver.cold)
    @rule(data=st.data(), code=st.sampled_from([0, 13]), size=st.integers(0, 9000))
    def reply_cold(self, data: st.DataObject, code: int, size: int) -> None:
        call, _ = data.draw(st.sampled_from(self.driver.cold))
        self.driver.finish_cold(call, code, bytes(size))

    @precondition(lambda self: self.driver.timers)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        timer = data.draw(st.sampled_from(self.driver.timers))
        if not timer.cancelled:
            self.driver.finish_cold(timer.call, 4, b"deadline")
            assert timer.cancelled

    @rule(limit=st.sampled_from([1, 5000, 1 << 20]))
    def take(self, limit: int) -> None:
        pieces, _ = self.driver.take(limit)
        self.peer._buffer += b"".join(pieces)
        while self.peer._buffer:
            self.peer.read()

    @precondition(lambda self: self._unanswered())
    @rule(data=st.data(), step=st.integers(1, 20_000))
    def open_window(self, data: st.DataObject, step: int) -> None:
        self.peer.send(window_update(data.draw(st.sampled_from(self._unanswered())), step))

    @rule()
    def drain(self) -> None:
        self.driver.drain()

    @rule()
    def end_calls(self) -> None:
        self.driver.end_calls(b"stopping")

    @invariant()
    def counted(self) -> None:
        if not hasattr(self, "driver"):
            return
        driver, counters = self.driver, self.driver.counters()
        assert counters["buffered_bytes"] == driver.buffered_bytes >= 0
        assert counters["outbound_bytes"] == driver.outbound_bytes >= 0
        assert counters["streams"] == driver.streams >= len(driver.sink.live)
        assert 0 <= driver.early_replies <= driver.streams
        if driver.streams == 0:
            assert driver.buffered_bytes == driver.outbound_bytes == 0
        opened = sum(event[0] == "open" for event in driver.sink.events)
        ended = [event[1] for event in driver.sink.events if event[0] == "cancel"]
        assert len(ended) == len(set(ended)) <= opened

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.driver.close()
        driver = self.driver
        assert driver.streams == driver.buffered_bytes == driver.outbound_bytes == driver.early_replies == 0
        assert driver.sink.live == []
        assert all(call.cancelled for call, _ in driver.cold)
        assert all(timer.cancelled for timer in driver.timers)


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
