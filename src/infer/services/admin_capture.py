"""The part of infer.v1.Admin that is about captures. Loop thread."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from infer.capture_plan import MAX_BYTES, MAX_MESSAGE_BYTES, PER_SECOND, CapturePlan
from infer.errors import NotFound
from infer.proto import message
from infer.services.call import Call, Handler, parsed, shown, unary
from infer.services.control import caller
from infer.services.views import AuditView

START, STOP = "capture start", "capture stop"


class CapturesView(Protocol):
    """The captures of the server."""

    @property
    def running(self) -> Mapping[str, Any]: ...

    async def start(self, model: str, plan: CapturePlan) -> Any: ...

    def stop(self, model: str) -> Any: ...


def capture_rpcs(captures: CapturesView, audit: AuditView) -> Mapping[str, Handler]:
    """The handler of each RPC by its name."""

    async def start(call: Call) -> bytes:
        request = parsed(call.path, call.message, message("infer.v1.CaptureStartRequest"))
        plan = CapturePlan(
            request.name, request.fraction or 1.0, request.per_second if request.HasField("per_second") else PER_SECOND,
            request.max_bytes or MAX_BYTES, request.max_message_bytes or MAX_MESSAGE_BYTES, tuple(request.redact))
        who = caller(call)
        running = await captures.start(request.model, plan)
        audit.record(START, outcome="done", who=who, model=request.model,
                     detail=": ".join(each for each in (str(plan), request.reason) if each))
        content: bytes = message("infer.v1.CaptureStartResponse")(capture=_status(running)).SerializeToString()
        return content

    async def stop(call: Call) -> bytes:
        request = parsed(call.path, call.message, message("infer.v1.CaptureStopRequest"))
        who = caller(call)
        running = captures.stop(request.model)
        await asyncio.wrap_future(running.closed)
        audit.record(STOP, outcome="done", who=who, model=request.model,
                     detail=": ".join(each for each in (str(running.path), request.reason) if each))
        content: bytes = message("infer.v1.CaptureStopResponse")(capture=_status(running)).SerializeToString()
        return content

    def status(request: Any) -> Any:
        if request.model and request.model not in captures.running:
            raise NotFound(f"calls of model {shown(request.model)} are not captured")
        return message("infer.v1.CaptureStatusResponse")(captures=[
            _status(running) for model, running in sorted(captures.running.items()) if request.model in ("", model)])

    return {"CaptureStart": start, "CaptureStop": stop,
            "CaptureStatus": unary("infer.v1.CaptureStatusRequest", status)}


def _status(running: Any) -> Any:
    plan, capture = running.plan, running.capture
    return message("infer.v1.Capture")(
        model=running.model, path=str(running.path), fraction=plan.fraction, per_second=plan.per_second,
        max_bytes=plan.max_bytes, max_message_bytes=plan.max_message_bytes, redact=plan.redact, seen=capture.seen,
        taken=capture.taken, records=running.records, bytes=running.bytes, problem=running.problem,
        dropped={why: count for why, count in capture.drops().items() if count})
