"""The part of infer.v1.Admin that is about experiments. Loop thread."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from infer.experiments import ExperimentSettings, parse_experiment_guardrails
from infer.outcome_metrics import parse_metrics
from infer.proto import message
from infer.services.call import Call, Handler, parsed, unary
from infer.services.control import caller
from infer.split_plan import DEFAULT_KEY, arm_of


class ExperimentsView(Protocol):
    """The experiments of the server: traffic.experiments."""

    async def start(self, model: str, settings: ExperimentSettings, *, name: str = "", who: str, reason: str = ""
                    ) -> Any: ...

    async def stop(self, model: str, *, who: str, reason: str = "") -> Mapping[str, Any]: ...

    def running(self, model: str = "") -> Mapping[str, Any]: ...

    def past(self, model: str = "") -> Sequence[Mapping[str, Any]]: ...

    async def report(self, model: str, name: str = "") -> Mapping[str, Any]: ...


def experiment_rpcs(experiments: ExperimentsView) -> Mapping[str, Handler]:
    """The handler of each RPC by its name."""

    async def start(call: Call) -> bytes:
        request = parsed(call.path, call.message, message("infer.v1.ExperimentStartRequest"))
        experiment = await experiments.start(request.model, settings_in(request), name=request.name, who=caller(call),
                                             reason=request.reason)
        content: bytes = message("infer.v1.ExperimentStartResponse")(
            experiment=running_of(request.model, experiment)).SerializeToString()
        return content

    async def stop(call: Call) -> bytes:
        request = parsed(call.path, call.message, message("infer.v1.ExperimentStopRequest"))
        report = await experiments.stop(request.model, who=caller(call), reason=request.reason)
        content: bytes = message("infer.v1.ExperimentStopResponse")(report=json.dumps(report)).SerializeToString()
        return content

    async def report(call: Call) -> bytes:
        request = parsed(call.path, call.message, message("infer.v1.ExperimentReportRequest"))
        found = await experiments.report(request.model, request.name)
        content: bytes = message("infer.v1.ExperimentReportResponse")(report=json.dumps(found)).SerializeToString()
        return content

    def status(request: Any) -> Any:
        return message("infer.v1.ExperimentStatusResponse")(experiments=[
            running_of(model, each) for model, each in experiments.running(request.model).items()])

    def history(request: Any) -> Any:
        return message("infer.v1.ExperimentHistoryResponse")(experiments=[
            ended_of(each) for each in experiments.past(request.model)])

    return {"ExperimentStart": start, "ExperimentStop": stop, "ExperimentReport": report,
            "ExperimentStatus": unary("infer.v1.ExperimentStatusRequest", status),
            "ExperimentHistory": unary("infer.v1.ExperimentHistoryRequest", history)}


def settings_in(request: Any) -> ExperimentSettings:
    """Raises InvalidArgument."""
    said = {setting: getattr(request, field) for field, setting in (
        ("min_samples", "min_samples"), ("alpha", "alpha"), ("window_seconds", "window_s"),
        ("min_effect", "min_effect")) if request.HasField(field)}
    return ExperimentSettings(
        tuple(arm_of(each.name or each.to, each.to, each.weight) for each in request.arms),
        parse_metrics(request.metrics), request.key or DEFAULT_KEY,
        parse_experiment_guardrails(request.guardrails), **said)


def running_of(model: str, experiment: Any) -> Any:
    settings, decision = experiment.settings, experiment.decision()
    found = message("infer.v1.Experiment")(
        model=model, name=experiment.name, state=experiment.state, started=experiment.started, ended=experiment.ended,
        who=experiment.who, reason=experiment.reason, metrics=[str(each) for each in settings.metrics],
        decision=decision.result, winner=decision.winner, decision_reason=decision.reason)
    for arm, units in zip(settings.arms, experiment.units, strict=True):
        found.arms.add(name=arm.name, to=arm.place, weight=arm.weight, units=int(units))
    return found


def ended_of(report: Mapping[str, Any]) -> Any:
    decision = report["decision"]
    found = message("infer.v1.Experiment")(
        model=report["model"], name=report["experiment"], state=report["state"], started=report["started"],
        ended=report["ended"] or 0.0, who=report["who"], reason=report["reason"],
        metrics=[each["name"] for each in report["metrics"]], decision=decision["result"],
        winner=decision["winner"] or "", decision_reason=decision["reason"])
    for arm, units in zip(report["arms"], report["sample_ratio"]["units"], strict=True):
        found.arms.add(name=arm["name"], to=arm["to"], weight=arm["weight"], units=int(units))
    return found
