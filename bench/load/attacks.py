"""What an attacker sends on one connection, as bytes that are made beforehand: each flood of FAULTS 1b, and peers that
stay within every bound.

The floods are the ones that the suite runs (`tests/support/floods.py`); here they go on for as long as they are let.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from bench.load.idle import ACK, PREFACE, SETTINGS, frame
from tests.support.floods import FLOODS, Blocks, Flood
from tests.support.h2_peer import CANCEL, DATA, PRIORITY, RST_STREAM, window_update
from tests.support.scripted_peer import END_HEADERS, END_STREAM

# A flood that is cut sends so many times what one is cut for: more is work for the kernel, not for the server.
SURPLUS = 2
# What a connection sends that is not cut.
LIVE_BYTES = 4 << 20
MANY_CONNECTIONS = 100
ASKED_CALLS = 8
INITIAL_WINDOW_SIZE = 4


@dataclass(frozen=True)
class Attack:
    """One row. `cut`: every connection has to be ended by a bound; None where that depends on how fast the attacker
    reads."""

    name: str
    content: Callable[[], bytes]
    """Makes all that a connection sends; then it waits for the server to close, and the next one is opened."""
    cut: bool | None = False
    connections: int = 1
    """Open at any time."""
    piece_bytes: int = 1 << 16
    """Sent at once."""
    holds: bool = False
    """Reads nothing, and stays open after its last byte."""


def greeting(settings: bytes = b"", *, acknowledges: bool = True) -> bytes:
    return PREFACE + frame(SETTINGS, 0, settings) + (frame(SETTINGS, ACK) if acknowledges else b"")


def of_flood(flood: Flood) -> Attack:
    # Only before our SETTINGS are acknowledged is a stream too many refused; later it ends the connection.
    start = greeting(acknowledges="beyond" not in flood.row)
    return Attack(flood.row, lambda: start + b"".join(islice(flood.steps(), SURPLUS * flood.over)), cut=True)


def quarter_of_calls_reset() -> Iterator[bytes]:
    """Resets that the bound allows, since the other calls are answered: with an error, as they have no message."""
    blocks = Blocks()
    while True:
        stream, head = blocks.open()
        yield head + frame(RST_STREAM, 0, struct.pack(">I", CANCEL), stream)
        for _ in range(3):
            yield blocks.open(END_HEADERS | END_STREAM)[1]


def frames_within_bounds() -> Iterator[bytes]:
    """With each call as many PRIORITY and WINDOW_UPDATE frames as it allows."""
    blocks = Blocks()
    while True:
        stream, head = blocks.open(END_HEADERS | END_STREAM)
        yield head + frame(PRIORITY, 0, struct.pack(">IB", 0, 15), stream) * 100 + window_update(0, 1) * 2


def empty_frames_within_bounds() -> Iterator[bytes]:
    """A message that comes byte by byte, with as many empty DATA frames between as are allowed."""
    blocks = Blocks()
    yield blocks.open()[1] + frame(DATA, 0, b"\0" + struct.pack(">I", 1 << 20), 1)
    while True:
        yield frame(DATA, 0, b"", 1) * 16 + frame(DATA, 0, b"x", 1)


def live(name: str, steps: Callable[[], Iterator[bytes]], cut: bool | None = False) -> Attack:
    def content() -> bytes:
        parts = [greeting()]
        size_bytes = 0
        for step in steps():
            parts.append(step)
            size_bytes += len(step)
            if size_bytes >= LIVE_BYTES:
                break
        return b"".join(parts)

    return Attack(name, content, cut)


def unread_replies(message: bytes) -> bytes:
    """Calls whose replies no window lets through. `message` is a whole body of DATA."""
    blocks = Blocks()
    calls = []
    for _ in range(ASKED_CALLS):
        stream, head = blocks.open()
        calls.append(head + frame(DATA, END_STREAM, message, stream))
    return greeting(struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)) + b"".join(calls)


def attacks(message: bytes) -> dict[str, Attack]:
    """By name; `message` is the body of a good call."""
    rows = [of_flood(flood) for flood in FLOODS]
    rows += [
        Attack("preface byte by byte", lambda: PREFACE[:-1], piece_bytes=1),
        Attack("half of a preface", lambda: PREFACE[:10], connections=MANY_CONNECTIONS, holds=True),
        Attack("new connections", bytes),
        Attack("replies unread, windows of 0", lambda: unread_replies(message), connections=MANY_CONNECTIONS,
               holds=True),
        live("a quarter of the calls reset", quarter_of_calls_reset, None),
        live("PRIORITY and WINDOW_UPDATE as allowed", frames_within_bounds),
        live("empty DATA as allowed", empty_frames_within_bounds),
    ]
    return {row.name: row for row in rows}
