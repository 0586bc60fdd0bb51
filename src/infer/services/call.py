"""What a transport and a cold handler agree on.

A handler runs on the loop thread. It returns the encoded reply, calls `abort`, or lets an InferError through, which a
transport answers with its code and message; any other exception is a bug: INTERNAL with a generic text, and a log line.
The handler of a stream ends its call by returning; it is cancelled when the caller is gone or the deadline has passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from infer.errors import Internal
from infer.proto import message

SHOWN_CHARACTERS = 64

# Metadata of a reply, keys in lower case: str values of printable ASCII, bytes for keys that end in -bin.
Pairs = Iterable[tuple[str, str | bytes]]


class Call(Protocol):
    """One unary call, as its transport shows it."""

    @property
    def path(self) -> str: ...

    @property
    def message(self) -> bytes:
        """The request, without prefix and inflated."""

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """The caller's own, keys in lower case; bytes where the key ends in -bin."""

    @property
    def peer(self) -> str: ...

    @property
    def identity(self) -> str:
        """Whom the client's certificate names; "" where clients are not asked for one."""

    def time_remaining(self) -> float | None:
        """Seconds to the deadline, None without one."""

    def send_initial_metadata(self, pairs: Pairs) -> None:
        """Metadata ahead of the reply, once a call; goes with the reply's head. ValueError for what cannot be sent."""

    def set_trailing_metadata(self, pairs: Pairs) -> None:
        """Metadata beside the status, whatever that will be; the last call counts. ValueError for what cannot be sent.

        `grpc-status-details-bin` is set this way.
        """

    def abort(self, code: int, message: str) -> NoReturn:
        """Ends the call with a status other than OK; raises InferError."""


class StreamCall(Protocol):
    """One call with a stream of messages either way, as its transport shows it."""

    @property
    def path(self) -> str: ...

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """As a Call's."""

    @property
    def peer(self) -> str: ...

    def time_remaining(self) -> float | None:
        """Seconds to the deadline, None without one."""

    def send_initial_metadata(self, pairs: Pairs) -> None:
        """As a Call's, and it goes out at once; before the first message is written."""

    def set_trailing_metadata(self, pairs: Pairs) -> None:
        """As a Call's."""

    def abort(self, code: int, message: str) -> NoReturn:
        """Ends the call with a status other than OK; raises InferError."""

    async def read(self) -> bytes | None:
        """The next message, None after the client's half-close."""

    async def write(self, message: bytes) -> None:
        """Sends a message; waits while the client's window is shut."""


Handler = Callable[[Call], Awaitable[bytes]]


@dataclass(frozen=True)
class Streaming:
    """Marks the handler of a stream in a table.

    One whose client sends exactly one message is called once that has come; for none, or a second one, the transport
    answers UNIMPLEMENTED.
    """

    handler: Callable[[StreamCall], Awaitable[None]]
    client_streams: bool = True


# By path.
Service = Mapping[str, Handler | Streaming]


class Changes:
    """Counts changes of the server's state, and wakes those who watch it. Loop thread only."""

    def __init__(self) -> None:
        self.count = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Something may have changed."""
        self.count += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, seen: int) -> None:
        """Until `count` is above `seen`, its value from before the state was read."""
        while self.count <= seen:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)


def shown(text: str) -> str:
    """What a caller sent, for a message to it: quoted, and cut where it is long."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")


def parsed(path: str, content: bytes, kind: Any) -> Any:
    """A request as a message of the class `kind`; INTERNAL where it is malformed."""
    from google.protobuf.message import DecodeError

    try:
        return kind.FromString(content)
    except DecodeError:
        raise Internal(f"{path}: the request is not a valid {kind.DESCRIPTOR.full_name}") from None


def unary(kind: str, answer: Callable[[Any], Any]) -> Handler:
    """A handler from a function that turns a message of the class named `kind` into the reply's message."""

    async def handle(call: Call) -> bytes:
        reply: bytes = answer(parsed(call.path, call.message, message(kind))).SerializeToString()
        return reply

    return handle


def to_its_end(handler: Handler) -> Handler:
    """One that goes on where its caller gives up: what it changes is kept, applied and in the audit log, or none of it.
    It asks the call for what it needs before it waits for anything."""
    under_way: set[asyncio.Task[bytes]] = set()

    def ended(task: asyncio.Task[bytes]) -> None:
        under_way.discard(task)
        if not task.cancelled():
            task.exception()

    async def carried_out(call: Call) -> bytes:
        return await handler(call)

    async def handle(call: Call) -> bytes:
        task = asyncio.get_running_loop().create_task(carried_out(call))
        under_way.add(task)
        task.add_done_callback(ended)
        return await asyncio.shield(task)

    return handle
