"""What a session shows of a model: why it is refused, left out in part, or not batched. Pure; any thread.

A load says it in the log and in its error, `infer check` prints it, both in these words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from infer._core.model_version import TensorInfo
from infer.models.problems import Problem, error, warning

if TYPE_CHECKING:
    from infer._core.onnx_facts import OnnxFacts

# How the runtime says that a model asks for more than it has.
_TOO_NEW = re.compile("No Op registered|not a registered function/op|Could not find an implementation|"
                      "Unsupported model IR version|ONNX Runtime only .?guarantees.? support")
_CANNOT_LOAD = re.compile("ONNX Runtime [^ ]+ cannot load it")
_NO_OUTPUT = "none of the model's outputs is a tensor"
_EXPORT = "export the model again"
_CAUSE_CHARACTERS = 700


def refusal_fix(message: str) -> str:
    """What to do about an error of a session that says nothing of it, "" for any other."""
    if _TOO_NEW.search(message):
        return "upgrade onnxruntime, or export the model again with operators and an opset that it has"
    return _EXPORT if _CANNOT_LOAD.search(message) else ""


def refusal(place: str, message: str) -> Problem:
    """The error of a session as a problem of the file."""
    cause, fix = message, refusal_fix(message)
    if not fix:
        cause, _, fix = message.partition("; ")
    if len(cause) > _CAUSE_CHARACTERS:
        cause = cause[:_CAUSE_CHARACTERS] + "..."
    if _NO_OUTPUT in cause:
        return error(place, "output", "E309", cause=cause, fix=fix)
    return error(place, "", "E306" if _TOO_NEW.search(message) else "E307", cause=cause, fix=fix or _EXPORT)


def left_out(place: str, facts: OnnxFacts | None, outputs: Sequence[TensorInfo]) -> Iterator[Problem]:
    """The outputs that are not served, of a model that is."""
    if facts is None:
        return
    unserved = {info.name for info in outputs if not info.served}
    for name, kind, _, _ in facts["outputs"]:
        made_of_tensors = kind in ("sequence", "map")
        if name in unserved or made_of_tensors:
            zipmap = facts["zipmap"] and made_of_tensors
            yield warning(place, f"output {name!r}", "W301", expected="a tensor",
                          got=f"a {kind or 'value without a type'}" + (" made by ZipMap" if zipmap else ""),
                          fix="convert the model with options={'zipmap': False}" if zipmap
                          else "export it with tensors alone")


def not_batched(place: str, objection: str) -> Problem:
    """`objection`: what speaks against it in the declared shapes."""
    return warning(place, "", "W302", cause=f"is not batched: {objection}",
                   fix="export the model with one name for the first dimension of every input and output, or write "
                   "max_batch_size into config.pbtxt")
