"""The model repository: what it holds, and, in explicit mode, loads, unloads and label moves (WIRE 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infer.errors import FailedPrecondition
from infer.proto import message
from infer.services.call import Call, Handler, parsed, unary
from infer.services.control import EXPLICIT, READY, IndexRow, caller
from infer.services.overrides import LabelMove, ensure_name, ensure_one_repository, load_request, unload_request
from infer.services.server_view import ServerView

NO_CONTROL = ("model control is not enabled: the server is in mode {mode!r}; start it with --model-control-mode "
              "explicit to load, unload and label models by RPC")


def repository_rpcs(server: ServerView) -> Mapping[str, Handler]:
    """RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload by method."""

    def index(request: Any) -> Any:
        reply = message("inference.RepositoryIndexResponse")()
        # There is one repository, and it has no name: another's is empty.
        if request.repository_name:
            return reply
        for row in sorted(server.repository.control.index(), key=in_order):
            if row.state == READY or not request.ready:
                reply.models.add(name=row.model, version=row.version, state=row.state, reason=row.reason)
        return reply

    async def load(call: Call) -> bytes:
        request = _request(call, "Load")
        asked = load_request(request.model_name, request.parameters)
        if isinstance(asked, LabelMove):
            await server.repository.label(request.model_name, asked.label, asked.version, caller(call))
        else:
            await server.repository.load(request.model_name, asked.config, asked.files, caller(call))
        return b""

    async def unload(call: Call) -> bytes:
        request = _request(call, "Unload")
        dependents = unload_request(request.model_name, request.parameters)
        await server.repository.unload(request.model_name, dependents, caller(call))
        return b""

    def _request(call: Call, verb: str) -> Any:
        mode = server.repository.control.mode
        # Before the message is read: it may be as large as a model.
        if mode != EXPLICIT:
            raise FailedPrecondition(NO_CONTROL.format(mode=mode))
        request = parsed(call.path, call.message, message(f"inference.RepositoryModel{verb}Request"))
        ensure_one_repository(request.repository_name)
        ensure_name(request.model_name)
        return request

    return {
        "RepositoryIndex": unary("inference.RepositoryIndexRequest", index),
        "RepositoryModelLoad": load,
        "RepositoryModelUnload": unload,
    }


def in_order(row: IndexRow) -> tuple[str, int]:
    """By name, then by number."""
    return row.model, int(row.version or 0)
