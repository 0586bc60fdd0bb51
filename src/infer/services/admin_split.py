"""The part of infer.v1.Admin that is about splits. Loop thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from infer.errors import NotFound
from infer.proto import message
from infer.services.call import Call, Handler, parsed, shown, unary
from infer.services.control import caller
from infer.services.views import AuditView
from infer.split_plan import DEFAULT_KEY, DEFAULT_NAME, SplitPlan, arm_of

SET, CLEAR = "split set", "split clear"


class TrafficView(Protocol):
    """What the splits come to."""

    @property
    def arms(self) -> Mapping[str, Mapping[str, Any]]:
        """Arm by model and name."""

    def missing(self, model: str, plan: SplitPlan) -> Mapping[str, str]: ...

    def entries(self, model: str, plan: SplitPlan) -> Mapping[str, Any]: ...


class SplitsView(Protocol):
    """The splits of the server."""

    @property
    def plans(self) -> Mapping[str, SplitPlan]: ...

    @property
    def traffic(self) -> TrafficView: ...

    def asked_by_rpc(self, model: str) -> bool: ...

    def taken(self, model: str) -> str:
        """Who else divides the model's requests; "": nobody."""

    async def ask(self, model: str, plan: SplitPlan | None) -> None: ...


def split_rpcs(splits: SplitsView, audit: AuditView) -> Mapping[str, Handler]:
    """The handler of each RPC by its name."""

    async def set_(call: Call) -> bytes:
        request = parsed(call.path, call.message, message("infer.v1.SplitSetRequest"))
        who, plan = caller(call), _plan(request, splits.plans.get(request.model))
        await splits.ask(request.model, plan)
        _record(SET, who, request, str(plan))
        content: bytes = message("infer.v1.SplitSetResponse")(split=_shown(splits, request.model)).SerializeToString()
        return content

    async def clear(call: Call) -> bytes:
        request = parsed(call.path, call.message, message("infer.v1.SplitClearRequest"))
        who = caller(call)
        last = _shown(splits, request.model) if request.model in splits.plans else None
        await splits.ask(request.model, None)
        _record(CLEAR, who, request, "")
        content: bytes = message("infer.v1.SplitClearResponse")(split=last).SerializeToString()
        return content

    def get(request: Any) -> Any:
        if request.model and request.model not in splits.plans:
            raise NotFound(f"model {shown(request.model)} has no split")
        return message("infer.v1.SplitGetResponse")(
            splits=[_shown(splits, model) for model in sorted(splits.plans) if request.model in ("", model)])

    def _record(event: str, who: str, request: Any, detail: str) -> None:
        audit.record(event, outcome="done", who=who, model=request.model,
                     detail=": ".join(each for each in (detail, request.reason) if each))

    return {"SplitSet": set_, "SplitClear": clear, "SplitGet": unary("infer.v1.SplitGetRequest", get)}


def _plan(request: Any, now: SplitPlan | None) -> SplitPlan:
    """What is asked for, and what it leaves as it is: a change of weights alone moves no other key."""
    rules = dict(request.rules)
    if not rules and not request.drop_rules and now is not None:
        rules = dict(now.rules)
    return SplitPlan(
        tuple(arm_of(each.name or each.to, each.to, each.weight) for each in request.variants),
        request.name or (now.name if now is not None else DEFAULT_NAME),
        request.key or (now.key if now is not None else DEFAULT_KEY), rules)


def _shown(splits: SplitsView, model: str) -> Any:
    plan = splits.plans[model]
    entries, missing = splits.traffic.entries(model, plan), splits.traffic.missing(model, plan)
    # Its arms are those of whatever divides the requests now.
    taken = splits.taken(model)
    arms = {} if taken else splits.traffic.arms.get(model, {})
    found = message("infer.v1.Split")(model=model, name=plan.name, key=plan.key, rules=plan.rules,
                                      by_rpc=splits.asked_by_rpc(model))
    for planned in plan.arms:
        arm, entry = arms.get(planned.name), entries.get(planned.name)
        variant = found.variants.add(
            name=planned.name, to=planned.place, weight=planned.weight, share=plan.share(planned),
            model=entry.name.decode() if entry is not None else "", version=entry.version if entry is not None else "",
            problem=f"the model has {taken}, which divides its requests" if taken else missing.get(planned.name, ""))
        if arm is not None:
            variant.calls, variant.succeeded, variant.rows = sum(arm.calls), arm.calls[0], arm.rows
            variant.p50_seconds, variant.p99_seconds = arm.quantile_ns(0.5) / 1e9, arm.quantile_ns(0.99) / 1e9
    return found
