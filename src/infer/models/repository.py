"""The models to load at a start that looks at its paths once: of each model the highest version that is whole.

Reads directories and the heads of model files; any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from infer.errors import ConfigError
from infer.models.loading import LoadSpec
from infer.models.problems import described
from infer.models.source import Source

log = logging.getLogger("infer.models")


def scan(paths: Sequence[Path], name: str | None = None) -> list[LoadSpec]:
    """The models under `paths`, by name. `name` renames the only one. What is wrong beside them is logged.

    Raises ConfigError with every problem where there is nothing that can be served.
    """
    if not paths:
        raise ConfigError("no path to serve was given; name a model.onnx, its directory or a repository")
    seen = Source(paths, name, settle_ns=0).observe(0)
    found: list[LoadSpec] = []
    for model, each in sorted(seen.models.items()):
        sound = [files for files in each.versions.values() if files.whole and not files.fault and not each.refusal]
        if sound:
            files = max(sound, key=lambda files: files.version)
            found.append(LoadSpec(model, files.version, files, each.settings, len(found)))
    if not found:
        raise ConfigError(described(seen.problems, "the models to serve"))
    for problem in seen.problems:
        log.log(logging.ERROR if problem.is_error else logging.WARNING, "%s", problem)
    return found
