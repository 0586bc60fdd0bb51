"""The part of infer.v1.Admin that is about shadows. Loop thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from infer.errors import NotFound
from infer.proto import message
from infer.services.call import Call, Handler, parsed, shown, unary
from infer.services.control import caller
from infer.services.views import AuditView
from infer.shadow_plan import ATOL, RTOL, ShadowPlan

SET, CLEAR = "shadow start", "shadow stop"
_COUNTS = ("picked", "agreed", "differed", "failed", "waiting")
_OUTPUT = ("compared", "differing", "incomparable", "elements", "unequal", "top1", "top1_same", "max_abs", "max_rel")
_HISTOGRAMS = ("absolute", "relative", "cosine_distance")


class PoolView(Protocol):
    """What all shadows share."""

    @property
    def copies(self) -> int: ...

    @property
    def bytes(self) -> int: ...

    @property
    def max_copies(self) -> int: ...

    @property
    def max_bytes(self) -> int: ...


class ShadowsView(Protocol):
    """The shadows of the server."""

    @property
    def pool(self) -> PoolView: ...

    @property
    def plans(self) -> Mapping[str, ShadowPlan]: ...

    @property
    def running(self) -> Mapping[str, Any]: ...

    @property
    def problems(self) -> Mapping[str, str]: ...

    def asked_by_rpc(self, model: str) -> bool: ...

    async def ask(self, model: str, plan: ShadowPlan | None) -> None: ...


def shadow_rpcs(shadows: ShadowsView, audit: AuditView) -> Mapping[str, Handler]:
    """The handler of each RPC by its name."""

    async def set_(call: Call) -> bytes:
        request = parsed(call.path, call.message, message("infer.v1.ShadowSetRequest"))
        plan = ShadowPlan(request.to, request.fraction or 1.0,
                          request.rtol if request.HasField("rtol") else RTOL,
                          request.atol if request.HasField("atol") else ATOL)
        who = caller(call)
        await shadows.ask(request.model, plan)
        audit.record(SET, outcome="done", who=who, model=request.model, version=request.to,
                     detail=_with_reason(str(plan), request.reason))
        content: bytes = message("infer.v1.ShadowSetResponse")(
            shadow=_report(shadows, request.model)).SerializeToString()
        return content

    async def clear(call: Call) -> bytes:
        request = parsed(call.path, call.message, message("infer.v1.ShadowClearRequest"))
        who = caller(call)
        last = _report(shadows, request.model) if request.model in shadows.plans else None
        await shadows.ask(request.model, None)
        audit.record(CLEAR, outcome="done", who=who, model=request.model,
                     version=last.version if last is not None else "", detail=_with_reason("", request.reason))
        content: bytes = message("infer.v1.ShadowClearResponse")(shadow=last).SerializeToString()
        return content

    def report(request: Any) -> Any:
        if request.model and request.model not in shadows.plans:
            raise NotFound(f"model {shown(request.model)} has no shadow")
        pool = shadows.pool
        return message("infer.v1.ShadowReportResponse")(
            shadows=[_report(shadows, model) for model in sorted(shadows.plans) if request.model in ("", model)],
            copies=pool.copies, bytes=pool.bytes, max_copies=pool.max_copies, max_bytes=pool.max_bytes)

    return {"ShadowSet": set_, "ShadowClear": clear, "ShadowReport": unary("infer.v1.ShadowReportRequest", report)}


def _with_reason(detail: str, reason: str) -> str:
    return f"{detail}{': ' if detail and reason else ''}{reason}"


def _report(shadows: ShadowsView, model: str) -> Any:
    plan, running = shadows.plans[model], shadows.running.get(model)
    found = message("infer.v1.Shadow")(
        model=model, to=plan.to, fraction=plan.fraction, rtol=plan.rtol, atol=plan.atol,
        by_rpc=shadows.asked_by_rpc(model), problem=shadows.problems.get(model, ""))
    if running is None:
        return found
    found.version = running.target.version
    for name in _COUNTS:
        setattr(found, name, getattr(running, name))
    found.dropped.update({why: count for why, count in running.drops().items() if count})
    found.failure = running.failure or ""
    for name, compared in running.outputs_compared().items():
        found.outputs.add(name=name, **{count: compared[count] for count in _OUTPUT},
                          **{kind: message("infer.v1.DifferenceHistogram")(**compared[kind]) for kind in _HISTOGRAMS})
    for badness, identity, primary, own in running.worst:
        found.worst.add(badness=badness, id=identity, primary=primary or b"", shadow=own or b"")
    return found
