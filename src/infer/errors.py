"""The one tree of exceptions, each with the gRPC status code it maps to."""

from __future__ import annotations

# By number.
STATUS_NAMES = ("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
                "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
                "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED")


class InferError(Exception):
    """An error that a user can cause or must act on.

    `code` is the gRPC status code (an int, 1..16) that a caller over the wire sees; the message says what happened,
    where, what was expected, what came and what to do.
    """

    code = 13

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def status(self) -> str:
        """The name of `code`."""
        return STATUS_NAMES[self.code]


class Cancelled(InferError):
    """The caller ended the call (CANCELLED)."""

    code = 1


class InvalidArgument(InferError):
    """The request is wrong, whatever the server's state (INVALID_ARGUMENT)."""

    code = 3


class DeadlineExceeded(InferError):
    """The deadline passed before the call ended (DEADLINE_EXCEEDED)."""

    code = 4


class NotFound(InferError):
    """No such model or version (NOT_FOUND)."""

    code = 5


class PermissionDenied(InferError):
    """The caller is known and may not do this (PERMISSION_DENIED)."""

    code = 7


class ResourceExhausted(InferError):
    """A bound was reached: queue, bytes, message size (RESOURCE_EXHAUSTED)."""

    code = 8


class FailedPrecondition(InferError):
    """The server is not in the state that the request needs (FAILED_PRECONDITION)."""

    code = 9


class Unimplemented(InferError):
    """The method or feature does not exist here (UNIMPLEMENTED)."""

    code = 12


class Internal(InferError):
    """Our fault (INTERNAL). The text that goes to clients is generic; the log has the rest."""

    code = 13


class Unavailable(InferError):
    """Not ready, draining or gone; a retry elsewhere may succeed (UNAVAILABLE)."""

    code = 14


class Unauthenticated(InferError):
    """The caller did not say, or could not prove, who it is (UNAUTHENTICATED)."""

    code = 16


_BY_CODE: dict[int, type[InferError]] = {
    kind.code: kind for kind in (
        Cancelled, InvalidArgument, DeadlineExceeded, NotFound, PermissionDenied, ResourceExhausted, FailedPrecondition,
        Unimplemented, Internal, Unavailable, Unauthenticated)}


def error_of(code: int, message: str) -> InferError:
    """The error for a status that came over the wire, of the class that its code has."""
    return _BY_CODE.get(code, InferError)(message, code)


class ConfigError(InferError):
    """Settings or a model repository that cannot be served as written; lists every problem with its place."""

    code = 3


class ModelLoadError(InferError):
    """A model could not be loaded; says which, why and what to do (FAILED_PRECONDITION)."""

    code = 9


class StateError(InferError):
    """The state directory cannot be used; says what is wrong with it and what to do (FAILED_PRECONDITION)."""

    code = 9
