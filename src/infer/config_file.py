"""Settings as they are written in a TOML file: each with its line. Any thread."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from infer.config_replicas import TABLE as REPLICAS
from infer.config_values import nearest

# Settings that are one path; in a file they are relative to it.
PATH_FIELDS = frozenset({"uds", "onnxruntime_library", "tls_cert", "tls_key", "tls_client_ca", "state_dir",
                         "model_config_file", "replicas_ca"})
# Tables of models and tenants, which those who know models read.
TABLES = frozenset({"models", "tenants"})


class Origin(NamedTuple):
    """Where a setting's value was written, and as what."""

    value: object
    place: str

    @property
    def is_default(self) -> bool:
        return self.place == "default"


def from_file(file: Path, known: Sequence[str], problems: list[str]) -> dict[str, Origin]:
    """The settings of a file by name, each with its line; what is wrong goes to `problems`."""
    try:
        text = file.read_text("utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        problems.append(f"{file}: cannot be read: {error.strerror}")
        return {}
    except UnicodeDecodeError:
        problems.append(f"{file}: is not UTF-8 text")
        return {}
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        place = f"{file}:{line[1]}:{line[2]}" if line else f"{file}"
        problems.append(f"{place}: is not TOML: {re.sub(r' [(]at .*', '', str(error))}")
        return {}
    found: dict[str, Origin] = {}
    for key, value in table.items():
        if key in TABLES and isinstance(value, dict):
            continue
        if key == "replicas" and isinstance(value, dict):
            found |= _replicas(value, file, text, problems)
            continue
        place = f"{file}:{_line_of(key, text)}"
        if key not in known:
            advice = nearest(key, known)
            advice += "; settings stand at the top, in no table" if isinstance(value, dict) else ""
            problems.append(f"{place}: unknown setting {key!r}{advice}")
        else:
            found[key] = Origin(_resolved(key, value, file.parent), f"{place}: {key}")
    return found


def _replicas(table: dict[str, object], file: Path, text: str, problems: list[str]) -> dict[str, Origin]:
    """The table of that name, whose keys are settings by names of their own."""
    found = {}
    for key, value in table.items():
        place = f"{file}:{_line_of('replicas', text)}"
        if key not in REPLICAS:
            problems.append(f"{place}: [replicas] has an unknown key {key!r}{nearest(key, list(REPLICAS))}")
        else:
            found[REPLICAS[key]] = Origin(_resolved(REPLICAS[key], value, file.parent), f"{place}: [replicas] {key}")
    return found


def _resolved(key: str, value: object, base: Path) -> object:
    """Paths in the file are relative to it."""
    if key in ("paths", "model_repository") and isinstance(value, list):
        return [str(base / item) if isinstance(item, str) else item for item in value]
    if key in PATH_FIELDS and isinstance(value, str):
        return str(base / value)
    return value


def _line_of(key: str, text: str) -> int:
    """The line, from 1, where a top-level key is first written."""
    start = re.compile(rf"\s*(\[+\s*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    return next((number for number, line in enumerate(text.splitlines(), 1) if start.match(line)), 1)
