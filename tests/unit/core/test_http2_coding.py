"""Compressed messages through one session: inflated where they come by or by a worker, which the test is."""

from __future__ import annotations

import gzip
import random
import zlib
from typing import Any

import pytest

from infer._core._testing_transport import ENCODINGS, SessionDriver
from tests.support.endpoint import Bench
from tests.support.h2_peer import (
    CANCEL,
    INFER_PATH,
    RST_STREAM,
    Peer,
    Reply,
    SessionLink,
    frame,
    prefixed,
    request_fields,
)

OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 8, 12, 13, 14
COLD, TALK = "/cold/Method", "/cold/Talk"
BOTH = ENCODINGS["gzip"] | ENCODINGS["deflate"]
# More than the loop inflates of one read, or compresses of one reply.
LARGE = b"0123456789abcdef" * 20_000
KINDS = pytest.mark.parametrize("encoding", ["gzip", "deflate"])
PATHS = pytest.mark.parametrize("path", [INFER_PATH, COLD])


def squeeze(encoding: str, content: bytes) -> bytes:
    return gzip.compress(content) if encoding == "gzip" else zlib.compress(content)


def unsqueeze(encoding: str, content: bytes) -> bytes:
    return gzip.decompress(content) if encoding == "gzip" else zlib.decompress(content)


def session(**limits: Any) -> tuple[SessionDriver, Peer]:
    driver = SessionDriver({COLD: "handler", TALK: "handler"}, streaming={TALK: True}, **limits)
    return driver, Peer(SessionLink(driver))


def sent(peer: Peer, path: str, encoding: str, body: bytes, *more: tuple[str, str], end: bool = True) -> int:
    stream = peer.open(request_fields(path, ("grpc-encoding", encoding), *more))
    peer.body(stream, body, end=end)
    return stream


def coded(encoding: str, content: bytes) -> bytes:
    return prefixed(squeeze(encoding, content), flag=1)


def got(driver: SessionDriver, path: str) -> list[bytes]:
    """Messages that calls of a kind have got."""
    if path == INFER_PATH:
        return [event[2] for event in driver.sink.events if event[0] == "submit"]
    return [call.message for call, _ in driver.cold]


def refused(driver: SessionDriver, peer: Peer, stream: int) -> Reply:
    peer.expect(stream)
    return peer.answer(stream)


def left_clean(driver: SessionDriver) -> None:
    driver.close()
    while driver.jobs:
        driver.code(run=False)
    assert driver.streams == driver.buffered_bytes == driver.outbound_bytes == 0
    counters = driver.counters()
    assert counters["buffered_bytes"] == counters["outbound_bytes"] == counters["coding_jobs"] == 0


@KINDS
@PATHS
def test_C2_a_small_message(encoding: str, path: str) -> None:
    driver, peer = session()
    sent(peer, path, encoding, coded(encoding, b"hello" * 100))
    assert got(driver, path) == [b"hello" * 100]
    assert driver.jobs == []
    assert driver.buffered_bytes == 505
    left_clean(driver)


@KINDS
@PATHS
def test_C2_a_large_message_goes_to_a_worker(encoding: str, path: str) -> None:
    driver, peer = session()
    body = coded(encoding, LARGE)
    sent(peer, path, encoding, body)
    assert got(driver, path) == []
    assert driver.counters()["coding_jobs"] == 1
    # And what it will be.
    assert driver.buffered_bytes >= len(body) + len(LARGE)
    driver.code()
    assert got(driver, path) == [LARGE]
    assert driver.buffered_bytes == len(LARGE) + 5
    left_clean(driver)


def test_one_read_inflates_so_much_and_no_more() -> None:
    driver, peer = session()
    message = coded("deflate", bytes(100_000))
    data = b""
    for number in range(10):
        stream = 2 * number + 1
        data += peer.headers_frame(stream, request_fields(INFER_PATH, ("grpc-encoding", "deflate")))
        data += frame(0, 1, stream, message)
    assert driver.feed(data)
    assert len(got(driver, INFER_PATH)) == 2
    assert len(driver.jobs) == 8
    while driver.jobs:
        driver.code()
    assert got(driver, INFER_PATH) == [bytes(100_000)] * 10
    left_clean(driver)


@KINDS
@PATHS
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("broken", ["corrupt", "cut short", "trailing", "plain"])
def test_C3_what_does_not_inflate(encoding: str, path: str, large: bool, broken: str) -> None:
    driver, peer = session()
    squeezed = squeeze(encoding, LARGE if large else b"hello")
    body = {"corrupt": squeezed[:-3] + b"abc", "cut short": squeezed[:-1], "trailing": squeezed + b"\0",
            "plain": LARGE if large else b"hello"}[broken]
    stream = sent(peer, path, encoding, prefixed(body, flag=1))
    while driver.jobs:
        driver.code()
    reply = refused(driver, peer, stream)
    assert reply.code == INTERNAL
    assert "compressed" in reply.text
    assert got(driver, path) == []
    left_clean(driver)


@KINDS
@PATHS
@pytest.mark.parametrize("limit", [10_000, 400_000])
def test_C4_a_bomb(encoding: str, path: str, limit: int) -> None:
    driver, peer = session(max_message_bytes=limit)
    stream = sent(peer, path, encoding, coded(encoding, bytes(8 << 20)))
    while driver.jobs:
        driver.code()
    reply = refused(driver, peer, stream)
    assert reply.code == RESOURCE_EXHAUSTED
    assert f"{limit} bytes once inflated" in reply.text
    assert driver.refused()["max_message_bytes"] == 1
    left_clean(driver)


@PATHS
def test_C1_a_flag_without_an_encoding(path: str) -> None:
    for encoding in ("identity", None):
        driver, peer = session()
        more = () if encoding is None else (("grpc-encoding", encoding),)
        stream = peer.open(request_fields(path, *more))
        peer.body(stream, prefixed(squeeze("gzip", b"x"), flag=1))
        assert refused(driver, peer, stream).code == INTERNAL
        left_clean(driver)


@PATHS
@pytest.mark.parametrize("encoding", ["foo", "snappy", "GZIP"])
def test_C5_an_encoding_that_there_is_none_of(path: str, encoding: str) -> None:
    driver, peer = session()
    reply = refused(driver, peer, peer.open(request_fields(path, ("grpc-encoding", encoding))))
    assert reply.code == UNIMPLEMENTED
    assert reply.fields["grpc-accept-encoding"] == "identity,deflate,gzip"
    left_clean(driver)


def test_the_flag_decides_not_the_encoding() -> None:
    driver, peer = session()
    sent(peer, INFER_PATH, "gzip", prefixed(b"plain"))
    assert got(driver, INFER_PATH) == [b"plain"]
    left_clean(driver)


@PATHS
@pytest.mark.parametrize("run", [False, True])
def test_a_call_that_ends_while_its_message_is_with_a_worker(path: str, run: bool) -> None:
    driver, peer = session()
    stream = sent(peer, path, "gzip", coded("gzip", LARGE))
    held = driver.buffered_bytes
    peer.send(frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))
    assert driver.streams == 0
    # What the worker reads is counted for as long as it does.
    assert driver.buffered_bytes == held - 5
    driver.code(run)
    assert driver.buffered_bytes == 0
    assert got(driver, path) == []
    left_clean(driver)


@pytest.mark.parametrize("run", [False, True])
def test_a_connection_that_is_lost_while_its_message_is_with_a_worker(run: bool) -> None:
    driver, peer = session()
    sent(peer, INFER_PATH, "gzip", coded("gzip", LARGE))
    driver.close()
    driver.code(run)
    left_clean(driver)


def test_a_deadline_that_passes_while_its_message_is_with_a_worker() -> None:
    driver, peer = session()
    stream = sent(peer, INFER_PATH, "gzip", coded("gzip", LARGE))
    driver.sink.answer(0, 4, b"late")
    assert refused(driver, peer, stream).code == 4
    driver.code()
    assert got(driver, INFER_PATH) == []
    left_clean(driver)


def test_max_coding_jobs() -> None:
    driver, peer = session(coding_jobs=2)
    for _ in range(2):
        sent(peer, INFER_PATH, "gzip", coded("gzip", LARGE))
    stream = sent(peer, INFER_PATH, "gzip", coded("gzip", LARGE))
    reply = refused(driver, peer, stream)
    assert reply.code == RESOURCE_EXHAUSTED
    assert "--max-coding-jobs" in reply.text
    assert int(dict(reply.fields)["grpc-retry-pushback-ms"]) > 0
    assert driver.counters()["coding_refused"] == 1
    driver.code()
    sent(peer, INFER_PATH, "gzip", coded("gzip", LARGE))
    assert len(driver.jobs) == 2
    left_clean(driver)


@PATHS
def test_a_server_that_stops_takes_no_job(path: str) -> None:
    driver, peer = session()
    driver.refuse_spawn = True
    stream = sent(peer, path, "gzip", coded("gzip", LARGE))
    assert refused(driver, peer, stream).code == UNAVAILABLE
    left_clean(driver)


# The bounds on memory.

MIB = 1 << 20


@KINDS
@PATHS
def test_bombs_at_once_stay_within_the_bound(encoding: str, path: str) -> None:
    """While they are with workers, as they come back, and once they are handed over."""
    driver, peer = session(max_message_bytes=4 * MIB, connection_buffered_bytes=8 * MIB)
    body = coded(encoding, bytes(4 * MIB - 100))
    streams = [sent(peer, path, encoding, body) for _ in range(64)]
    jobs = len(driver.jobs)
    assert driver.buffered_bytes <= 8 * MIB
    while driver.jobs:
        driver.code()
        assert driver.buffered_bytes <= 8 * MIB
    taken = len(got(driver, path))
    assert 1 <= taken <= 2
    assert driver.refused()["max_buffered_bytes"] == 64 - taken
    peer.until_closed()
    replies = [peer.replies[stream] for stream in streams if peer.replies[stream].ended]
    assert len(replies) == 64 - taken
    assert {reply.code for reply in replies} == {RESOURCE_EXHAUSTED}
    assert all("memory for requests is used up" in reply.text for reply in replies)
    assert all(int(dict(reply.fields)["grpc-retry-pushback-ms"]) > 0 for reply in replies)
    assert encoding == "deflate" or jobs == 1
    left_clean(driver)


def test_bombs_at_once_stay_within_the_bound_of_the_process() -> None:
    jobs: list[Any] = []
    bench = Bench(offload=jobs.append, process_buffered_bytes=16 * MIB, max_message_bytes=4 * MIB)
    body = coded("gzip", bytes(4 * MIB - 100))
    peers = [bench.connect()[1] for _ in range(8)]
    for _ in range(8):
        for peer in peers:
            sent(peer, INFER_PATH, "gzip", body)
    # Those that hold less than their share are served meanwhile.
    assert bench.endpoint.snapshot()["buffered_bytes"] <= 24 * MIB
    for job in jobs:
        job.run()
        job.session.finish_coding(job)
        assert bench.endpoint.snapshot()["buffered_bytes"] <= 24 * MIB
    assert bench.refused("max_buffered_bytes") == 64 - len(bench.sink.live) > 50
    for socket in bench.sockets:
        socket.lose()
    assert bench.endpoint.snapshot()["buffered_bytes"] == 0


def test_small_messages_that_inflate_stay_within_the_bound() -> None:
    """Those that the loop inflates itself."""
    driver, peer = session(connection_buffered_bytes=MIB)
    for _ in range(64):
        sent(peer, INFER_PATH, "gzip", coded("gzip", bytes(100_000)))
        assert driver.buffered_bytes <= MIB
    assert driver.jobs == []
    assert len(got(driver, INFER_PATH)) == 10
    assert driver.refused()["max_buffered_bytes"] == 54
    left_clean(driver)


@KINDS
def test_one_message_may_pass_the_bound_of_its_connection(encoding: str) -> None:
    """As one may that is not compressed."""
    driver, peer = session(connection_buffered_bytes=1000)
    sent(peer, INFER_PATH, encoding, coded(encoding, LARGE))
    while driver.jobs:
        driver.code()
    assert got(driver, INFER_PATH) == [LARGE]
    left_clean(driver)


def test_a_deflated_message_that_grows_a_thousandfold() -> None:
    """Its length is found step by step."""
    driver, peer = session()
    sent(peer, INFER_PATH, "deflate", coded("deflate", bytes(8 * MIB)))
    runs = 0
    while driver.jobs:
        driver.code()
        runs += 1
    assert runs > 1
    assert got(driver, INFER_PATH) == [bytes(8 * MIB)]
    left_clean(driver)


def test_a_message_that_is_longer_than_it_says() -> None:
    driver, peer = session()
    squeezed = gzip.compress(LARGE + bytes(MIB))
    stream = sent(peer, INFER_PATH, "gzip", prefixed(squeezed[:-4] + (400_000).to_bytes(4, "little"), flag=1))
    driver.code()
    assert refused(driver, peer, stream).code == INTERNAL
    left_clean(driver)


def test_a_stream_waits_where_a_message_might_find_no_room() -> None:
    driver, peer = session(max_message_bytes=MIB, connection_buffered_bytes=3 * MIB)
    message = bytes(900_000)
    _, call = talking(peer, driver, coded("gzip", message) * 8, end=True)
    seen = []
    while len(seen) < 8:
        while driver.jobs:
            driver.code()
            assert driver.buffered_bytes <= 3 * MIB
        seen.append(driver.read_cold(call))
    assert seen == [message] * 8
    assert "max_buffered_bytes" not in driver.refused()
    left_clean(driver)


# Streams of messages.


def talking(peer: Peer, driver: SessionDriver, body: bytes, end: bool = False) -> tuple[int, Any]:
    stream = sent(peer, TALK, "gzip", body, end=end)
    return stream, driver.cold[0][0]


def read_all(driver: SessionDriver, call: Any) -> list[bytes]:
    messages = []
    while (message := driver.read_cold(call)) is not None:
        messages.append(message)
    return messages


@pytest.mark.parametrize("end", [False, True])
def test_messages_of_a_stream_stay_in_order(end: bool) -> None:
    driver, peer = session()
    body = coded("gzip", b"first") + coded("gzip", LARGE) + prefixed(b"third") + coded("gzip", LARGE + b"4") + coded(
        "gzip", b"")
    _, call = talking(peer, driver, body, end)
    assert read_all(driver, call) == [b"first"]
    assert len(driver.jobs) == 1
    assert not call.ended
    driver.code()
    assert read_all(driver, call) == [LARGE, b"third"]
    assert len(driver.jobs) == 1
    driver.code()
    assert read_all(driver, call) == [LARGE + b"4", b""]
    assert call.ended == end
    assert driver.buffered_bytes == 0
    left_clean(driver)


def test_C3_a_message_of_a_stream_that_does_not_inflate() -> None:
    driver, peer = session()
    stream, call = talking(peer, driver, coded("gzip", b"first") + prefixed(b"junk", flag=1) + prefixed(b"third"))
    assert read_all(driver, call) == [b"first"]
    # What it says to be its length is too much for the loop.
    driver.code()
    assert refused(driver, peer, stream).code == INTERNAL
    left_clean(driver)


def test_a_stream_that_ends_with_a_worker() -> None:
    driver, peer = session()
    _, call = talking(peer, driver, coded("gzip", LARGE), end=True)
    assert not call.ended
    driver.code()
    assert call.ended
    assert read_all(driver, call) == [LARGE]
    left_clean(driver)


# Replies.


def replied(driver: SessionDriver, peer: Peer, stream: int, content: bytes, path: str) -> None:
    if path == INFER_PATH:
        driver.sink.answer(0, segments=(prefixed(content)[:3], prefixed(content)[3:9], prefixed(content)[9:]))
    else:
        driver.finish_cold(driver.cold[0][0], OK, content)


def body_of(reply: Reply, encoding: str) -> bytes:
    assert reply.fields["grpc-encoding"] == encoding
    assert reply.body[0] == 1
    assert int.from_bytes(reply.body[1:5], "big") == len(reply.body) - 5
    return unsqueeze(encoding, reply.body[5:])


@KINDS
@PATHS
@pytest.mark.parametrize("large", [False, True])
def test_a_reply_is_compressed(encoding: str, path: str, large: bool) -> None:
    driver, peer = session(reply_encodings=ENCODINGS[encoding])
    stream = sent(peer, path, "identity", prefixed(b"q"), ("grpc-accept-encoding", f"identity,{encoding}"))
    content = LARGE if large else LARGE[:2000]
    replied(driver, peer, stream, content, path)
    assert len(driver.jobs) == large
    if large:
        assert peer.replies.get(stream) is None or not peer.replies[stream].blocks
        driver.code()
    reply = refused(driver, peer, stream)
    assert reply.code == OK
    assert body_of(reply, encoding) == content
    left_clean(driver)


@pytest.mark.parametrize(("accepted", "encodings", "content"), [
    ("identity", BOTH, LARGE[:5000]),           # not taken by the client
    ("deflate", ENCODINGS["gzip"], LARGE[:5000]),
    ("gzip,deflate", 0, LARGE[:5000]),          # not asked for
    ("gzip,deflate", BOTH, LARGE[:5000]),       # auto, and the request was not compressed
])
def test_a_reply_is_left_as_it_is(accepted: str, encodings: int, content: bytes) -> None:
    driver, peer = session(reply_encodings=encodings)
    stream = sent(peer, COLD, "identity", prefixed(b"q"), ("grpc-accept-encoding", accepted))
    replied(driver, peer, stream, content, COLD)
    reply = refused(driver, peer, stream)
    assert reply.message == content
    assert "grpc-encoding" not in reply.fields
    left_clean(driver)


def test_a_short_reply_is_left_as_it_is() -> None:
    driver, peer = session(reply_encodings=ENCODINGS["gzip"])
    stream = sent(peer, COLD, "identity", prefixed(b"q"), ("grpc-accept-encoding", "gzip"))
    replied(driver, peer, stream, b"a" * 1000, COLD)
    assert refused(driver, peer, stream).message == b"a" * 1000
    left_clean(driver)


@pytest.mark.parametrize("large", [False, True])
def test_noise_is_left_as_it_is(large: bool) -> None:
    driver, peer = session(reply_encodings=ENCODINGS["gzip"])
    noise = random.Random(7).randbytes(100_000 if large else 5000)
    stream = sent(peer, COLD, "identity", prefixed(b"q"), ("grpc-accept-encoding", "gzip"))
    replied(driver, peer, stream, noise, COLD)
    if large:
        driver.code()
    assert refused(driver, peer, stream).message == noise
    left_clean(driver)


@KINDS
def test_auto_answers_as_it_was_asked(encoding: str) -> None:
    driver, peer = session(reply_encodings=BOTH)
    stream = sent(peer, COLD, encoding, coded(encoding, b"q"), ("grpc-accept-encoding", "identity,deflate,gzip"))
    replied(driver, peer, stream, LARGE[:5000], COLD)
    assert body_of(refused(driver, peer, stream), encoding) == LARGE[:5000]
    left_clean(driver)


def test_a_status_has_no_message_to_compress() -> None:
    driver, peer = session(reply_encodings=ENCODINGS["gzip"])
    stream = sent(peer, COLD, "identity", prefixed(b"q"), ("grpc-accept-encoding", "gzip"))
    driver.finish_cold(driver.cold[0][0], 5, b"no")
    reply = refused(driver, peer, stream)
    assert (reply.code, reply.trailers_only) == (5, True)
    left_clean(driver)


@pytest.mark.parametrize("run", [False, True])
@pytest.mark.parametrize("path", [INFER_PATH, COLD])
def test_a_call_that_ends_while_its_reply_is_with_a_worker(path: str, run: bool) -> None:
    driver, peer = session(reply_encodings=ENCODINGS["gzip"])
    stream = sent(peer, path, "identity", prefixed(b"q"), ("grpc-accept-encoding", "gzip"))
    replied(driver, peer, stream, LARGE, path)
    assert driver.outbound_bytes == len(LARGE) + 5
    peer.send(frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))
    assert driver.streams == 0
    driver.code(run)
    assert driver.outbound_bytes == 0
    left_clean(driver)


def test_with_too_many_jobs_a_reply_goes_as_it_is() -> None:
    driver, peer = session(reply_encodings=ENCODINGS["gzip"], coding_jobs=1)
    sent(peer, INFER_PATH, "gzip", coded("gzip", LARGE))
    stream = sent(peer, COLD, "identity", prefixed(b"q"), ("grpc-accept-encoding", "gzip"))
    replied(driver, peer, stream, LARGE, COLD)
    assert refused(driver, peer, stream).message == LARGE
    left_clean(driver)


def messages_of(reply: Reply) -> list[bytes]:
    messages, rest = [], reply.body
    while rest:
        size = int.from_bytes(rest[1:5], "big")
        content = rest[5:5 + size]
        messages.append(gzip.decompress(content) if rest[0] else content)
        rest = rest[5 + size:]
    return messages


@pytest.mark.parametrize("code", [OK, INTERNAL])
def test_replies_of_a_stream_stay_in_order(code: int) -> None:
    driver, peer = session(reply_encodings=ENCODINGS["gzip"])
    stream = peer.open(request_fields(TALK, ("grpc-accept-encoding", "gzip")))
    peer.body(stream, prefixed(b"q"))
    call = driver.cold[0][0]
    written = [b"small", LARGE, b"after", LARGE + b"2", b"c" * 5000, b"last"]
    for message in written:
        driver.write_cold(call, message)
    assert not driver.has_room(call)
    driver.finish_cold(call, code, b"" if code == OK else b"broken")
    assert len(driver.jobs) == 1
    driver.code()
    assert len(driver.jobs) == 1
    driver.code()
    assert driver.jobs == []
    reply = refused(driver, peer, stream)
    assert messages_of(reply) == written
    assert reply.code == code
    assert driver.outbound_bytes == 0
    left_clean(driver)


def test_a_stream_that_is_cut_with_replies_waiting() -> None:
    driver, peer = session(reply_encodings=ENCODINGS["gzip"])
    stream = peer.open(request_fields(TALK, ("grpc-accept-encoding", "gzip")))
    call = driver.cold[0][0]
    for message in (LARGE, b"after", LARGE):
        driver.write_cold(call, message)
    peer.send(frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))
    driver.code()
    assert driver.outbound_bytes == 0
    left_clean(driver)
