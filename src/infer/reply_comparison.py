"""Two replies to the same request, held against each other by the measures of shadows. Any thread, one at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from infer._core.difference import Comparison
from infer.proto import message

Tensor = tuple[str, tuple[int, ...], bytes]


class ReplyComparison:
    """Of any number of pairs. `unseen`: outputs that are not compared."""

    def __init__(self, rtol: float, atol: float, unseen: Collection[str] = ()) -> None:
        self._rtol, self._atol, self._unseen = rtol, atol, frozenset(unseen)
        self._outputs: dict[str, Comparison] = {}
        self.agreed = self.differed = 0

    def add(self, reference: bytes, other: bytes) -> float:
        """How far ModelInferResponse `other` is from the reference: 0 where they agree, infinity where they cannot be
        compared."""
        one, two = _tensors(reference), _tensors(other)
        return self._add(one, two, {**one, **two})

    def add_tensors(self, reference: bytes, outputs: Mapping[str, Tensor]) -> float:
        """The same of outputs by name, of which those that the reference has count."""
        one = _tensors(reference)
        return self._add(one, outputs, one)

    def _add(self, one: Mapping[str, Tensor], two: Mapping[str, Tensor], names: Iterable[str]) -> float:
        badness = 0.0
        for name in names:
            if name in self._unseen:
                continue
            if name not in self._outputs:
                self._outputs[name] = Comparison(self._rtol, self._atol)
            badness = max(badness, self._outputs[name].add(one.get(name), two.get(name)))
        self.agreed += badness == 0
        self.differed += badness > 0
        return badness

    def outputs(self) -> dict[str, dict[str, Any]]:
        """By output, as `difference.described` has it."""
        return {name: each.result() for name, each in self._outputs.items()}


def _tensors(reply: bytes) -> dict[str, Tensor]:
    response = message("inference.ModelInferResponse").FromString(reply)
    return {output.name: (output.datatype, tuple(output.shape), raw)
            for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)}
