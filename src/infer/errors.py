"""The one tree of exceptions, each with the gRPC status code it maps to."""

from __future__ import annotations


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


class InvalidArgument(InferError):
    """The request is wrong, whatever the server's state (INVALID_ARGUMENT)."""

    code = 3


class NotFound(InferError):
    """No such model or version (NOT_FOUND)."""

    code = 5


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


class ConfigError(InferError):
    """Settings or a model repository that cannot be served as written; lists every problem with its place."""

    code = 3


class ModelLoadError(InferError):
    """A model could not be loaded; says which, why and what to do (FAILED_PRECONDITION)."""

    code = 9
