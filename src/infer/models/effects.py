"""What a step of the manager does to the world, gathered while it decides and done at its end in one order.

Keep, publish, close, load, answer: a restart finds what calls were told, no call is routed to what is being closed, and
who asked hears of it once it is so. Loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from infer._core.router import ModelRoute
from infer.errors import InferError
from infer.models.harness import Incarnation
from infer.models.loading import Loader, LoadSpec
from infer.models.served_model import ServedModel

Answer = Callable[[InferError | None], None]
# The routes that are others now, by name; None: the model is not known any more.
Publish = Callable[[Mapping[str, ModelRoute | None]], None]
Keep = Callable[[dict[str, Any]], None]
Ended = Callable[[LoadSpec, Any], None]
Drained = Callable[[ServedModel, Incarnation], None]


class Effects:
    """`ended` and `drained` are called with what a load and a close came to, in a later round of the step."""

    def __init__(self, loader: Loader, publish: Publish, keep: Keep, *, ended: Ended, drained: Drained,
                 wake: Callable[[], None]) -> None:
        self._loader, self._publish, self._keep = loader, publish, keep
        self._ended, self._drained, self._wake = ended, drained, wake
        self.routes: dict[str, ModelRoute] = {}
        self._changed: dict[str, ModelRoute | None] = {}
        self._closing: list[tuple[ServedModel, Incarnation]] = []
        self._starting: list[LoadSpec] = []
        self._answers: list[tuple[Answer, InferError | None]] = []
        self._results: list[Callable[[], None]] = []

    def route(self, name: str, route: ModelRoute | None) -> None:
        """The model's route from now on; None: it is not known any more."""
        if route == self.routes.get(name):
            return
        self._changed[name] = route
        if route is None:
            del self.routes[name]
        else:
            self.routes[name] = route

    def close(self, model: ServedModel, row: Incarnation) -> None:
        self._closing.append((model, row))

    def load(self, spec: LoadSpec) -> None:
        self._starting.append(spec)

    def answer(self, answer: Answer, result: InferError | None) -> None:
        self._answers.append((answer, result))

    def take_effect(self, record: dict[str, Any] | None) -> None:
        """`record`: to be kept, where it has changed."""
        if record is not None:
            self._keep(record)
        if self._changed:
            changed, self._changed = self._changed, {}
            self._publish(changed)
        closing, self._closing = self._closing, []
        for model, row in closing:
            self._close(model, row)
        starting, self._starting = self._starting, []
        for spec in starting:
            self._loader.load(spec, self._load_ended)
        answers, self._answers = self._answers, []
        for answer, result in answers:
            answer(result)

    def _close(self, model: ServedModel, row: Incarnation) -> None:
        self._loader.close(row.entry, lambda: self._later(lambda: self._drained(model, row)))

    def _load_ended(self, spec: LoadSpec, result: Any) -> None:
        self._later(lambda: self._ended(spec, result))

    def _later(self, result: Callable[[], None]) -> None:
        self._results.append(result)
        self._wake()

    @property
    def has_results(self) -> bool:
        return bool(self._results)

    def take_results(self) -> None:
        """Hands out what loads and closes have come to since."""
        results, self._results = self._results, []
        for result in results:
            result()
