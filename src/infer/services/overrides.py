"""What RepositoryModelLoad and Unload are told beside a name: parameters checked, files put into a private directory.

Triton's keys: `config`, a ModelConfig as JSON, and beside it `file:<version>/<name>`, which together take the place of
the model's directory. Ours: `label` with `version` moves a label and loads nothing. Loop thread only; files are written
and removed on another.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from infer.config import MODEL_NAME, MODEL_VERSION
from infer.errors import InvalidArgument, ResourceExhausted
from infer.proto import message

log = logging.getLogger("infer.server")

FILE = "file:"
KINDS = {"config": "string_param", "label": "string_param", "version": "int64_param"}
UNLOAD_KINDS = {"unload_dependents": "bool_param"}
CONFIG_CHARACTERS = 1 << 18
FILE_NAME = re.compile("[A-Za-z0-9_.-]{1,255}")
VERSION_MAX = 10**18 - 1
# Of the directory of one load.
PREFIX = "infer-load-"


class LabelMove(NamedTuple):
    label: str
    version: int        # 0: as the model's settings say


class LoadRequest(NamedTuple):
    config: str | None                          # as the text of a config.pbtxt
    files: dict[tuple[str, str], bytes]         # by version and name


def load_request(model: str, parameters: Mapping[str, Any]) -> LoadRequest | LabelMove:
    """What RepositoryModelLoad asks for. Raises InvalidArgument: which parameter, what was expected, what came."""
    plain = {key: value for key, value in parameters.items() if not key.startswith(FILE)}
    values = _values(model, plain, KINDS)
    files = dict(_file(model, key, value) for key, value in parameters.items() if key.startswith(FILE))
    if "label" in values or "version" in values:
        if set(values) != {"label", "version"} or files:
            raise InvalidArgument(f"model {model!r}: label and version move a label, both together and without other "
                                  f"parameters; got {', '.join(sorted(parameters))}")
        return LabelMove(_label(model, values["label"]), _label_version(model, values["version"]))
    if files and "config" not in values:
        raise InvalidArgument(f"model {model!r}: {FILE} parameters take the place of the model's directory, and need "
                              "config, its configuration as JSON, beside them")
    return LoadRequest(_config(model, values["config"]) if "config" in values else None, files)


def unload_request(model: str, parameters: Mapping[str, Any]) -> bool:
    """Whether models that depend on it are to be unloaded too. Raises InvalidArgument."""
    return bool(_values(model, parameters, UNLOAD_KINDS).get("unload_dependents", False))


def _values(model: str, parameters: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for key, parameter in parameters.items():
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, 1)
            raise InvalidArgument(f"model {model!r}: unknown parameter {key!r}" + (
                f" (did you mean {near[0]!r}?)" if near else f"; expected {', '.join(kinds)}"
                + (f", {FILE}<version>/<name>" if kinds is KINDS else "")))
        values[key] = _value(model, key, parameter, kinds[key])
    return values


def _value(model: str, key: str, parameter: Any, expected: str) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    if kind != expected:
        raise InvalidArgument(f"model {model!r}: parameter {key!r}: expected {expected}, got {kind or 'no value'}")
    return getattr(parameter, kind)


def _label(model: str, label: str) -> str:
    # One that looks like a version's number would name two things.
    if not MODEL_NAME.fullmatch(label) or label.isdecimal():
        raise InvalidArgument(f"model {model!r}: label {label[:128]!r}: expected 1 to 128 letters, digits, '_', '.' "
                              "and '-', not digits alone")
    return label


def _label_version(model: str, version: int) -> int:
    if not 0 <= version <= VERSION_MAX:
        raise InvalidArgument(f"model {model!r}: version {version}: expected a version's number, or 0 for what "
                              "the model's settings say")
    return version


def _file(model: str, key: str, parameter: Any) -> tuple[tuple[str, str], bytes]:
    version, slash, name = key.removeprefix(FILE).partition("/")
    if not slash or not MODEL_VERSION.fullmatch(version) or not FILE_NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidArgument(f"model {model!r}: parameter {key[:300]!r}: expected {FILE}<version>/<name>, such as "
                              f"{FILE}1/model.onnx: a version's number, and a name of letters, digits, '_', '.', '-'")
    content: bytes = _value(model, key, parameter, "bytes_param")
    return (version, name), content


def _config(model: str, text: str) -> str:
    from google.protobuf import json_format, text_format

    if len(text) > CONFIG_CHARACTERS:
        raise InvalidArgument(f"model {model!r}: parameter 'config' has {len(text)} characters, at most "
                              f"{CONFIG_CHARACTERS} are read")
    config = message("inference.ModelConfig")()
    try:
        json_format.Parse(text, config)
    except (json_format.ParseError, RecursionError) as error:
        raise InvalidArgument(f"model {model!r}: parameter 'config' is not a ModelConfig as JSON: {error}") from None
    if config.name not in ("", model):
        raise InvalidArgument(f"model {model!r}: parameter 'config' is of model {config.name!r}; leave its name out, "
                              "or load that one")
    written: str = text_format.MessageToString(config, as_utf8=True)
    return written


class HeldFiles(NamedTuple):
    """The files of one load; `directory` is as a model's in a repository."""

    root: Path
    directory: Path
    size_bytes: int


class OverrideFiles:
    """The files that models were loaded with, on disk for as long as these are served, within one bound.

    With a `place`, which no other server uses, that is over a restart too: `kept` says which directory below it each
    model is served from, and what else is there goes. Without one they end with the server.
    """

    def __init__(self, limit_bytes: int, place: Path | None = None, kept: Mapping[str, Path] | None = None) -> None:
        self.held_bytes = 0
        self._limit_bytes = limit_bytes
        self._place = place
        self._by_model: dict[str, HeldFiles] = {}
        if place is not None and place.is_dir():
            for model, directory in (kept or {}).items():
                if directory.is_dir() and directory.parent.parent == place:
                    sizes = (file.stat().st_size for file in directory.rglob("*") if file.is_file())
                    self._by_model[model] = HeldFiles(directory.parent, directory, sum(sizes))
            roots = {held.root for held in self._by_model.values()}
            for root in place.glob(f"{PREFIX}*"):
                if root not in roots:
                    _remove(root)
            self.held_bytes = sum(held.size_bytes for held in self._by_model.values())

    async def write(self, model: str, files: Mapping[tuple[str, str], bytes]) -> HeldFiles:
        """Raises ResourceExhausted where there is no room for them."""
        size_bytes = sum(map(len, files.values()))
        if self.held_bytes + size_bytes > self._limit_bytes:
            raise ResourceExhausted(
                f"model {model!r}: its files have {size_bytes} bytes, and those of other loads hold {self.held_bytes} "
                f"of {self._limit_bytes} (--max-override-bytes); unload models that were loaded with files, or put the "
                "model into the repository")
        self.held_bytes += size_bytes
        try:
            root = await _elsewhere(_write, self._place, model, files)
        except OSError as error:
            self.held_bytes -= size_bytes
            raise ResourceExhausted(f"model {model!r}: its files cannot be written: {error.strerror}; free space where "
                                    "the server keeps them (--state-dir, or TMPDIR without it)") from error
        return HeldFiles(root, root / model, size_bytes)

    async def keep(self, model: str, held: HeldFiles | None) -> None:
        """The model is served from these now, or from the repository; what it was served from before is removed."""
        before = self._by_model.pop(model, None)
        if held is not None:
            self._by_model[model] = held
        await self.discard(before)

    async def discard(self, held: HeldFiles | None) -> None:
        if held is not None:
            await _elsewhere(_remove, held.root)
            self.held_bytes -= held.size_bytes

    async def close(self) -> None:
        for model in list(self._by_model) if self._place is None else ():
            await self.keep(model, None)


async def _elsewhere(work: Any, *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def _write(place: Path | None, model: str, files: Mapping[tuple[str, str], bytes]) -> Path:
    if place is not None:
        place.mkdir(mode=0o700, exist_ok=True)
    # Its mode is 0700.
    root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    try:
        for (version, name), content in files.items():
            directory = root / model / version
            directory.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(content)
    except BaseException:
        _remove(root)
        raise
    return root


def _remove(root: Path) -> None:
    try:
        shutil.rmtree(root)
    except OSError as error:
        log.warning("files of a load cannot be removed: %s", error, extra={"path": str(root)})


def ensure_name(model: str) -> None:
    """Raises InvalidArgument for a name that no model can have."""
    if not MODEL_NAME.fullmatch(model) or model in (".", ".."):
        raise InvalidArgument(f"model name {model[:128]!r}: expected 1 to 128 letters, digits, '_', '.' and '-'")


def ensure_one_repository(repository: str) -> None:
    """Raises InvalidArgument for a repository that is named."""
    if repository:
        raise InvalidArgument(f"repository {repository[:128]!r}: repositories have no names here; leave "
                              "repository_name out")
