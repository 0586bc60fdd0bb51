"""Experiments as they happen: looks at outcomes and calls each second, keeps what has come, ends what a guardrail ends.

Loop thread. That an experiment has begun or ended is in the store before its split comes or goes, as far as the disk
answers within `KEEP_SECONDS`. Sums of outcomes are handed to the store at each look that finds new ones: a server that
is killed loses the outcomes since the last one, about a second of them. What requests and units it remembered goes with
it. A report that has ended is kept as it was then.

What the settings ask for begins by itself, once: the record of a model has the name of what they asked for, also when
its report is not kept any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from infer.errors import FailedPrecondition, InferError, NotFound
from infer.experiments import ExperimentPlan, ExperimentSettings
from infer.split_plan import SplitPlan
from infer.traffic.experiment import ITSELF, NOT_ENOUGH, RESULTS, Experiment
from infer.traffic.looks import Counts, counted, since
from infer.traffic.outcomes import Outcomes
from infer.traffic.report import report_of
from infer.traffic.seen import Seen
from infer.traffic.views import AuditView, StoreView

log = logging.getLogger("infer.traffic")

# The first and the last are of a model each, whose name follows: reports are long.
RECORD, SUMS, BLOCKS = "experiments of ", "experiment sums", "experiment blocks of "
EVENT = "experiment"
# Who begins what the settings ask for.
SETTINGS = "settings"
KEEP_SECONDS = 1.0
# Reports of former experiments of a model that are kept.
MAX_PAST = 16
OK = 0


class ModelsView(Protocol):
    """The models of the server."""

    def taken(self, model: str) -> str:
        """Who else divides the model's requests; "": nobody."""

    def ensure_served(self, model: str, plan: SplitPlan) -> None:
        """Raises NotFound and FailedPrecondition where an arm leads to nothing, or to other inputs."""

    def set_split(self, model: str, plan: SplitPlan | None) -> None:
        """None: as it is asked for otherwise."""

    def arms(self, model: str) -> Mapping[str, Any]:
        """An Arm by name."""

    def clump(self, model: str, arm: str) -> float:
        """Calls of a batch of what the arm leads to, on average."""

    def missing(self, model: str) -> Mapping[str, str]:
        """The arms that lead to nothing served, and why."""


@dataclass
class _Model:
    experiment: Experiment | None
    past: list[dict[str, Any]]      # reports
    number: int                     # of experiments so far
    counts: dict[str, Counts] = field(default_factory=dict)
    clumps: dict[str, float] = field(default_factory=dict)
    kept: Any = None                # sums, as they were given to the store
    results: dict[str, int] = field(default_factory=dict)       # of outcomes, before it began
    decision: str = NOT_ENOUGH      # as of the last look
    ending: bool = False            # by itself
    written: str = ""               # name of the last one that the settings asked for and that has begun
    trouble: str = ""               # why it cannot be looked at, or ended, as was said last

    def to_record(self) -> dict[str, Any]:
        return {"experiment": None if self.experiment is None else self.experiment.to_record(), "past": self.past,
                "number": self.number, "written": self.written}


class Experiments:
    """One per server. `now` gives seconds since the epoch; `changed` hears of each beginning and end."""

    def __init__(self, models: ModelsView, outcomes: Outcomes, store: StoreView, audit: AuditView, *,
                 now: Callable[[], float], changed: Callable[[], None] = lambda: None) -> None:
        self._models, self._outcomes, self._store, self._audit = models, outcomes, store, audit
        self._now, self._changed = now, changed
        self._tasks: set[asyncio.Task[Any]] = set()
        self.ended: dict[str, int] = {}         # experiments by what they came to
        self.looks_failed: dict[str, int] = {}  # looks that could not be had, by model
        self._models_by_name: dict[str, _Model] = {}
        self._written: Mapping[str, ExperimentPlan] = {}
        self._warned: dict[str, str] = {}       # of what is written, by model
        records = store.records()
        sums = records.get(SUMS, {})
        for key, record in records.items():
            if not key.startswith(RECORD):
                continue
            model, running = key.removeprefix(RECORD), record["experiment"]
            try:
                experiment = running and Experiment.from_record(running, sums.get(model, {}),
                                                                records.get(BLOCKS + model, {}))
            except InferError as error:
                log.error("model %r: its experiment does not go on: %s", model, error.message, extra={"model": model})
                experiment = None
            self._models_by_name[model] = _Model(experiment, list(record["past"]), int(record["number"]),
                                                  written=record.get("written", ""))

    # The life of a server.

    def restore(self) -> None:
        """Experiments that were under way go on. Before calls come."""
        for model, state in self._models_by_name.items():
            if state.experiment is not None:
                if taken := self._models.taken(model):
                    log.warning("model %r: its experiment %r goes on; %s counts again once that has ended", model,
                                state.experiment.name, taken, extra={"model": model})
                settings = state.experiment.settings
                self._outcomes.watch(model, settings.metrics, window_s=settings.window_s, sums=state.experiment.sums)
                self._begin(model, state.experiment)

    def set_written(self, written: Mapping[str, ExperimentPlan]) -> None:
        """What the settings ask for, by model. It begins at the next look at which it can."""
        self._written = written
        self._warned = {model: text for model, text in self._warned.items() if model in written}

    def step(self) -> None:
        """Looks at every experiment, and for those that are to begin by themselves."""
        for model, state in list(self._models_by_name.items()):
            if state.experiment is not None:
                try:
                    self._look(model, state, state.experiment)
                except Exception as error:
                    # Other models' looks are not to end with it.
                    self._failed(model, state, error)
        for model, plan in self._written.items():
            if self._is_due(model, plan):
                self._run(self._begin_by_itself(model))

    async def settled(self) -> None:
        """Once what was decided is kept, and has taken effect."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def taken(self, model: str) -> str:
        """What of it divides the model's requests; "" for nothing."""
        state = self._models_by_name.get(model)
        return "" if state is None or state.experiment is None else f"experiment {state.experiment.name!r}"

    # What people ask for.

    async def start(self, model: str, settings: ExperimentSettings, *, name: str = "", who: str, reason: str = ""
                    ) -> Experiment:
        """Once it is kept and in effect. Raises InferError."""
        if taken := self.taken(model) or self._models.taken(model):
            raise FailedPrecondition(f"model {model!r} has {taken}, which divides its requests; end that first")
        state = self._models_by_name.get(model) or _Model(None, [], 0)
        name = name or f"experiment-{state.number + 1}"
        self._models.ensure_served(model, settings.split(name))
        if any(each["experiment"] == name for each in state.past):
            raise FailedPrecondition(f"model {model!r} has had an experiment {name!r}; another name deals its routing "
                                     "keys anew")
        experiment = Experiment(name, settings, self._now(), who, reason)
        # First, since there may be no memory for it; without its split nothing counts yet.
        self._outcomes.watch(model, settings.metrics, window_s=settings.window_s)
        self._models_by_name[model] = state
        state.experiment, state.number = experiment, state.number + 1
        if (plan := self._written.get(model)) is not None and plan.name == name:
            state.written = name
        state.kept, state.counts, state.decision, state.trouble = None, {}, NOT_ENOUGH, ""
        self._tell(model, "start", who, f"{name}: {settings.split(name)}", reason)
        # What the store has of a former one is not its own: a server that is killed before the first look would take
        # it for that.
        self._save_sums()
        self._store.save(BLOCKS + model, None)
        await self._keep(model, state)
        if state.experiment is experiment:
            self._begin(model, experiment)
        return experiment

    async def stop(self, model: str, *, who: str, reason: str = "") -> dict[str, Any]:
        """The last report, once it is kept and the split is gone. Raises InferError."""
        state = self._models_by_name.get(model)
        if state is None or state.experiment is None:
            raise FailedPrecondition(f"model {model!r} has no experiment under way; `infer experiment start` begins "
                                     "one")
        return await self._end(model, state, state.experiment, who, reason)

    def running(self, model: str = "") -> dict[str, Experiment]:
        return {name: state.experiment for name, state in sorted(self._models_by_name.items())
                if state.experiment is not None and model in ("", name)}

    def past(self, model: str = "") -> list[dict[str, Any]]:
        """Reports of those that have ended, oldest first."""
        return [report for name, state in sorted(self._models_by_name.items()) if model in ("", name)
                for report in state.past]

    async def report(self, model: str, name: str = "") -> dict[str, Any]:
        """Of the one under way, or else the last one; `name`: of that one. Raises NotFound."""
        state = self._models_by_name.get(model)
        if state is not None:
            if state.experiment is not None and name in ("", state.experiment.name):
                self._look(model, state, state.experiment)
                return await self._reported(model, state, state.experiment)
            found = [each for each in state.past if name in ("", each["experiment"])]
            if found:
                return found[-1]
        raise NotFound(f"model {model!r} has had no experiment{f' {name!r}' if name else ''}; `infer experiment "
                       "history` lists those that it had")

    @property
    def gauges(self) -> dict[str, Any]:
        """By key of SERVER_METRICS. Any thread."""
        states = list(self._models_by_name.items())
        running = [(model, experiment.name, state.decision) for model, state in states
                   if (experiment := state.experiment) is not None]
        return {"experiment_decision": {(model, name, each): int(each == decision)
                                        for model, name, decision in running for each in RESULTS},
                "experiments_ended": dict(self.ended), "experiment_looks_failed": dict(self.looks_failed)}

    # Looks.

    def _look(self, model: str, state: _Model, experiment: Experiment) -> None:
        arms = self._models.arms(model)
        new = {name: counted(arms[name]) for name in experiment.arms if name in arms}
        seen: dict[str, Seen] = {name: since(state.counts[name], counts, state.clumps.get(name, 1.0))
                                 for name, counts in new.items() if name in state.counts}
        state.counts = new
        state.clumps = {name: self._models.clump(model, name) for name in new}
        sums = {arm: dict(of) for arm, of in self._outcomes.sums(model).items()}
        closed = experiment.look(self._now(), sums, seen)
        if closed:
            self._store.save(BLOCKS + model, experiment.blocks_record())
        if sums != state.kept:
            state.kept = sums
            self._save_sums()
        state.decision = experiment.decision().result
        if experiment.failed and not state.ending:
            # Else it is another attempt.
            if not experiment.ended:
                log.warning("model %r: experiment %r ends: %s", model, experiment.name, experiment.failed,
                            extra={"model": model})
            state.ending = True
            self._run(self._end_by_itself(model, state, experiment))

    def _run(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_due(self, model: str, plan: ExperimentPlan) -> bool:
        state = self._models_by_name.get(model)
        if state is None:
            return True
        running = state.experiment
        if running is not None and running.name == plan.name and running.settings != plan.settings:
            self._warn(model, f"experiment {plan.name!r} goes on as it began; what the settings say of it now takes "
                              "another name")
        if (running is not None and running.name == plan.name) or any(
                each["experiment"] == plan.name for each in state.past):
            # Its report goes some time; this stays.
            state.written = plan.name
        return state.written != plan.name

    async def _begin_by_itself(self, model: str) -> None:
        plan = self._written.get(model)
        # Another look may have begun it.
        if plan is None or not self._is_due(model, plan):
            return
        try:
            await self.start(model, plan.settings, name=plan.name, who=SETTINGS, reason="the settings ask for it")
        except InferError as error:
            # Each look tries again.
            self._warn(model, f"experiment {plan.name!r}, which the settings ask for, has not begun: {error.message}")

    def _warn(self, model: str, text: str) -> None:
        if self._warned.get(model) != text:
            self._warned[model] = text
            log.warning("model %r: %s", model, text, extra={"model": model})

    async def _end_by_itself(self, model: str, state: _Model, experiment: Experiment) -> None:
        try:
            await self._end(model, state, experiment, ITSELF, experiment.failed)
        except Exception as error:
            if state.experiment is not experiment:
                return
            # The arm that failed is not to have calls until the next look has tried again.
            self._failed(model, state, error)
            state.ending = False
            if self._models.arms(model):
                self._models.set_split(model, None)

    def _failed(self, model: str, state: _Model, error: Exception) -> None:
        """Counted each time, said once."""
        self.looks_failed[model] = self.looks_failed.get(model, 0) + 1
        before, state.trouble = state.trouble, repr(error)
        if state.trouble != before:
            log.error("model %r: its experiment cannot be looked at, or ended", model, exc_info=error,
                      extra={"model": model})

    def _begin(self, model: str, experiment: Experiment) -> None:
        self._models.set_split(model, experiment.settings.split(experiment.name))
        self._models_by_name[model].results = self._outcomes.results_of(model)
        self._changed()

    async def _end(self, model: str, state: _Model, experiment: Experiment, who: str, reason: str) -> dict[str, Any]:
        experiment.end(self._now(), who, reason)
        report: dict[str, Any] = await self._reported(model, state, experiment)
        if state.experiment is not experiment:
            raise FailedPrecondition(f"experiment {experiment.name!r} of model {model!r} has ended already")
        state.experiment, state.ending = None, False
        self.ended[report["decision"]["result"]] = self.ended.get(report["decision"]["result"], 0) + 1
        state.past = [*state.past, report][-MAX_PAST:]
        self._tell(model, "stop", who, f"{experiment.name}: {report['decision']['result']}", reason)
        await self._keep(model, state)
        if state.experiment is None:
            self._outcomes.unwatch(model)
            self._models.set_split(model, None)
            self._store.save(BLOCKS + model, None)
        self._changed()
        return report

    async def _reported(self, model: str, state: _Model, experiment: Experiment) -> dict[str, Any]:
        """Made on another thread: posteriors take a while."""
        arms, before = self._models.arms(model), state.results
        results = {result: count - before.get(result, 0)
                   for result, count in self._outcomes.results_of(model).items()}
        problems = [f"arm {name!r} gets none of its share: {why}" for name, why in self._models.missing(model).items()]
        seen = [_seen(arms.get(name)) for name in experiment.arms]
        now, copied = self._now(), experiment.copied()
        return await asyncio.get_running_loop().run_in_executor(None, lambda: report_of(
            model, copied, seen, now=now, outcomes=results, problems=problems))

    # What is kept and told.

    def _save_sums(self) -> None:
        self._store.save(SUMS, {name: _plain(each.experiment.sums) for name, each in self._models_by_name.items()
                                if each.experiment is not None})

    async def _keep(self, model: str, state: _Model) -> None:
        """On the disk, or it could not be written in time: then it is tried again, and the traffic follows anyhow."""
        kept = asyncio.wrap_future(self._store.save(RECORD + model, state.to_record()))
        await asyncio.wait((kept,), timeout=KEEP_SECONDS)

    def _tell(self, model: str, event: str, who: str, *said: str) -> None:
        detail = ": ".join(each for each in said if each)
        self._audit.record(EVENT, outcome=event, who=who, model=model, detail=detail)
        log.info("model %r: experiment %s: %s", model, event, detail, extra={"model": model, "who": who})


def _plain(sums: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    return {arm: {metric: list(each) for metric, each in of.items()} for arm, of in sums.items()}


def _seen(arm: Any) -> dict[str, Any]:
    """What the server has seen of an arm's calls."""
    if arm is None:
        return {"calls": 0, "failed": 0, **dict.fromkeys(_QUANTILES)}
    calls = counted(arm)
    return {"calls": calls.calls, "failed": calls.errors,
            **{key: arm.quantile_ns(quantile) / 1e6 if calls.calls > calls.errors else None
               for key, quantile in _QUANTILES.items()}}


_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
