"""Rules of one call on one stream: header fields, the message's prefix and body."""

import pytest

from infer._core._testing_transport import StreamDriver, message_prefix, next_state

INTERNAL, UNIMPLEMENTED, RESOURCE_EXHAUSTED = 13, 12, 8
HEADERS, MESSAGE, TALKING, CALLED, REPLYING, CLOSED = range(6)
HEADERS_END, TALK, MESSAGE_END, PART, REPLY, CLOSE = range(6)
GOOD = [(b":method", b"POST"), (b"content-type", b"application/grpc")]


def checked(*fields: tuple[bytes, bytes]) -> tuple[int, int, str]:
    stream = StreamDriver()
    for name, value in fields:
        assert stream.field(name, value) == (0, "")
    return stream.check_headers()


def test_the_life_of_a_call():
    assert next_state(HEADERS, HEADERS_END) == MESSAGE
    assert next_state(MESSAGE, MESSAGE_END) == CALLED
    assert next_state(CALLED, REPLY) == REPLYING
    assert next_state(REPLYING, CLOSE) == CLOSED


def test_the_life_of_a_stream_of_messages():
    assert next_state(HEADERS, TALK) == TALKING
    assert next_state(TALKING, PART) == TALKING
    assert next_state(TALKING, MESSAGE_END) == CALLED
    assert next_state(CALLED, PART) == CALLED
    assert next_state(CALLED, REPLY) == REPLYING
    assert next_state(TALKING, REPLY) == REPLYING
    assert next_state(REPLYING, PART) == -1


@pytest.mark.parametrize("value", [
    b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=utf-8", b"application/grpc+proto;x=y"])
def test_H2_content_types_that_are_grpc(value: bytes):
    assert checked((b":method", b"POST"), (b"content-type", value)) == (200, 0, "")


@pytest.mark.parametrize("value", [
    b"", b"application/grp", b"application/grpcfoo", b"application/grpc-web", b"application/grpc+json", b"text/plain",
    b"application/grpc+protox", b"application/grpc+prot", b"application/grpc ", b"application/json"])
def test_H1_content_types_that_are_not(value: bytes):
    http_status, code, text = checked((b":method", b"POST"), (b"content-type", value))
    assert (http_status, code) == (415, INTERNAL)
    assert "application/grpc" in text


@pytest.mark.parametrize("value", [b"GET", b"PUT", b"post", b"POSTS", b"POS", b""])
def test_H4_methods(value: bytes):
    assert checked((b":method", value), GOOD[1])[:2] == (405, INTERNAL)


@pytest.mark.parametrize("value", [
    b"", b"YQ==", b"YQ", b"YWI=", b"YWI", b"YWJj", b"+/+/", b"YQ==,YWI=,YWJj", b"YQ,YQ", b",", b"AAAAAA"])
def test_H12_base64(value: bytes):
    assert checked(*GOOD, (b"key-bin", value)) == (200, 0, "")


@pytest.mark.parametrize("value", [
    b"Y", b"YWJjZ", b"YQ=", b"YQ===", b"=", b"====", b"Y=Q=", b"YQ==YQ==", b"Y Q=", b"Y-_=", b"YQ==,Y", b"\xff" * 4])
def test_H12_not_base64(value: bytes):
    assert checked(*GOOD, (b"key-bin", value))[:2] == (200, INTERNAL)


def test_a_key_of_bin_alone_is_an_ordinary_one():
    assert checked(*GOOD, (b"-bin", b"!")) == (200, 0, "")


def test_C5_other_encodings():
    for value in (b"identity", b"gzip", b"deflate"):
        assert checked(*GOOD, (b"grpc-encoding", value)) == (200, 0, "")
    for value in (b"snappy", b"foo", b"GZIP", b"", b"Identity", b"identity2"):
        assert checked(*GOOD, (b"grpc-encoding", value))[:2] == (200, UNIMPLEMENTED)


def test_H9_timeout_twice():
    assert checked(*GOOD, (b"grpc-timeout", b"1S")) == (200, 0, "")
    assert checked(*GOOD, (b"grpc-timeout", b"1S"), (b"grpc-timeout", b"1S"))[:2] == (200, INTERNAL)
    assert checked(*GOOD, (b"grpc-timeout", b"1x"), (b"grpc-timeout", b"1S"))[:2] == (200, INTERNAL)


def test_H13_headers_are_counted_with_their_overhead():
    stream = StreamDriver()
    assert stream.field(b"a", b"b" * 67, 100) == (0, "")
    assert stream.header_bytes == 100
    code, text = stream.field(b"c", b"", 100)
    assert code == RESOURCE_EXHAUSTED
    assert "100 bytes" in text


@pytest.mark.parametrize("cuts", [(), (1,), (4,), (5,), (6,), (1, 2, 3, 4, 5, 6), (3, 7, 9)])
def test_a_message_in_any_pieces(cuts: tuple[int, ...]):
    body = b"\0\0\0\0\x05hello"
    stream = StreamDriver()
    for begin, end in zip((0, *cuts), (*cuts, len(body)), strict=True):
        assert stream.data(body[begin:end]) == (0, "")
    assert stream.check_message() == (0, "")
    assert stream.body == body


def test_a_message_of_no_bytes():
    stream = StreamDriver()
    assert stream.data(bytes(5)) == (0, "")
    assert stream.check_message() == (0, "")


def test_room_follows_what_has_come_not_what_is_announced():
    stream = StreamDriver()
    assert stream.data(b"\0" + (60 << 20).to_bytes(4, "big") + bytes(10)) == (0, "")
    assert stream.capacity_bytes < 4096
    sent = 10
    while sent < 1 << 20:
        assert stream.data(bytes(50_000)) == (0, "")
        sent += 50_000
        # Steps of four, from 64 KiB on of eight, in the arena's size classes.
        assert stream.capacity_bytes <= 2 * (4 if sent < 1 << 16 else 8) * sent + 16384


@pytest.mark.parametrize("size_bytes", [16380, 16384, 20000, 65536, 602_149, 1 << 20])
@pytest.mark.parametrize("piece_bytes", [3, 5, 1000, 16384])
def test_a_long_message_is_kept_whole_and_ends_aligned(size_bytes: int, piece_bytes: int):
    body = b"\0" + size_bytes.to_bytes(4, "big") + (b"0123456789abcdef" * (size_bytes // 16 + 1))[:size_bytes]
    stream = StreamDriver()
    for at in range(0, len(body), piece_bytes):
        assert stream.data(body[at:at + piece_bytes]) == (0, "")
    assert stream.check_message() == (0, "")
    assert stream.body == body
    if size_bytes > 1 << 16:
        assert stream.end_past_alignment == 0
    assert stream.data(b"x")[0] == UNIMPLEMENTED


def test_a_long_message_cut_short_says_its_own_sizes():
    stream = StreamDriver()
    assert stream.data(b"\0" + (100_000).to_bytes(4, "big") + bytes(50_000)) == (0, "")
    code, text = stream.check_message()
    assert code == INTERNAL
    assert "expected 100000 bytes, got 50000" in text


@pytest.mark.parametrize("first", [1, 5, 12, 20000])
def test_B39_over_the_limit_is_refused_at_the_prefix(first: int):
    stream = StreamDriver()
    body = (b"\0" + (101).to_bytes(4, "big") + bytes(20000))[:first]
    code, text = stream.data(body, limit_bytes=100)
    if first < 5:
        assert code == 0
        code, text = stream.data(b"\0\0\0\x65", limit_bytes=100)
    assert code == RESOURCE_EXHAUSTED
    assert "101" in text
    assert "--max-message-bytes" in text
    assert len(stream.body or b"") <= 20000
    assert stream.capacity_bytes <= 32768


def test_B40_the_longest_prefix_is_refused():
    assert StreamDriver().data(b"\0\xff\xff\xff\xff")[0] == RESOURCE_EXHAUSTED


@pytest.mark.parametrize("body", [
    b"\0\0\0\0\0\0", b"\0\0\0\0\x02abc", b"\0\0\0\0\x02ab\0\0\0\0\x02ab", b"\0\0\0\0\0" + bytes(20000)])
def test_B42_a_second_message(body: bytes):
    assert StreamDriver().data(body)[0] == UNIMPLEMENTED
    stream = StreamDriver()
    codes = [stream.data(body[at:at + 1])[0] for at in range(min(len(body), 8))]
    assert UNIMPLEMENTED in codes


@pytest.mark.parametrize("flag", [1, 2, 255])
def test_B44_C1_flags_other_than_zero(flag: int):
    code, text = StreamDriver().data(bytes([flag]) + bytes(4))
    assert code == INTERNAL
    assert str(flag) in text


def test_B41_B43_messages_that_are_not_whole():
    assert StreamDriver().check_message()[0] == UNIMPLEMENTED
    for body in (b"\0", b"\0\0\0\0", b"\0\0\0\0\x01", b"\0\0\0\0\x05hell"):
        stream = StreamDriver()
        stream.data(body)
        assert stream.check_message()[0] == INTERNAL


def test_a_full_connection_refuses_new_messages_and_goes_on_with_old_ones():
    stream = StreamDriver()
    assert stream.data(b"\0\0\0\0\x03a") == (0, "")
    assert stream.data(b"bc", refuse_new=True) == (0, "")
    assert stream.check_message() == (0, "")
    assert StreamDriver().data(b"\0\0\0\0\x03", refuse_new=True)[0] == RESOURCE_EXHAUSTED


@pytest.mark.parametrize(("text", "limit", "kept"), [
    ("abc", 3, 3), ("abcd", 3, 3), ("a%b", 4, 2), ("%%", 5, 1), ("ö", 6, 2), ("ö", 5, 0), ("aö", 6, 1), ("€", 8, 0),
    ("", 0, 0),    ("\U0001f600a", 13, 5), ("\U0001f600a", 12, 4), ("\U0001f600a", 11, 0)])
def test_a_status_text_is_cut_at_a_character(text: str, limit: int, kept: int):
    assert message_prefix(text.encode(), limit) == kept
