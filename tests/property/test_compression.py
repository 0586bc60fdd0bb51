"""Inflating and compressing messages against Python's zlib and gzip."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core._testing_transport import ENCODINGS, accepted_encodings, deflate, encoding_of, inflate

LIMIT = 1 << 20
# Raw deflate, which some call so and gRPC does not.
RAW = -15

contents = st.one_of(
    st.binary(max_size=5000),
    st.builds(lambda unit, times: unit * times, st.binary(min_size=1, max_size=20), st.integers(1, 20_000)))
encodings = st.sampled_from(sorted(ENCODINGS))


def squeeze(encoding: str, content: bytes, level: int = 6) -> bytes:
    return gzip.compress(content, level, mtime=0) if encoding == "gzip" else zlib.compress(content, level)


def unsqueeze(encoding: str, content: bytes) -> bytes:
    return gzip.decompress(content) if encoding == "gzip" else zlib.decompress(content)


@given(encodings, contents, st.integers(0, 9), st.booleans())
def test_any_level_inflates_to_what_it_was(encoding: str, content: bytes, level: int, on_loop: bool) -> None:
    assert inflate(encoding, squeeze(encoding, content, level), LIMIT, on_loop)[:2] == ("inflated", content)


@given(encodings, contents, st.integers(0, 1 << 20), st.booleans())
def test_the_limit_is_kept_to_the_byte(encoding: str, content: bytes, limit: int, on_loop: bool) -> None:
    how, message, _ = inflate(encoding, squeeze(encoding, content), limit, on_loop)
    if len(content) <= limit:
        assert (how, message) == ("inflated", content)
    else:
        assert (how, message) == ("too long", b"")


@given(encodings, contents, st.data())
def test_whatever_is_cut_short_is_found(encoding: str, content: bytes, data: st.DataObject) -> None:
    squeezed = squeeze(encoding, content)
    size = data.draw(st.integers(0, len(squeezed) - 1))
    assert inflate(encoding, squeezed[:size], LIMIT)[:2] == ("cut short", b"")


@given(encodings, contents, st.binary(min_size=1, max_size=50))
def test_bytes_after_the_end_are_found(encoding: str, content: bytes, more: bytes) -> None:
    assert inflate(encoding, squeeze(encoding, content) + more, LIMIT)[:2] == ("trailing", b"")


def test_a_second_member_is_more_than_a_message() -> None:
    assert inflate("gzip", gzip.compress(b"a") + gzip.compress(b"b"), LIMIT)[0] == "trailing"


@given(encodings, st.binary(max_size=300))
def test_any_bytes(encoding: str, junk: bytes) -> None:
    how, message, _ = inflate(encoding, junk, LIMIT)
    try:
        expected = unsqueeze(encoding, junk)
    except (zlib.error, OSError, EOFError):
        assert how in ("corrupt", "cut short", "trailing")
    else:
        assert (how, message) == ("inflated", expected) or junk == b""


@given(encodings, contents.filter(lambda content: len(content) > 20), st.data())
def test_a_changed_byte_never_passes_for_another_message(encoding: str, content: bytes, data: st.DataObject) -> None:
    squeezed = bytearray(squeeze(encoding, content))
    # Of gzip's header a change may go unseen: its time, its system.
    at = data.draw(st.integers(10 if encoding == "gzip" else 0, len(squeezed) - 1))
    squeezed[at] ^= data.draw(st.integers(1, 255))
    how, message, _ = inflate(encoding, bytes(squeezed), LIMIT)
    assert how != "inflated" or message == content


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_C4_a_bomb_takes_no_more_memory_than_its_limit(encoding: str) -> None:
    bomb = squeeze(encoding, bytes(8 << 20), 9)
    assert len(bomb) < 10_000
    assert inflate(encoding, bomb, 100_000)[0] == "too long"
    how, message, room = inflate(encoding, squeeze(encoding, bytes(100_000)), 100_000)
    assert (how, len(message)) == ("inflated", 100_000)
    assert room < 2 * 100_000


def test_raw_deflate_is_none_of_grpc() -> None:
    raw = zlib.compressobj(wbits=RAW)
    assert inflate("deflate", raw.compress(b"x" * 100) + raw.flush(), LIMIT)[0] == "corrupt"
    assert inflate("deflate", gzip.compress(b"x"), LIMIT)[0] == "corrupt"
    assert inflate("gzip", zlib.compress(b"x"), LIMIT)[0] == "corrupt"


@given(encodings, st.lists(contents, min_size=1, max_size=6), st.booleans())
def test_compressing_in_any_pieces(encoding: str, pieces: list[bytes], on_loop: bool) -> None:
    content = b"".join(pieces)
    message = deflate(encoding, pieces, on_loop)
    if message is None:
        assert len(zlib.compress(content, 1)) + 18 >= len(content)
        return
    assert message[0] == 1
    assert int.from_bytes(message[1:5], "big") == len(message) - 5 <= len(content)
    assert unsqueeze(encoding, message[5:]) == content
    assert inflate(encoding, message[5:], LIMIT * 4)[:2] == ("inflated", content)


@given(encodings, st.binary(max_size=200))
def test_what_does_not_get_smaller_is_left(encoding: str, content: bytes) -> None:
    message = deflate(encoding, [content])
    assert message is None or len(message) - 5 <= len(content)


def test_names() -> None:
    gzipped, deflated = ENCODINGS["gzip"], ENCODINGS["deflate"]
    assert encoding_of(b"identity") == 0
    assert encoding_of(b"gzip") == gzipped
    assert encoding_of(b"deflate") == deflated
    others = {encoding_of(name) for name in (b"", b"GZIP", b"gzip ", b"br", b"snappy", b"deflate64", b"gzi")}
    assert len(others) == 1
    assert others.isdisjoint({0, gzipped, deflated})
    assert accepted_encodings(b"") == accepted_encodings(b"identity") == accepted_encodings(b"br,,snappy") == 0
    assert accepted_encodings(b"identity, deflate, gzip") == gzipped | deflated
    assert accepted_encodings(b"gzip") == accepted_encodings(b"  gzip\t,identity") == gzipped
    assert accepted_encodings(b"deflate,br") == deflated
    assert accepted_encodings(b"gzipped,x-gzip") == 0
