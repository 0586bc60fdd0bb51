"""Repositories as people have them, built from the files under tests/fixtures and small models.

Versions of a model are told apart by what they answer: version n of a scaling model answers n times its input.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support import models

FIXTURES = Path(__file__).parents[1] / "fixtures"
TRITON = FIXTURES / "triton_repository"
TRITON_COMPLETED = FIXTURES / "triton_completed"
TF_SERVING = FIXTURES / "tf_serving"

# Versions by model.
TRITON_VERSIONS: Mapping[str, tuple[int, ...]] = {
    "scale_latest": (1, 2, 3, 4, 5), "scale_all": (1, 2, 3, 4, 5), "scale_specific": (1, 2, 3, 4, 5), "simple": (1,),
    "minimal": (1,), "plain": (1, 2), "fixed": (1,), "tuned": (1,), "two_in_three_out": (1,),
}
TF_SERVING_VERSIONS: Mapping[str, tuple[int, ...]] = {
    "my_first_model": (1, 2, 3), "my_second_model": (1, 2, 3, 4, 5), "my_third_model": (1, 2),
}


def triton_repository(root: Path) -> Path:
    """A Triton repository of ONNX models under `root`, which it returns; `plain` has no config.pbtxt."""
    for name, versions in TRITON_VERSIONS.items():
        for version in versions:
            models.write_version(root, name, version, _model(name, version))
        if (TRITON / name).is_dir():
            shutil.copy(TRITON / name / "config.pbtxt", root / name / "config.pbtxt")
    (root / "tuned" / "1" / "model.onnx").rename(root / "tuned" / "1" / "net.onnx")
    return root


def tf_serving_models(root: Path) -> Path:
    """The models of a TensorFlow Serving configuration under `root`; returns its file."""
    for name, versions in TF_SERVING_VERSIONS.items():
        for version in versions:
            models.write_version(root, name, version, models.scale(float(version)))
    return Path(shutil.copy(TF_SERVING / "models.config", root / "models.config"))


def _model(name: str, version: int) -> bytes:
    if name == "simple":
        return models.add_sub_int32()
    if name == "two_in_three_out":
        return models.two_in_three_out()
    return models.scale(float(version), (1, 4) if name == "fixed" else ("batch", 4))
