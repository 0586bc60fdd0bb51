"""ONNX Runtime without a server, as the servers' yardstick: bench.ort_alone in a process of its own on their core."""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.targets import ROOT


class Alone:
    """One model, measured in the same rounds as the servers."""

    def __init__(self, model: str, root: Path, core: int) -> None:
        self.path = root / model / "1" / "model.onnx"
        self.core = core
        self.by_batch: dict[int, tuple[float, float]] = {}
        self.batch_rows = 0
        self.rounds: list[tuple[float, float]] = []

    def _measure(self, seconds: float, *batches: int) -> dict[int, tuple[float, float]]:
        """Rows per second and CPU per row (us), by batch size."""
        command = ["taskset", "-c", str(self.core), sys.executable, "-m", "bench.ort_alone", str(self.path)]
        command += [str(seconds), *map(str, batches)]
        output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        return {int(rows): (rate, cpu_us) for rows, (rate, cpu_us) in json.loads(output).items()}

    def round(self, seconds: float) -> None:
        """At the batch size that is best for it, which the first round finds."""
        if not self.rounds:
            self.by_batch = self._measure(min(0.5, seconds))
            self.batch_rows = min(self.by_batch, key=lambda rows: self.by_batch[rows][1])
        self.rounds += self._measure(seconds, self.batch_rows).values()

    def record(self) -> dict[str, Any]:
        return {
            "batch_rows": self.batch_rows,
            "rows_per_s": statistics.median(rate for rate, _ in self.rounds),
            "cpu_us": statistics.median(cpu_us for _, cpu_us in self.rounds),
            "rounds": self.rounds,
            "by_batch": self.by_batch,
        }
