"""The model repository: what it holds. Its models are those that the server was started with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from infer.errors import FailedPrecondition, InferError
from infer.proto import message
from infer.services.call import Handler, ServerView, unary

UNAVAILABLE = 14
NO_CONTROL = "model control is not enabled: the server serves the models that it was started with; start it with others"


def repository_rpcs(server: ServerView) -> Mapping[str, Handler]:
    """RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload by method."""

    def index(request: Any) -> Any:
        reply = message("inference.RepositoryIndexResponse")()
        # There is one repository, and it has no name: another's is empty.
        if request.repository_name:
            return reply
        for name, versions in sorted(server.routes.models(), key=lambda model: model[0]):
            for entry in sorted(versions, key=lambda entry: int(entry.version)):
                reply.models.add(name=name, version=entry.version, state="READY")
            if not versions and not request.ready:
                state, reason = _unready(server, name)
                reply.models.add(name=name, state=state, reason=reason)
        return reply

    def refuse(_: Any) -> NoReturn:
        raise FailedPrecondition(NO_CONTROL)

    return {
        "RepositoryIndex": unary("inference.RepositoryIndexRequest", index),
        "RepositoryModelLoad": unary("inference.RepositoryModelLoadRequest", refuse),
        "RepositoryModelUnload": unary("inference.RepositoryModelUnloadRequest", refuse),
    }


def _unready(server: ServerView, name: str) -> tuple[str, str]:
    """State and reason of a model that has no servable version."""
    try:
        server.routes.lookup(name, "")
    except InferError as error:
        return "LOADING" if error.code == UNAVAILABLE else "UNAVAILABLE", error.message
    return "UNKNOWN", ""
