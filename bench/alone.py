"""ONNX Runtime without a server, as the servers' yardstick: bench.ort_alone in a process of its own on their core."""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.targets import ROOT


class Alone:
    """One model's rows per second, measured in the same rounds as the servers."""

    def __init__(self, model: str, root: Path, core: int) -> None:
        self.path = root / model / "1" / "model.onnx"
        self.core = core
        self.by_batch: dict[int, float] = {}
        self.batch_rows = 0
        self.rates: list[float] = []

    def _measure(self, seconds: float, *batches: int) -> dict[int, float]:
        command = ["taskset", "-c", str(self.core), sys.executable, "-m", "bench.ort_alone", str(self.path)]
        command += [str(seconds), *map(str, batches)]
        output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        return {int(rows): rate for rows, rate in json.loads(output).items()}

    def round(self, seconds: float) -> None:
        """Rows per second at the best batch size, which the first round finds."""
        if not self.rates:
            self.by_batch = self._measure(min(0.5, seconds))
            self.batch_rows = max(self.by_batch, key=lambda rows: self.by_batch[rows])
        self.rates += self._measure(seconds, self.batch_rows).values()

    def record(self) -> dict[str, Any]:
        return {
            "batch_rows": self.batch_rows,
            "rows_per_s": statistics.median(self.rates),
            "rounds": self.rates,
            "by_batch": self.by_batch,
        }
