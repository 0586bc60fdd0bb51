"""Rollouts as they happen: looks at the arms twice a second, decides, keeps that, then has the traffic follow.

Loop thread. What a rollout has come to is in the store before it takes effect, as far as the disk answers within
`KEEP_SECONDS`: a server that is killed at any moment is started again with the weights last decided. While a rollout
goes on, label `stable` holds the baseline, so that it answers what the split does not give away, and label `canary` the
new version; both keep their versions loaded. At the end `stable` moves where the traffic went, and `canary` goes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from infer.errors import FailedPrecondition, InferError, NotFound
from infer.rollouts import RolloutSettings
from infer.traffic.guardrails import Verdict
from infer.traffic.looks import StepLooks
from infer.traffic.rollout import ENDS, ITSELF, STATES, Facts, Rollout, RolloutPlan
from infer.traffic.steering import Steering
from infer.traffic.views import AuditView, ModelsView, StoreView

log = logging.getLogger("infer.traffic")

RECORD = "rollouts"
EVENT = "rollout"
STABLE, CANARY = "stable", "canary"
KEEP_SECONDS = 1.0
# Former rollouts of a model that are remembered.
MAX_PAST = 16
OK, FAILED_PRECONDITION = 0, 9


@dataclass
class _Model:
    rollout: Rollout
    past: list[dict[str, Any]]
    unfinished: bool            # it goes on, or what its end asks for is not all done
    labelled: tuple[int, int | None] | None = None      # where `stable` and `canary` were moved
    looks: StepLooks | None = None              # of what its step has come to
    gate: asyncio.Task[tuple[str, str]] | None = None       # the checks before its first step
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    behind: bool = False        # what it has come to has not all taken effect
    trouble: str = ""           # why, or why it cannot be looked at, as was said last

    def to_record(self) -> dict[str, Any]:
        return {"rollout": self.rollout.to_record(), "unfinished": self.unfinished, "past": self.past}


class Controller:
    """One per server. `now` gives seconds since the epoch; `changed` hears of each change of any rollout, and of each
    look at one that goes on. `bins`: of the arms' outputs."""

    def __init__(self, models: ModelsView, store: StoreView, audit: AuditView, *, now: Callable[[], float],
                 changed: Callable[[], None] = lambda: None, bins: int = 0) -> None:
        self._models, self._store, self._audit = models, store, audit
        self._steering = Steering(models)
        self._now, self._changed, self._bins = now, changed, bins
        self._tasks: set[asyncio.Task[Any]] = set()
        self._rollouts: dict[str, _Model] = {}
        self._refused: dict[str, tuple[int, str]] = {}      # versions that were not begun by themselves, and why
        self._holding: set[str] = set()         # models whose first version is being held
        self.ended: dict[str, int] = {}         # rollouts by the state that they ended in
        self.looks_failed: dict[str, int] = {}      # looks that could not be had, by model
        for model, record in store.records().get(RECORD, {}).items():
            try:
                self._rollouts[model] = _Model(Rollout.from_record(record["rollout"]), list(record["past"]),
                                               bool(record["unfinished"]))
            except (InferError, KeyError, TypeError) as error:
                log.error("model %r: its rollout does not go on: %s", model,
                          error.message if isinstance(error, InferError) else f"its record is damaged: {error!r}",
                          extra={"model": model})

    # The life of a server.

    async def restore(self) -> None:
        """Has the traffic be as it was decided before the start, or as a restart decides. Before calls come."""
        for model, state in self._rollouts.items():
            if state.unfinished:
                for what, there in (("split", self._models.split(model) is not None),
                                    ("shadow", state.rollout.plan.settings.has_shadow
                                     and self._models.shadow_taken(model))):
                    if there:
                        log.warning("model %r: its rollout to version %d goes on; the %s that the settings ask for "
                                    "counts again once that has ended", model, state.rollout.plan.to, what,
                                    extra={"model": model})
                state.rollout.restarted(self._now())
                self._tell(model, state)
                await self._follow(model, state)

    def step(self) -> None:
        """Looks at every rollout that goes on, and for versions that are to be rolled out by themselves."""
        for model, state in list(self._rollouts.items()):
            if state.unfinished and not state.lock.locked():
                try:
                    self._look(model, state)
                except Exception as error:
                    # Other models' looks are not to end with it.
                    self._failed(model, state, error)
        for model in self._models.names():
            try:
                self._begin_by_itself(model)
            except Exception as error:
                self.looks_failed[model] = self.looks_failed.get(model, 0) + 1
                if self._refused.get(model) != (0, repr(error)):
                    log.error("model %r: whether it has a version to be rolled out cannot be told", model,
                              exc_info=error, extra={"model": model})
                self._refused[model] = 0, repr(error)

    async def close(self) -> None:
        """Checks that go on are given up; those who wait for what was decided are answered."""
        for state in self._rollouts.values():
            if state.gate is not None:
                state.gate.cancel()
        await self.settled()

    async def settled(self) -> None:
        """Once what was decided is kept, and has taken effect."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for state in list(self._rollouts.values()):
            async with state.lock:
                pass

    def taken(self, model: str) -> str:
        """What of it divides the model's requests; "" for nothing."""
        state = self._rollouts.get(model)
        return "" if state is None or not state.unfinished else f"a rollout to version {state.rollout.plan.to}"

    # What people ask for. Each returns the rollout once its change is kept and has taken effect.

    async def start(self, model: str, *, to: int, baseline: int = 0, settings: RolloutSettings | None = None, who: str,
                    reason: str = "") -> Rollout:
        """`baseline`, `settings`: 0 and None for what answers now, and what the model's settings say. Raises
        InferError."""
        route = self._models.route(model)
        if route is None:
            raise NotFound(f"unknown model {model!r}: there is nothing to roll out")
        before = self._rollouts.get(model)
        if before is not None and not before.rollout.ended:
            raise FailedPrecondition(f"model {model!r} has a rollout to version {before.rollout.plan.to}, which is "
                                     f"{before.rollout.state}; abort it first")
        if before is not None and before.unfinished:
            raise FailedPrecondition(f"the last rollout of model {model!r} is still being ended; try again")
        if (split := self._models.split(model)) is not None:
            raise FailedPrecondition(f"the traffic of model {model!r} is divided already, by a split or an experiment "
                                     f"{split.name!r}; end that first")
        if taken := self._models.others(model):
            raise FailedPrecondition(f"model {model!r} has {taken}, which divides its requests; end that first")
        if not self._is_known(model, route, to):
            raise NotFound(f"model {model!r} has no version {to}; copy it into the repository")
        baseline = baseline or baseline_of(model, route, to)
        if not any(entry.version == str(baseline) for entry in route.versions):
            raise FailedPrecondition(f"model {model!r} version {baseline}, which version {to} would be compared with, "
                                     "is not ready")
        plan = RolloutPlan(baseline, to, settings or self.settings_of(model))
        if plan.settings.has_shadow and (taken := self._models.shadow_taken(model)):
            raise FailedPrecondition(f"the rollout of model {model!r} needs a shadow of version {to}, and {taken}; end "
                                     f"that with `infer shadow stop {model}`")
        self._models.ensure_gates(plan.settings)
        rollout = Rollout(plan, self._now(), who, reason)
        past = [] if before is None else [*before.past, before.rollout.to_record()][-MAX_PAST:]
        state = self._rollouts[model] = _Model(rollout, past, True)
        self._tell(model, state)
        await self._follow(model, state)
        return rollout

    async def change(self, model: str, verb: str, *, who: str, reason: str = "", all_of_it: bool = False) -> Rollout:
        """`verb`: pause, resume, promote or abort. Raises InferError."""
        state = self._state(model)
        if verb == "promote":
            state.rollout.promote(self._now(), who, reason, all_of_it=all_of_it)
        else:
            {"pause": state.rollout.pause, "resume": state.rollout.resume, "abort": state.rollout.abort}[verb](
                self._now(), who, reason)
        self._tell(model, state)
        await self._follow(model, state)
        return state.rollout

    def rollouts(self, model: str = "") -> dict[str, Rollout]:
        """The last one of each model, or of one; none of a model that had none."""
        return {name: state.rollout for name, state in sorted(self._rollouts.items()) if model in ("", name)}

    def past(self, model: str) -> list[Rollout]:
        """Those before the last one, oldest first."""
        return [Rollout.from_record(each) for each in self._state(model).past]

    def settings_of(self, model: str) -> RolloutSettings:
        """What the model's settings say."""
        route = self._models.route(model)
        for entry in () if route is None else route.versions:
            if entry.settings is not None and entry.settings.rollout is not None:
                found: RolloutSettings = entry.settings.rollout
                return found
        return RolloutSettings()

    @property
    def gauges(self) -> dict[str, Any]:
        """By key of SERVER_METRICS. Any thread."""
        states = list(self._rollouts.items())
        return {"rollout_weight": {(model, str(state.rollout.plan.to)): state.rollout.weight / 100
                                   for model, state in states},
                "rollout_state": {(model, str(state.rollout.plan.to), each): int(state.rollout.state == each)
                                  for model, state in states for each in STATES},
                "rollouts_ended": dict(self.ended), "rollout_looks_failed": dict(self.looks_failed)}

    # Looks.

    def _look(self, model: str, state: _Model) -> None:
        rollout, now = state.rollout, self._now()
        if rollout.ended:
            self._later(model, state)
            return
        facts = self._facts(model, state)
        try:
            verdict = self._verdict(model, state)
        except Exception as error:
            # An open breaker and a version that is gone take it back all the same.
            self._failed(model, state, error)
            verdict = Verdict(reason=f"it cannot be looked at: {type(error).__name__}: {error}")
        rollout.look(now, facts, verdict)
        if rollout.state == "gates" and state.gate is None:
            state.gate = self._run(self._models.check(model, rollout.plan.to, rollout.plan.settings))
        if self._tell(model, state) or state.behind:
            self._later(model, state)
        self._changed()

    def _failed(self, model: str, state: _Model, error: Exception) -> None:
        """Counted each time, said once."""
        self.looks_failed[model] = self.looks_failed.get(model, 0) + 1
        if self._is_new(state, repr(error)):
            log.error("model %r: its rollout to version %d cannot be looked at", model, state.rollout.plan.to,
                      exc_info=error, extra={"model": model})

    def _is_new(self, state: _Model, trouble: str) -> bool:
        before, state.trouble = state.trouble, trouble
        return trouble != before

    def _facts(self, model: str, state: _Model) -> Facts:
        route, version = self._models.route(model), str(state.rollout.plan.to)
        if route is None:
            return Facts(ready=False, failure=f"model {model!r} is gone")
        entry = next((each for each in route.versions if each.version == version), None)
        if entry is None:
            code, text = route.unready.get(version, (OK, ""))
            return Facts(ready=False, failure=text if code == FAILED_PRECONDITION else "")
        if entry.guard is not None and entry.guard.state == "open":
            return Facts(failure=f"the breaker of version {version} is open: {entry.guard.why}")
        if state.gate is None or not state.gate.done():
            return Facts(gate=None)
        if error := state.gate.exception():
            return Facts(gate=f"{type(error).__name__}: {error}")
        failure, told = state.gate.result()
        return Facts(gate=failure, told=told)

    def _verdict(self, model: str, state: _Model) -> Verdict:
        rollout = state.rollout
        if rollout.state not in ("running", "paused"):
            state.looks = None
            return Verdict()
        if state.looks is None:
            state.looks = StepLooks(rollout.plan, self._bins)
        return state.looks.verdict((rollout.step, rollout.since), self._models.sources(
            model, rollout.plan.baseline, rollout.plan.to), rollout.restarts)

    def _begin_by_itself(self, model: str) -> None:
        if self.settings_of(model).on_new_version != "rollout":
            return
        route, state = self._models.route(model), self._rollouts.get(model)
        if route is None or not route.versions or (state is not None and state.unfinished):
            return
        stable = route.labels.get(STABLE)
        highest = max(int(entry.version) for entry in route.versions)
        if stable is None:
            if STABLE not in route.unready and model not in self._holding:
                self._holding.add(model)
                self._run(self._hold(model, highest))
            return
        tried = set() if state is None else {state.rollout.plan.to, *(each["plan"]["to"] for each in state.past)}
        if highest > int(stable.version) and highest not in tried and self._models.split(model) is None:
            self._run(self._start_by_itself(model, highest, int(stable.version)))

    async def _hold(self, model: str, version: int) -> None:
        """What answers now goes on doing so when a newer version comes."""
        try:
            await self._models.move_label(model, STABLE, version, ITSELF)
        except InferError as error:
            self._refuse(model, version, error.message, "is not held")
        finally:
            self._holding.discard(model)

    async def _start_by_itself(self, model: str, to: int, baseline: int) -> None:
        try:
            await self.start(model, to=to, baseline=baseline, who=ITSELF, reason="a new version in the repository")
        except InferError as error:
            self._refuse(model, to, error.message)

    def _refuse(self, model: str, version: int, why: str, what: str = "is not rolled out") -> None:
        """Each look tries again."""
        if self._refused.get(model) != (version, why):
            log.warning("model %r: version %d %s: %s", model, version, what, why)
        self._refused[model] = version, why

    # What follows from a change.

    def _later(self, model: str, state: _Model) -> None:
        self._run(self._follow_or_say(model, state))

    async def _follow_or_say(self, model: str, state: _Model) -> None:
        try:
            await self._follow(model, state)
        except Exception as error:
            # The next look tries again.
            if self._is_new(state, repr(error)):
                log.error("model %r: its traffic does not follow its rollout yet", model, exc_info=error,
                          extra={"model": model})

    def _run(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _follow(self, model: str, state: _Model) -> None:
        """Keeps what the rollout has come to, then has traffic and labels follow."""
        async with state.lock:
            state.behind = True
            rollout = state.rollout
            ended, weight, finished = rollout.ended, rollout.weight, rollout.state == "done"
            if ended and state.gate is not None:
                state.gate.cancel()
            await self._keep()
            self._steering.follow(model, rollout, 0.0 if ended and not finished else weight)
            if not state.unfinished:
                state.behind = False
                return
            try:
                await self._label(model, state, ended=ended, done=finished)
            except InferError as error:
                # The next look tries again.
                if self._is_new(state, error.message):
                    log.warning("model %r: the labels of its rollout cannot be moved yet: %s", model, error.message)
                return
            state.behind, state.trouble = False, ""
            if ended:
                self._steering.give_back(model, rollout)
                state.unfinished = False
                await self._keep()
        self._changed()

    async def _label(self, model: str, state: _Model, *, ended: bool, done: bool) -> None:
        plan = state.rollout.plan
        wanted = plan.to if done else plan.baseline, None if ended else plan.to
        if wanted != state.labelled:
            await self._models.move_label(model, STABLE, wanted[0], ITSELF)
            await self._models.move_label(model, CANARY, wanted[1], ITSELF)
            state.labelled = wanted

    async def _keep(self) -> None:
        """On the disk, or it could not be written in time: then it is tried again, and the traffic follows anyhow."""
        kept = asyncio.wrap_future(self._store.save(
            RECORD, {model: state.to_record() for model, state in self._rollouts.items()}))
        await asyncio.wait((kept,), timeout=KEEP_SECONDS)

    def _tell(self, model: str, state: _Model) -> bool:
        """Puts down what happened; whether anything did."""
        version = str(state.rollout.plan.to)
        events = state.rollout.take_untold()
        for each in events:
            self._audit.record(EVENT, outcome=each.event, who=each.who, model=model, version=version,
                               detail=f"{each.weight:g}%" + (f": {each.reason}" if each.reason else ""))
            log.log(logging.WARNING if each.event == "rolled back" else logging.INFO,
                    "model %r version %s: rollout: %s, %g%% of its calls%s", model, version, each.event, each.weight,
                    f": {each.reason}" if each.reason else "", extra={"model": model, "version": version,
                                                                      "who": each.who})
            if each.event in ENDS:
                self.ended[each.event] = self.ended.get(each.event, 0) + 1
        if events:
            self._changed()
        return bool(events)

    def _state(self, model: str) -> _Model:
        if model not in self._rollouts:
            raise NotFound(f"model {model!r} has had no rollout; `infer rollout start` begins one")
        return self._rollouts[model]

    def _is_known(self, model: str, route: Any, version: int) -> bool:
        return (any(entry.version == str(version) for entry in route.versions) or str(version) in route.unready
                or self._models.has_version(model, version))


def baseline_of(model: str, route: Any, to: int) -> int:
    """What answers now, else the next lower version that is ready. Raises FailedPrecondition."""
    if route.default is not None and route.default.version != str(to):
        return int(route.default.version)
    lower = [int(entry.version) for entry in route.versions if int(entry.version) < to]
    if not lower:
        raise FailedPrecondition(f"model {model!r} has no version ready that version {to} could be compared with; name "
                                 "one with --from, and have it served: version_policy { latest { num_versions: 2 } }")
    return max(lower)
