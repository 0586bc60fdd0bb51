"""What one look at the model repositories found: models, their settings and their version directories. Pure data.

Made by `source` on a thread of its own, handed to `manager` on the loop's. Immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infer.models.problems import Problem
from infer.models.settings import ModelSettings


@dataclass(frozen=True)
class VersionFiles:
    """One version directory, or the bare file that stands for version 1.

    While one that was whole is written anew, or cannot be read, its fingerprint stays that of its last whole state.
    """

    version: int
    path: Path                  # of the model file
    directory: Path
    fingerprint: str            # changes whenever a file of the version does
    whole: bool = True          # False: still being written; what was loaded from it before stays
    root: Path | None = None    # what no link of it may lead out of; None: a file that the operator named
    alone: bool = True          # all that is in the directory is the version's; False: only what the model names
    fault: str = ""             # why it cannot be loaded as it is, where that can be told without loading it


@dataclass(frozen=True)
class ModelSeen:
    """One model. With a `refusal`, what is written for it now cannot be served, and what was served before stays."""

    settings: ModelSettings
    versions: Mapping[int, VersionFiles]
    refusal: str = ""


@dataclass(frozen=True)
class Snapshot:
    """All models by name. In one that is not `complete`, a root could not be read: a model missing is not gone."""

    models: Mapping[str, ModelSeen]
    problems: tuple[Problem, ...] = ()
    complete: bool = True
