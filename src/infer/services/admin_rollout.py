"""The part of infer.v1.Admin that is about rollouts. Loop thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from infer.errors import Internal, InvalidArgument, NotFound, Unavailable
from infer.gate_plan import parse_gates
from infer.proto import message
from infer.rollouts import RolloutSettings, parse_guardrails
from infer.services.call import Call, Changes, Handler, StreamCall, Streaming, parsed, shown, to_its_end
from infer.services.control import caller

PREFIX = "/infer.v1.Admin/Rollout"
VERBS = ("pause", "resume", "promote", "abort")


class RolloutsView(Protocol):
    """The rollouts of the server: traffic.controller."""

    async def start(self, model: str, *, to: int, baseline: int = 0, settings: RolloutSettings | None = None, who: str,
                    reason: str = "") -> Any:
        """The rollout, once it is kept. Raises InferError."""

    async def change(self, model: str, verb: str, *, who: str, reason: str = "", all_of_it: bool = False) -> Any: ...

    def rollouts(self, model: str = "") -> Mapping[str, Any]: ...

    def past(self, model: str) -> Sequence[Any]: ...

    def settings_of(self, model: str) -> RolloutSettings: ...

    async def settled(self) -> None:
        """Once what was decided is kept, and has taken effect: nothing else is told."""


def rollout_service(rollouts: RolloutsView, changes: Changes, stopping: Callable[[], bool]
                    ) -> Mapping[str, Handler | Streaming]:
    """The handler of each RPC by its path. `changes` is notified of each change of a rollout, and when the server is
    `stopping`."""

    async def start(call: Call) -> bytes:
        request = parsed(call.path, call.message, message("infer.v1.RolloutStartRequest"))
        if not request.to:
            raise InvalidArgument("the request names no version to roll out: set `to`")
        rollout = await rollouts.start(
            request.model, to=request.to, baseline=getattr(request, "from"), reason=request.reason, who=caller(call),
            settings=settings_in(request, rollouts.settings_of(request.model)))
        content: bytes = status_of(request.model, rollout).SerializeToString()
        return content

    def change(verb: str) -> Handler:
        async def handle(call: Call) -> bytes:
            request = parsed(call.path, call.message, message("infer.v1.RolloutChangeRequest"))
            rollout = await rollouts.change(request.model, verb, who=caller(call), reason=request.reason,
                                            all_of_it=request.all)
            content: bytes = status_of(request.model, rollout).SerializeToString()
            return content

        return handle

    async def status(call: Call) -> bytes:
        model = parsed(call.path, call.message, message("infer.v1.RolloutRequest")).model
        await rollouts.settled()
        content: bytes = message("infer.v1.Rollouts")(rollouts=[
            status_of(name, each, history=False) for name, each in found(model).items()]).SerializeToString()
        return content

    async def history(call: Call) -> bytes:
        model = parsed(call.path, call.message, message("infer.v1.RolloutRequest")).model
        await rollouts.settled()
        content: bytes = message("infer.v1.Rollouts")(rollouts=[
            status_of(name, each) for name, last in found(model).items()
            for each in (*rollouts.past(name), last)]).SerializeToString()
        return content

    def found(model: str) -> Mapping[str, Any]:
        chosen = rollouts.rollouts(model)
        if model and not chosen:
            raise NotFound(f"model {shown(model)} has had no rollout")
        return chosen

    async def watch(call: StreamCall) -> None:
        content = await call.read()
        if content is None:
            raise Internal(f"{call.path}: the call ended without its request")
        model = parsed(call.path, content, message("infer.v1.RolloutRequest")).model
        last: dict[str, bytes] = {}
        while True:
            seen = changes.count
            await rollouts.settled()
            for name, rollout in found(model).items():
                told = status_of(name, rollout).SerializeToString()
                if told != last.get(name):
                    last[name] = told
                    await call.write(told)
            if stopping():
                raise Unavailable("the server is stopping; watch another replica")
            await changes.wait(seen)

    return {
        f"{PREFIX}Start": to_its_end(start),
        **{f"{PREFIX}{verb.capitalize()}": to_its_end(change(verb)) for verb in VERBS},
        f"{PREFIX}Status": status,
        f"{PREFIX}History": history,
        f"{PREFIX}Watch": Streaming(watch, client_streams=False),
    }


def settings_in(request: Any, settings: RolloutSettings) -> RolloutSettings:
    """What the request says over the model's settings. Raises InvalidArgument."""
    said: dict[str, Any] = {}
    if request.steps:
        said["steps"] = tuple(request.steps)
    if request.guardrails:
        said["guardrails"] = parse_guardrails(request.guardrails)
    if request.gates:
        said["gates"] = parse_gates(request.gates)
    if request.HasField("every_seconds"):
        said["every_s"] = request.every_seconds
    said |= {name: getattr(request, name) for name in _PLAIN if request.HasField(name)}
    return replace(settings, **said)


_PLAIN = ("min_samples", "alpha", "latency_slack_ms", "rtol", "atol", "shadow_fraction", "on_restart")


def status_of(model: str, rollout: Any, *, history: bool = True) -> Any:
    """As infer.v1.Rollout."""
    plan, verdict = rollout.plan, rollout.verdict
    reply = message("infer.v1.Rollout")(
        model=model, to=plan.to, state=rollout.state, weight=rollout.weight, steps=plan.steps,
        every_seconds=plan.settings.every_s, since=rollout.since, result=verdict.result, reason=verdict.reason,
        samples=verdict.samples, **{"from": plan.baseline})
    for each in verdict.findings:
        reply.guardrails.add(**vars(each))
    if rollout.ended:
        reply.reason = rollout.history[-1].reason
    for event in rollout.history if history else ():
        reply.history.add(time=event.time, event=event.event, weight=event.weight, who=event.who, reason=event.reason)
    return reply
