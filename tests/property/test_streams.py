"""Streams of messages under any order of events, against a plain model of what each stream was sent and answered.

Order is kept, each message is answered exactly once, and nothing is left when the connection is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infer._core._testing_transport import SessionDriver
from infer.errors import Cancelled
from infer.proto import message
from tests.support.h2_peer import (
    DATA,
    END_STREAM,
    INITIAL_WINDOW_SIZE,
    Peer,
    SessionLink,
    frame,
    prefixed,
    request_fields,
    split_messages,
    window_update,
)

INFER, TALK = "/inference.GRPCInferenceService/ModelStreamInfer", "/talk/Both"
STREAM_MESSAGES, STREAM_OUTBOUND_BYTES, STREAM_WINDOW_BYTES = 4, 3000, 2000
NOT_FOUND = 5


@dataclass
class Sent:
    """One stream as its client knows it."""

    path: str
    number: int
    messages: list[bytes] = field(default_factory=list)      # wholly sent, in order
    unsent: bytes = b""                                      # of the message that is being sent
    whole: bytes = b""
    half_closed: bool = False
    real_status: bool = False
    replies: dict[bytes, bytes] = field(default_factory=dict)    # by message: the outcome that the sink gave
    failed: bool = False                                         # one of them was an error and ends the stream
    written: list[bytes] = field(default_factory=list)           # by a cold handler
    read: list[bytes] = field(default_factory=list)
    finished: bool = False                                       # by a cold handler
    call: Any = None


class Streams(RuleBasedStateMachine):
    @initialize(window=st.sampled_from([0, 100, 5000, 1 << 20]))
    def connect(self, window: int) -> None:
        self.driver = SessionDriver(
            {TALK: "handler"}, streaming={TALK: True}, stream_messages=STREAM_MESSAGES, max_streams=20,
            stream_outbound_bytes=STREAM_OUTBOUND_BYTES, stream_window_bytes=STREAM_WINDOW_BYTES)
        self.peer = Peer(SessionLink(self.driver), settings=[(INITIAL_WINDOW_SIZE, window)])
        self.peer.ping()
        self.sent: dict[int, Sent] = {}
        self.submitted: dict[int, bytes] = {}      # by the sink's number
        self.seen = 0
        self.count = 0
        self.opened = self.updates = 0

    # The client.

    def _open(self) -> list[int]:
        return [stream for stream in self.sent if not self.peer.replies[stream].ended]

    def _sending(self) -> list[int]:
        return [stream for stream in self._open() if not self.sent[stream].half_closed]

    @precondition(lambda self: len(self._open()) < 4)
    @rule(path=st.sampled_from([INFER, TALK]), real_status=st.booleans())
    def open(self, path: str, real_status: bool) -> None:
        fields = [("triton_grpc_error", "true")] if real_status else []
        stream = self.peer.open(request_fields(path, *fields))
        self.opened += 1
        self.sent[stream] = Sent(path, stream, real_status=real_status)
        if path == TALK:
            self.sent[stream].call = self.driver.cold[-1][0]

    @precondition(lambda self: self._sending())
    @rule(data=st.data(), size=st.integers(0, 900), pieces=st.lists(st.integers(1, 1000), max_size=6))
    def send(self, data: st.DataObject, size: int, pieces: list[int]) -> None:
        """Up to several messages, in frames of any size, as far as the stream's window lets them through."""
        sent = self.sent[data.draw(st.sampled_from(self._sending()))]
        for piece in pieces:
            if not sent.unsent:
                self.count += 1
                sent.whole = b"%d:" % self.count + bytes(size)
                sent.unsent = prefixed(sent.whole)
            part = sent.unsent[:min(piece, self.peer.windows[sent.number])]
            if not part:
                return
            self.peer.windows[sent.number] -= len(part)
            self.peer.window -= len(part)
            sent.unsent = sent.unsent[len(part):]
            if not sent.unsent:
                sent.messages.append(sent.whole)
            self.peer.send(frame(DATA, 0, sent.number, part))

    @precondition(lambda self: self._sending())
    @rule(data=st.data())
    def half_close(self, data: st.DataObject) -> None:
        sent = self.sent[data.draw(st.sampled_from(self._sending()))]
        sent.half_closed = True
        self.peer.send(frame(DATA, END_STREAM, sent.number, b""))

    @precondition(lambda self: self._open())
    @rule(data=st.data(), chance=st.integers(0, 4))
    def reset(self, data: st.DataObject, chance: int) -> None:
        if chance:
            return
        stream = data.draw(st.sampled_from(self._open()))
        self.peer.reset(stream)
        self.peer.replies[stream].ended = True
        del self.sent[stream]

    # As often as a peer may of which no reply has come yet; `_run_to_the_end` takes another for each stream.
    @precondition(lambda self: self._open() and self.updates < self.opened)
    @rule(data=st.data(), step=st.integers(1, 20_000))
    def open_window(self, data: st.DataObject, step: int) -> None:
        self.updates += 1
        self.peer.send(window_update(data.draw(st.sampled_from(self._open())), step))

    # The sink.

    @precondition(lambda self: self.driver.sink.live)
    @rule(data=st.data(), sizes=st.lists(st.integers(0, 6000), min_size=1, max_size=5),
          code=st.sampled_from([0, 0, 0, NOT_FOUND]), final=st.booleans())
    def answer(self, data: st.DataObject, sizes: list[int], code: int, final: bool) -> None:
        number = data.draw(st.sampled_from(self.driver.sink.live))
        content = self.submitted[number]
        (sent,) = (each for each in self.sent.values() if content in each.messages)
        if code:
            self.driver.sink.answer(number, code, b"n\xc3\xb6 " + content[:9], id=content[:9])
            sent.replies[content] = message("inference.ModelStreamInferResponse")(
                error_message="nö " + content[:9].decode(),
                infer_response={"id": content[:9].decode()}).SerializeToString()
            sent.failed = sent.failed or sent.real_status
            return
        reply = message("inference.ModelInferResponse")(
            model_name=content[:9].decode(), raw_output_contents=[bytes(size) for size in sizes])
        encoded = prefixed(reply.SerializeToString())
        cuts = [5 + (len(encoded) - 5) * (index + 1) // len(sizes) for index in range(len(sizes))]
        segments = tuple(encoded[begin:end] for begin, end in zip((0, *cuts), cuts, strict=False))
        self.driver.sink.answer(number, segments=segments, final=final)
        if final:
            reply.parameters["triton_final_response"].bool_param = True
        sent.replies[content] = message("inference.ModelStreamInferResponse")(infer_response=reply).SerializeToString()

    # Cold handlers.

    def _handled(self) -> list[int]:
        return [stream for stream in self._open() if self.sent[stream].call is not None
                and not self.sent[stream].finished]

    @precondition(lambda self: self._handled())
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        sent = self.sent[data.draw(st.sampled_from(self._handled()))]
        try:
            content = self.driver.read_cold(sent.call)
        except Cancelled:
            # Its client ended the request in the middle of a message.
            assert sent.half_closed
            assert sent.unsent
            return
        if content is not None:
            sent.read.append(content)

    @precondition(lambda self: self._handled())
    @rule(data=st.data(), size=st.integers(0, 9000))
    def write(self, data: st.DataObject, size: int) -> None:
        sent = self.sent[data.draw(st.sampled_from(self._handled()))]
        try:
            if self.driver.has_room(sent.call):
                self.driver.write_cold(sent.call, bytes(size))
                sent.written.append(bytes(size))
        except Cancelled:
            assert sent.half_closed
            assert sent.unsent

    @precondition(lambda self: self._handled())
    @rule(data=st.data(), code=st.sampled_from([0, 9]))
    def finish(self, data: st.DataObject, code: int) -> None:
        sent = self.sent[data.draw(st.sampled_from(self._handled()))]
        self.driver.finish_cold(sent.call, code, b"text")
        sent.finished = True

    # The loop.

    @rule(limit=st.sampled_from([1, 5000, 1 << 20]))
    def take(self, limit: int) -> None:
        pieces, _ = self.driver.take(limit)
        self.peer._buffer += b"".join(pieces)
        while self.peer._buffer:
            self.peer.read()

    @invariant()
    def in_order_and_once(self) -> None:
        if not hasattr(self, "driver"):
            return
        for event in self.driver.sink.events[self.seen:]:
            if event[0] == "submit":
                self.submitted[event[1]] = event[2]
        self.seen = len(self.driver.sink.events)
        assert len(set(self.submitted.values())) == len(self.submitted)
        for stream, sent in self.sent.items():
            reply = self.peer.replies[stream]
            got = split_messages(reply.body)
            if sent.path == TALK:
                assert got == sent.written[:len(got)]
                assert sent.read == sent.messages[:len(sent.read)]
            else:
                self._check_infer(sent, got)
            if reply.ended:
                self._check_end(sent, got)

    def _check_infer(self, sent: Sent, got: list[bytes]) -> None:
        kind = message("inference.ModelStreamInferResponse")
        for content, encoded in zip(sent.messages[:len(got)], got, strict=True):
            assert kind.FromString(encoded) == kind.FromString(sent.replies[content])
        mine = [content for content in self.submitted.values() if content in sent.messages]
        assert mine == sent.messages[:len(mine)]

    def _check_end(self, sent: Sent, got: list[bytes]) -> None:
        code = self.peer.replies[sent.number].code
        if sent.half_closed and sent.unsent:
            assert code in (13, 9, 0, NOT_FOUND)
        elif sent.path == TALK:
            assert sent.finished
            assert got == sent.written
        elif sent.failed:
            assert code == NOT_FOUND
        else:
            assert (code, len(got)) == (0, len(sent.messages))
            assert sent.half_closed

    @invariant()
    def counted(self) -> None:
        if not hasattr(self, "driver"):
            return
        driver, counters = self.driver, self.driver.counters()
        assert counters["buffered_bytes"] == driver.buffered_bytes >= 0
        assert counters["outbound_bytes"] == driver.outbound_bytes >= 0
        assert len(driver.sink.live) <= STREAM_MESSAGES * driver.streams
        # Messages that wait, what was held of a window, and one that is not whole.
        assert driver.buffered_bytes <= driver.streams * (2 * STREAM_WINDOW_BYTES + (STREAM_MESSAGES + 1) * 1000)
        if driver.streams == 0:
            assert driver.buffered_bytes == driver.outbound_bytes == 0

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self._run_to_the_end()
        self.driver.close()
        driver = self.driver
        assert driver.streams == driver.buffered_bytes == driver.outbound_bytes == driver.early_replies == 0
        assert driver.sink.live == []
        assert all(call.cancelled for call, _ in driver.cold)

    def _run_to_the_end(self) -> None:
        """With windows open and every message answered, what was half-closed ends by itself."""
        for stream in self._open():
            self.peer.send(window_update(stream, 1 << 30))
        while True:
            self.take(1 << 20)
            self.in_order_and_once()
            if not self.driver.sink.live:
                break
            for number in self.driver.sink.live:
                content = self.submitted[number]
                (sent,) = (each for each in self.sent.values() if content in each.messages)
                empty = message("inference.ModelStreamInferResponse")(infer_response={})
                sent.replies[content] = empty.SerializeToString()
                self.driver.sink.answer(number, segments=(prefixed(b""),))
        for stream, sent in self.sent.items():
            if sent.path == INFER and sent.half_closed:
                assert self.peer.replies[stream].ended


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=150, stateful_step_count=70, deadline=None)
