"""Generations of a model: the same question, and another answer from each, so that a reply says which one gave it.

Weights come from the generation's number, made anew in every run and the same in each. A generation is put in place as
the directory of a version of its own, or as the new file of the version before it. Its directory or file is made
beforehand, so that putting it in place is a rename.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import helper, numpy_helper

from bench.load.payload import row_values
from bench.models import save

ROW = (16,)
HIDDEN = 32
# Of 64 bytes each: 100 MB.
TABLE_ROWS = 1_562_500
# All versions have as many digits, so that all replies have one length.
FIRST_VERSION = 1001
# Every third generation is the new content of the version before it.
REPLACE_EVERY = 3
# Between the answers of two generations; what the weights add is far below it.
STRIDE = 100.0
TOLERANCE = 0.01
MODEL_FILE, MARKER = "model.onnx", "_READY"
# So long that a file's time is another, however coarse the kernel's clock for them is.
TIME_STEP_S = 0.02

Make = Callable[[Path, int], float]


@dataclass(frozen=True)
class Generation:
    number: int
    version: int
    is_replacement: bool = False


def plan(count: int) -> list[Generation]:
    """The first, and `count` after it."""
    generations = [Generation(0, FIRST_VERSION)]
    for number in range(1, count + 1):
        replaces = number % REPLACE_EVERY == 0
        generations.append(Generation(number, generations[-1].version + (not replaces), replaces))
    return generations


def make_small(path: Path, seed: int) -> float:
    """16-32-1; what it answers to the row of the bench."""
    random = np.random.default_rng(seed)
    first = random.standard_normal((*ROW, HIDDEN), dtype=np.float32) / np.float32(4)
    second = random.standard_normal((HIDDEN, 1), dtype=np.float32) / np.float32(6)
    shift = np.array([seed * STRIDE], np.float32)
    save(path, [helper.make_node("Gemm", ["x", "first"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
                helper.make_node("Gemm", ["r", "second", "shift"], ["y"])], ROW, 1,
         [numpy_helper.from_array(each, name) for name, each in
          (("first", first), ("second", second), ("shift", shift))])
    hidden = np.maximum(row_values((1, *ROW)).astype(np.float64) @ first, 0.0)
    return float((hidden @ second + shift).item())


def make_large(path: Path, seed: int) -> float:
    """A table of 100 MB, of which a row is looked up: much to load and little to run."""
    table = np.random.default_rng(seed).standard_normal((TABLE_ROWS, *ROW), dtype=np.float32)
    weights = np.full((*ROW, 1), 1 / ROW[0], np.float32)
    shift = np.array([seed * STRIDE], np.float32)
    save(path, [helper.make_node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
                helper.make_node("Gather", ["table", "i"], ["e"], axis=0),
                helper.make_node("Gemm", ["e", "weights", "shift"], ["y"])], ROW, 1,
         [numpy_helper.from_array(each, name) for name, each in
          (("table", table), ("weights", weights), ("shift", shift))])
    return float((table[int(row_values(ROW).argmax())].astype(np.float64) @ weights + shift).item())


class Lineage:
    """The generations of one model under `root`; `staging`, on the same file system, holds those to come."""

    def __init__(self, root: Path, staging: Path, model: str, make: Make, count: int) -> None:
        self.model = model
        self.generations = plan(count)
        self.answers: list[float] = []
        self._base = root / model
        self._staging = staging / model
        for generation in self.generations:
            path = self._staging / str(generation.number) / MODEL_FILE
            path.parent.mkdir(parents=True)
            self.answers.append(make(path, generation.number))
        self._base.mkdir(parents=True)
        self._directory(0).rename(self._base / str(FIRST_VERSION))

    def stage(self, number: int) -> None:
        """Under a name that no version has, but in the model's directory: where a copy that takes long is made."""
        self._directory(number).rename(self._hidden(number))

    def place(self, number: int) -> None:
        """In one step; the version before it is gone at once."""
        generation = self.generations[number]
        directory = self._base / str(generation.version)
        if generation.is_replacement:
            (self._hidden(number) / MODEL_FILE).replace(directory / MODEL_FILE)
            self._hidden(number).rmdir()
            time.sleep(TIME_STEP_S)
            (directory / MARKER).write_bytes(b"")
            return
        self._hidden(number).rename(directory)
        shutil.rmtree(self._base / str(self.generations[number - 1].version))

    def generation_of(self, answer: float) -> int | None:
        """Which one answers so."""
        if not math.isfinite(answer):
            return None
        number = round(answer / STRIDE)
        near = [each for each in (number - 1, number, number + 1)
                if 0 <= each < len(self.answers) and abs(answer - self.answers[each]) < TOLERANCE]
        return near[0] if near else None

    def _directory(self, number: int) -> Path:
        return self._staging / str(number)

    def _hidden(self, number: int) -> Path:
        return self._base / f".next-{number}"


def copy_first(lineage_root: Path, twin_root: Path) -> None:
    """The models as they are first, for a server whose models stay."""
    shutil.copytree(lineage_root, twin_root)
    os.sync()
