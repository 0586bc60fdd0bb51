"""The few keys of an MLflow model's `MLmodel` that matter here: which file, from which run, with what signature.

MLmodel is YAML as PyYAML's safe_dump writes it: mappings in block style, scalars plain or quoted and folded over
lines. Of the keys that are asked for everything else (anchors, tags, block scalars, flow style) is refused rather than
guessed at; other keys are passed over by their indentation. Pure but for the read; any thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infer.models.problems import Problem, error

MLMODEL = "MLmodel"
# A real one has a few KiB; an input example written into it some more.
BYTES_MOST = 1 << 20

_KEY = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[A-Za-z0-9_][^:#]*?):(?:\s+(.*))?$""")
# In double quotes a backslash at a line's end, which is a space here, keeps what is around the break together.
_ESCAPE = re.compile(r"\\( (?:\\ )?|.)")
_NOT_READ = "&*!|>[{@`%"

Line = tuple[int, int, str]         # number in the file, from 1; indentation; text


@dataclass(frozen=True)
class MlflowModel:
    data: str                       # the model's file
    run_id: str = ""
    model_uuid: str = ""
    created: str = ""
    version: str = ""               # of MLflow
    inputs: str = ""                # signature, as JSON
    outputs: str = ""


class _Refused(Exception):
    def __init__(self, number: int, key: str, got: str) -> None:
        super().__init__(got)
        self.number, self.key, self.got = number, key, got


def read_mlmodel(path: Path) -> tuple[MlflowModel | None, Problem | None]:
    """Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        content = file.read(BYTES_MOST + 1)
    if len(content) > BYTES_MOST:
        return None, error(str(path), "", "E213", expected=f"at most {BYTES_MOST} bytes", fix="log the model again")
    return parse_mlmodel(content.decode("utf-8", "replace"), str(path))


def parse_mlmodel(text: str, place: str) -> tuple[MlflowModel | None, Problem | None]:
    lines = [(number, len(line) - len(line.lstrip(" ")), line.strip()) for number, line in
             enumerate(text.splitlines(), 1) if line.strip() not in ("---", "...") and line.lstrip()[:1] != "#"]
    try:
        top = dict(_mapping(lines))
        flavors = dict(_mapping(top["flavors"][1])) if "flavors" in top else {}
        if "onnx" not in flavors:
            known = ", ".join(flavors) or "none"
            number = top["flavors"][0] if "flavors" in top else 1
            return None, error(f"{place}:{number}", "flavors", "E213", expected="the flavor onnx", got=known,
                               fix="log the model with mlflow.onnx.log_model, or remove MLmodel")
        flavor = dict(_mapping(flavors["onnx"][1]))
        if "data" not in flavor:
            return None, error(f"{place}:{flavors['onnx'][0]}", "flavors.onnx.data", "E213",
                               expected="the name of the model's file", fix="log the model again")
        signature = dict(_mapping(top["signature"][1])) if "signature" in top else {}
        said = {name: _scalar(top, key) for name, key in (("run_id", "run_id"), ("model_uuid", "model_uuid"),
                                                           ("created", "utc_time_created"),
                                                           ("version", "mlflow_version"))}
        return MlflowModel(_scalar(flavor, "data"), **said, inputs=_signature(signature, "inputs"),
                           outputs=_signature(signature, "outputs")), None
    except _Refused as refused:
        return None, error(f"{place}:{refused.number}", refused.key, "E213", expected="as MLflow writes it",
                           got=refused.got, fix="log the model again, or remove MLmodel")


Block = tuple[int, list[Line]]      # its line; what follows the colon, then the lines below it


def _mapping(lines: Sequence[Line]) -> Iterator[tuple[str, Block]]:
    """The keys of a block mapping, each with what belongs to it."""
    lines = [line for line in lines if line[2]]
    if not lines or (len(lines) == 1 and lines[0][2] in ("null", "~", "{}")):
        return
    outer = lines[0][1]
    at = 0
    while at < len(lines):
        number, indent, text = lines[at]
        match = _KEY.match(text) if indent == outer else None
        if match is None:
            raise _Refused(number, "", text[:40])
        end = at + 1
        # A sequence may stand at the indentation of its key.
        while end < len(lines) and lines[end][1] >= outer + (not lines[end][2].startswith("-")):
            end += 1
        first = [(number, -1, match[2])] if match[2] else []
        yield match[1].strip("\"'"), (number, [*first, *lines[at + 1:end]])
        at = end


def _scalar(mapping: dict[str, Block], key: str) -> str:
    """A scalar's text; "" where it is missing or null. Lines that it is folded over are joined by a space."""
    if key not in mapping:
        return ""
    number, lines = mapping[key]
    text = " ".join(part for _, _, part in lines)
    if text in ("", "null", "~"):
        return ""
    if text[0] == "'":
        if not re.fullmatch(r"'(?:[^']|'')*'", text):
            raise _Refused(number, key, text[:40])
        return text[1:-1].replace("''", "'")
    if text[0] == '"':
        try:
            return str(json.loads(_ESCAPE.sub(_unfolded, text)))
        except ValueError:
            raise _Refused(number, key, text[:40]) from None
    inline = lines[0][1] == -1
    if not inline or text[0] in _NOT_READ or text.startswith("- ") or ": " in text or " #" in text:
        raise _Refused(number, key, text[:40])
    return text


def _unfolded(match: re.Match[str]) -> str:
    return match[0] if match[1][0] != " " else " " if len(match[1]) > 1 else ""


def _signature(mapping: dict[str, Block], key: str) -> str:
    text = _scalar(mapping, key)
    if text:
        try:
            json.loads(text)
        except ValueError:
            raise _Refused(mapping[key][0], f"signature.{key}", text[:40]) from None
    return text
