"""The bundled example models and the held-out data beside them. examples/models/build.py describes the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import infer
from infer.errors import NotFound

EXAMPLES = ("digits", "trees")


@dataclass(frozen=True)
class Sample:
    """Rows that training did not see."""

    inputs: dict[str, Any]      # arrays by input
    truth: Any                  # the data set's own labels
    expected: dict[str, Any]    # scikit-learn's predictions by output
    classes: list[str]          # the name of each label

    @property
    def rows(self) -> int:
        return len(self.truth)


def examples_directory() -> Path:
    """Of the example models: in the package, or in the checkout that it is run from."""
    package = Path(infer.__file__).parent
    for candidate in (package / "examples/models", package.parents[1] / "examples/models"):
        if candidate.is_dir():
            return candidate
    raise NotFound("the example models are neither in the installed package nor in a checkout around it")


def load_sample(model: str) -> Sample | None:
    """The sample of a bundled model, None for any other."""
    import numpy as np

    if model not in EXAMPLES:
        return None
    try:
        file = examples_directory() / model / "sample.npz"
    except NotFound:
        return None
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as arrays:
        def group(prefix: str) -> dict[str, Any]:
            return {key.removeprefix(prefix): arrays[key] for key in arrays.files if key.startswith(prefix)}

        return Sample(group("input."), arrays["truth.label"], group("expected."), arrays["classes"].tolist())
