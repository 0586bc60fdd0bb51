"""Splits of a server's models: which are asked for, by the settings or by RPC, and kept over a restart. Loop thread.

What was asked for by RPC is in the store before it applies, and stands over what the settings say, also where it was to
have none. What a split comes to beside what is served is `routes`' to say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infer._core.model_version import VersionEntry
from infer.errors import FailedPrecondition, InferError, NotFound
from infer.split_plan import SplitPlan
from infer.state.store import Store
from infer.traffic.routes import Traffic

log = logging.getLogger("infer.traffic")

RECORD = "splits"


class Splits:
    """One per server. `written`: what the settings ask for, by model; `apply` publishes a model's, None for none."""

    def __init__(self, store: Store, written: Mapping[str, SplitPlan], traffic: Traffic,
                 apply: Callable[[str, SplitPlan | None], None]) -> None:
        self.traffic = traffic
        self.taken: Callable[[str], str] = lambda model: ""     # who else divides the model's requests; "": nobody
        self._store = store
        self._apply = apply
        self._written = dict(written)
        self._asked = _asked(store)
        for model, plan in self.plans.items():
            apply(model, plan)

    @property
    def plans(self) -> dict[str, SplitPlan]:
        """By model; what was asked for by RPC stands over what is written."""
        return {model: plan for model, plan in {**self._written, **self._asked}.items() if plan is not None}

    def asked_by_rpc(self, model: str) -> bool:
        return model in self._asked

    def set_written(self, written: Mapping[str, SplitPlan]) -> None:
        """The settings were read again."""
        before, old = self.plans, self._written
        self._written = dict(written)
        after = self.plans
        for model in dict.fromkeys([*before, *after]):
            if before.get(model) != after.get(model):
                if taken := self.taken(model):
                    log.warning("model %r: what the settings say of its split does not count before what divides its "
                                "requests has ended: %s", model, taken, extra={"model": model})
                else:
                    self._apply(model, after.get(model))
        for model in dict.fromkeys([*old, *written]):
            if model in self._asked and old.get(model) != written.get(model):
                log.warning("model %r: what the settings say of its split does not count, since another was asked for: "
                            "`infer split show %s`", model, model, extra={"model": model})

    async def ask(self, model: str, plan: SplitPlan | None) -> None:
        """Kept first, then applied; None: the model has none, whatever is written. Raises NotFound and
        FailedPrecondition for what cannot be now."""
        if taken := self.taken(model):
            raise FailedPrecondition(f"model {model!r} has {taken}, which divides its requests; end that first")
        if plan is None and model not in self.plans:
            raise NotFound(f"model {model!r} has no split")
        if plan is not None:
            self.ensure_served(model, plan)
        self._asked = {**self._asked, model: plan}
        kept = self._store.save(RECORD, {name: None if each is None else each.to_record()
                                         for name, each in self._asked.items()})
        await asyncio.wrap_future(kept)
        # One that has begun meanwhile gives the requests back to it when it ends.
        if not self.taken(model):
            self._apply(model, self.plans.get(model))

    def ensure_served(self, model: str, plan: SplitPlan) -> None:
        """Every arm leads to a version that is served, and all of them take the same inputs."""
        if self.traffic.served(model) is None:
            raise NotFound(f"model {model!r} is not known: `infer models` lists those that are")
        for name, why in self.traffic.missing(model, plan).items():
            raise FailedPrecondition(f"variant {name!r} of model {model!r} cannot be called: {why}")
        first, *others = self.traffic.entries(model, plan).items()
        for name, entry in others:
            if _inputs(entry) != _inputs(first[1]):
                raise FailedPrecondition(
                    f"variants {first[0]!r} and {name!r} of model {model!r} take different inputs: "
                    f"{', '.join(_inputs(first[1]))} and {', '.join(_inputs(entry))}; a client cannot know which to "
                    "send")


def _inputs(entry: VersionEntry) -> Sequence[str]:
    return sorted(f"{each.name} {each.datatype}" for each in entry.inputs if not each.optional)


def _asked(store: Store) -> dict[str, SplitPlan | None]:
    found: dict[str, SplitPlan | None] = {}
    record: Any = store.records().get(RECORD, {})
    for model, each in record.items():
        try:
            found[model] = None if each is None else SplitPlan.from_record(each)
        except InferError as error:
            log.error("model %r is not divided: its record in the state directory cannot be used: %s", model,
                      error.message, extra={"model": model})
    return found
