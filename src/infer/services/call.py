"""What a transport and a cold handler agree on, and what a service sees of the server.

A handler runs on the loop thread. It returns the encoded reply, calls `abort`, or lets an InferError through, which a
transport answers with its code and message; any other exception is a bug: INTERNAL with a generic text, and a log line.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from infer.errors import Internal


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

    def time_remaining(self) -> float | None:
        """Seconds to the deadline, None without one."""

    def abort(self, code: int, message: str) -> NoReturn:
        """Ends the call with a status other than OK; raises InferError."""


Handler = Callable[[Call], Awaitable[bytes]]
Service = Mapping[str, Handler]


class TensorView(Protocol):
    """A declared input or output."""

    @property
    def name(self) -> str: ...

    @property
    def datatype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...] | None:
        """-1 for a dimension that varies; None where the model does not say the rank."""

    @property
    def served(self) -> bool: ...


class VersionView(Protocol):
    """A servable version of a model."""

    @property
    def name(self) -> bytes: ...

    @property
    def version(self) -> str: ...

    @property
    def inputs(self) -> Sequence[TensorView]: ...

    @property
    def outputs(self) -> Sequence[TensorView]: ...

    @property
    def properties(self) -> Mapping[str, str]: ...


class RoutesView(Protocol):
    """Which models lead where, at one moment."""

    def lookup(self, name: str, version: str) -> VersionView:
        """The version, the highest one for an empty `version`. Raises InferError with the code of WIRE 4.4."""

    def models(self) -> Sequence[tuple[str, Sequence[VersionView]]]: ...


class ServerView(Protocol):
    """The server's state, read on the loop thread."""

    @property
    def live(self) -> bool: ...

    @property
    def ready(self) -> bool: ...

    @property
    def routes(self) -> RoutesView: ...


def decoded(call: Call, kind: Any) -> Any:
    """The request as a message of the class `kind`; INTERNAL where it is malformed."""
    from google.protobuf.message import DecodeError

    try:
        return kind.FromString(call.message)
    except DecodeError:
        raise Internal(f"{call.path}: the request is not a valid {kind.DESCRIPTOR.full_name}") from None
