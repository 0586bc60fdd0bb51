"""Brings what is served to what is wanted, a step at a time, and publishes the routes. Loop thread, no I/O, no clock.

`observe` and the `ask_` methods say what is wanted, a Loader loads and closes, `step` does all that can be done now;
`effects` has the order in which that reaches the world.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from infer.errors import InferError, InvalidArgument, ResourceExhausted, Unavailable
from infer.models.effects import Answer, Effects, Keep, Publish
from infer.models.harness import Incarnation, State
from infer.models.intents import Intents, Mode, Overlay, Record, Standing, no_overlay
from infer.models.labels import LABEL
from infer.models.loading import Backoff, Bounds, Event, Loader, LoadSpec, refusal_of
from infer.models.routes import FAILED_PRECONDITION
from infer.models.served_model import ServedModel
from infer.models.snapshot import Snapshot
from infer.models.status import ModelReport, missing_reason, report_of
from infer.models.tally import Tally
from infer.models.transition import Step

ABORTED = 10
# Whose word it is that everything is unloaded when the server ends.
THE_END = "the server's end"


@dataclass
class Ask:
    """A load that was asked for. It takes all of a model's versions or changes nothing."""

    override: str
    before: Standing
    answers: list[Answer] = field(default_factory=list)


class Manager:
    """`wake` is called when there is something for `step` to do; `record` is what `keep` was given before a restart."""

    def __init__(self, loader: Loader, publish: Publish, *, mode: Mode, start: Collection[str] = (),
                 record: Mapping[str, Any] | None = None, overlay: Overlay = no_overlay,
                 keep: Keep = lambda record: None, tell: Callable[[Event], None] = lambda event: None,
                 wake: Callable[[], None] = lambda: None, backoff: Backoff | None = None,
                 bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self._loader, self._tell, self._wake, self._backoff = loader, tell, wake, backoff or Backoff()
        self._effects = Effects(loader, publish, keep, ended=self._ended, drained=self._drained, wake=self._woken)
        self._intents = Intents(mode, start, Record.from_record(record or {}), overlay)
        self._record_changed = False
        self._models: dict[str, ServedModel] = {}
        self._dirty: dict[str, None] = {}
        # Models that wait for a load to end before they begin one: first those with nothing ready.
        self._waiting: tuple[dict[str, None], dict[str, None]] = ({}, {})
        self._retries: list[tuple[int, str]] = []
        self._loads: dict[int, tuple[ServedModel, Incarnation]] = {}
        self._serial = 0
        self._asks: dict[str, Ask] = {}
        self._tally = Tally()
        self._stopping = False
        self._stepping = False
        self.observed = False
        self.now_ns = 0

    # What is wanted.

    def observe(self, snapshot: Snapshot) -> None:
        for name in self._intents.observe(snapshot):
            self._changed(name, None)
        for name, model in self._models.items():
            if model.leaving:
                model.left(self._intents.seen.get(name))
        self.observed = True
        self._woken()

    def ask_load(self, name: str, done: Answer, who: str, override: str = "") -> None:
        """Loads the model as its repository, or `override`, now has it; `done` once it is ready or has failed.

        Raises InferError where it cannot even be tried.
        """
        self._intents.require_control()
        self._require(name)
        under_way = self._asks.get(name)
        if under_way is not None and under_way.override != override:
            raise InferError(f"another load of model {name!r} is under way, with another configuration; try again "
                             "once it has ended", ABORTED)
        waiting = sum(len(ask.answers) for ask in self._asks.values())
        if waiting >= self.bounds.asks:
            raise ResourceExhausted(f"{waiting} calls wait for loads, as many as may; try again later")
        before = self._intents.standing(name)
        if under_way is None:
            self._intents.load(name, override)
            self._asks[name] = Ask(override, before, [done])
            model = self._changed(name, who)
            for row in [row for row in model.table.current.values() if row.state is State.FAILED]:
                model.table.forget(row)
            model.failure, model.together = "", True
        else:
            under_way.answers.append(done)
        self._woken()

    def ask_unload(self, name: str, done: Answer, who: str) -> None:
        """Takes the model out of the routes, ending a load of it that is under way; `done` once they are published."""
        self._intents.require_control()
        self._require(name)
        ask = self._asks.pop(name, None)
        if ask is not None:
            self._answer(ask, InferError(f"model {name!r} was unloaded by another call before it was loaded", ABORTED))
        self._intents.unload(name)
        self._record_changed = True
        model = self._changed(name, who)
        model.failure, model.together = "", False
        self._effects.answer(done, None)
        self._woken()

    def ask_label(self, name: str, label: str, version: int | None, done: Answer, who: str) -> None:
        """Points the label at the version once that is ready; None: as the settings say. `done` once it is kept."""
        self._require(name)
        if version is not None and version < 1:
            raise InvalidArgument(f"label {label!r} of model {name!r}: a version is a number from 1, got {version}")
        if LABEL.fullmatch(label) is None:
            raise InvalidArgument(f"label {label!r} of model {name!r}: expected 1 to 128 of A-Z a-z 0-9 _ . -, and not "
                                  "a number")
        if name in self._asks:
            raise InferError(f"a load of model {name!r} is under way; move its labels once it has ended", ABORTED)
        labels = self._intents.record.labels.setdefault(name, {})
        if version is None:
            labels.pop(label, None)
        elif label not in labels and len(labels) >= self.bounds.labels:
            raise ResourceExhausted(f"model {name!r} has {len(labels)} labels that were set at run time, as many as it "
                                    "may; remove one")
        else:
            labels[label] = version
        self._record_changed = True
        self._changed(name, who)
        self._effects.answer(done, None)
        self._woken()

    def _require(self, name: str) -> None:
        if self._stopping:
            raise Unavailable("the server is stopping; ask another")
        self._intents.require_known(name)

    def stop(self) -> None:
        """Loads nothing more and unloads everything; `idle` once that is done."""
        self._stopping = True
        for name, model in self._models.items():
            model.together = False
            model.want(None, {}, "", THE_END)
            self._dirty[name] = None
        for ask in self._asks.values():
            self._answer(ask, InferError("the server is stopping", ABORTED))
        self._asks.clear()
        self._woken()

    def take_removable(self, name: str, ages_s: Mapping[int, float]) -> tuple[int, ...]:
        """Versions whose directories the caller is to delete now; none of them is loaded meanwhile. `ages_s`: of each
        version directory, since it last changed."""
        seen, model = self._intents.seen.get(name), self._models.get(name)
        if seen is None or model is None or name in self._asks or name in self._intents.refusals:
            return ()
        return model.take_removable(seen, ages_s)

    def removal_failed(self, name: str, version: int) -> None:
        """The directory is still there, and whole."""
        if name in self._models:
            self._models[name].leaving.pop(version, None)
            self._dirty[name] = None
            self._woken()

    def _changed(self, name: str, who: str | None) -> ServedModel:
        intents = self._intents
        if name not in self._models:
            self._models[name] = ServedModel(name, intents.record.held.get(name, {}), self._tell)
        model = self._models[name]
        if not self._stopping:
            model.want(intents.wanted.get(name), intents.labels_of(name), intents.refusals.get(name, ""), who)
        self._dirty[name] = None
        return model

    def _woken(self) -> None:
        if not self._stepping:
            self._wake()

    # What is done about it.

    def step(self, now_ns: int) -> int | None:
        """Does all that can be done now; the time at which there will be more, or None."""
        self.now_ns = now_ns
        self._stepping = True
        try:
            self._step()
        finally:
            self._stepping = False
        return self._retries[0][0] if self._retries else None

    def _step(self) -> None:
        while True:
            self._effects.take_results()
            while self._retries and self._retries[0][0] <= self.now_ns:
                self._dirty[heapq.heappop(self._retries)[1]] = None
            while self._dirty:
                name = next(iter(self._dirty))
                del self._dirty[name]
                if name in self._models:
                    self._advance(self._models[name])
            self._fill()
            changed, self._record_changed = self._record_changed, False
            self._effects.take_effect(self._intents.record.to_record() if changed else None)
            if not (self._dirty or self._effects.has_results):
                return

    def _advance(self, model: ServedModel) -> None:
        """Every step of a model but loads."""
        while (step := model.advance(self.now_ns, may_load=False)) is not None:
            self._carry_out(model, step)
        for row in model.edits():
            self._loader.apply(row.entry, row.settings)
        for waiting in self._waiting:
            waiting.pop(model.name, None)
        if not self._stopping and model.advance(self.now_ns, may_load=True) is not None:
            self._waiting[bool(model.table.ready())][model.name] = None
        self._settle(model)
        self._note(model)

    def _fill(self) -> None:
        """Begins loads while a loader is free, a version of each model that waits in turn."""
        while len(self._loads) < self.bounds.loading and any(self._waiting):
            waiting = self._waiting[0] or self._waiting[1]
            name = next(iter(waiting))
            del waiting[name]
            model = self._models[name]
            step = model.advance(self.now_ns, may_load=True)
            if step is not None:
                self._carry_out(model, step)
                self._tally.recount(model)
                waiting[name] = None

    def _carry_out(self, model: ServedModel, step: Step) -> None:
        row = model.table.current[step.key]
        if step.action == "publish":
            row.move(State.READY)
        elif step.action == "forget":
            model.table.forget(row)
        elif step.action == "drain":
            self._effects.close(model, model.table.drain(step.key))
            model.tell("unload", row.version, "draining")
        else:
            row.move(State.LOADING)
            self._serial += 1
            self._loads[self._serial] = model, row
            self._effects.load(LoadSpec(model.name, row.version, row.files, row.settings, self._serial))

    def _settle(self, model: ServedModel) -> None:
        """Answers a load that was asked for, once it is known how it went."""
        ask = self._asks.get(model.name)
        if ask is None:
            return
        rows = model.aspired_rows()
        failed = [row for row in rows if row.state is State.FAILED]
        if rows and not failed and not all(row.state in (State.LOADED, State.READY) for row in rows):
            return
        del self._asks[model.name]
        model.together = False
        self._dirty[model.name] = None
        if rows and not failed:
            self._intents.loaded(model.name, ask.override)
            self._record_changed = True
            self._answer(ask, None)
            return
        code, text = (FAILED_PRECONDITION, failed[0].reason) if failed else model.route().reason or (0, "")
        self._intents.take_back(model.name, ask.before)
        self._changed(model.name, model.who)
        model.failure = text
        self._answer(ask, InferError(text, code))

    def _answer(self, ask: Ask, result: InferError | None) -> None:
        for answer in ask.answers:
            self._effects.answer(answer, result)

    def _note(self, model: ServedModel) -> None:
        """Takes the model's labels and routes to what will be kept and published."""
        name = model.name
        record = self._intents.record
        if model.seen is not None and dict(model.labels.held) != record.held.get(name, {}):
            record.held[name] = dict(model.labels.held)
            self._record_changed = True
        if name in self._intents.seen or model.seen is not None or model.table:
            route = model.route()
            self._effects.route(name, route)
            self._tally.note(model, route)
            return
        self._tally.forget(name)
        self._effects.route(name, None)
        del self._models[name]
        if not record.labels.get(name) and record.held.pop(name, None) is not None:
            self._record_changed = True

    # What came of it.

    def _ended(self, spec: LoadSpec, result: Any) -> None:
        """A load has ended; one that ends twice is the loader's error and raises KeyError."""
        model, row = self._loads.pop(spec.serial)
        error = refusal_of(result)
        self._dirty[model.name] = None
        if error is None:
            row.loaded(result)
            model.failure = ""
            model.tell("load", row.version, "ok")
            return
        told = row.reason
        retry_at_ns = self.now_ns + self._backoff.delay_ns(row.attempts + 1)
        row.failed(error.message, retry_at_ns)
        heapq.heappush(self._retries, (retry_at_ns, model.name))
        if error.message != told:
            model.tell("load", row.version, "failed", error.message)

    def _drained(self, model: ServedModel, row: Incarnation) -> None:
        model.table.forget(row)
        row.entry = None
        model.tell("unload", row.version, "ok")
        self._dirty[model.name] = None

    # What others see.

    @property
    def idle(self) -> bool:
        """Whether nothing is being loaded or unloaded."""
        return not (self._loads or self._effects.has_results or self._dirty or any(self._waiting)
                    or any(model.table.draining for model in self._models.values()))

    @property
    def pending(self) -> int:
        """Versions that shall serve and have not been tried yet, as of the last step: none once the first pass of loads
        has ended."""
        return self._tally.untried

    def reports(self) -> list[ModelReport]:
        """Every model that is known, by name."""
        return [report_of(self._models[name]) for name in sorted(self._models)]

    def report(self, name: str) -> ModelReport | None:
        model = self._models.get(name)
        return None if model is None else report_of(model)

    def unready(self) -> dict[str, str]:
        """Why each model that shall be served is not, by name."""
        return {name: missing_reason(name) for name in self._intents.missing} | self._tally.unready

    def gauges(self) -> dict[str, int]:
        return {"models_loading": len(self._loads), "models_waiting": sum(len(each) for each in self._waiting),
                "load_calls_waiting": sum(len(ask.answers) for ask in self._asks.values()), **self._tally.gauges()}
