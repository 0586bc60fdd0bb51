"""Every allocation of a scenario fails once, alone and with all that follow: a clean status or a closed connection,
nothing left behind, and what comes next is served.

Debug builds only: release builds do not ask. A scenario is run with the first, second, third ... allocation failing until
a run ends without one having failed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from infer._core import arena, debug
from infer._core._testing_batcher import BatcherBox, QueueBox
from infer._core._testing_slab import live_pieces
from infer._core._testing_tensor import Codec
from infer._core._testing_transport import SessionDriver, StreamDriver
from tests.support.h2_peer import (
    DATA,
    END_STREAM,
    GOAWAY,
    INITIAL_WINDOW_SIZE,
    RST_STREAM,
    ConnectionEnded,
    Peer,
    SessionLink,
    frame,
    prefixed,
    request_fields,
)
from tests.support.requests import add_raw, add_typed, infer_request, pack

pytestmark = pytest.mark.skipif(not debug.ENABLED, reason="release builds have no allocations that fail on demand")

OK, CANCELLED, RESOURCE_EXHAUSTED = 0, 1, 8
COLD = "/cold/Method"
MOST_ALLOCATIONS = 20_000


def footprint() -> Any:
    return debug.live(), arena.stats()["live_bytes"], live_pieces()


def fail_each(scenario: Callable[[], None], and_on: bool) -> int:
    """How many allocations the scenario has, each of which was made to fail."""
    for nth in range(1, MOST_ALLOCATIONS):
        before = footprint()
        debug.fail_allocation(nth, and_on)
        try:
            scenario()
        finally:
            failed = debug.fail_allocation(0)
        assert footprint() == before, f"allocation {nth} failed"
        if failed == 0:
            return nth - 1
    raise AssertionError(f"more than {MOST_ALLOCATIONS} allocations")


both_ways = pytest.mark.parametrize("and_on", [False, True], ids=["one", "and all that follow"])


# A connection.

class Connection:
    """A session and its peer. Once the session wants to end, or cannot send, nothing more goes in or out."""

    def __init__(self, **settings: int) -> None:
        self.driver: SessionDriver | None = None
        self.alive = True
        self.codes: dict[int, int] = {}

    def open(self, window: int = 1 << 20) -> bool:
        try:
            self.driver = SessionDriver({COLD: "handler"})
        except MemoryError:
            self.alive = False
            return False
        self.peer = Peer(self, settings=[(INITIAL_WINDOW_SIZE, window)])
        return True

    # What the peer needs of a transport.

    def sendall(self, data: bytes) -> None:
        if self.alive and not self.driver.feed(data):
            self.lose()

    def recv(self, size: int) -> bytes:
        if not self.alive:
            return b""
        try:
            return self.driver.output()
        except MemoryError:
            self.lose()
            return b""

    def settimeout(self, seconds: float | None) -> None:
        pass

    def lose(self) -> None:
        self.alive = False
        self.driver.close()

    def close(self) -> None:
        if self.driver is None:
            return
        self.driver.close()
        assert self.driver.sink.live == []
        assert (self.driver.streams, self.driver.buffered_bytes, self.driver.outbound_bytes) == (0, 0, 0)
