"""ONNX Runtime without any server: one model by batch size, on the core that it is pinned to.

Prints for each size rows per second of wall time and microseconds of CPU per row: where something else has a part of
the core, only the second stays comparable.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

BATCH_ROWS = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048)


def measure(path: Path, seconds: float, batches: Sequence[int] = BATCH_ROWS) -> dict[int, tuple[float, float]]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    tensor = session.get_inputs()[0]
    random = np.random.default_rng(11)
    figures = {}
    for rows in batches:
        feed = {tensor.name: random.uniform(-1, 1, (rows, *tensor.shape[1:])).astype(np.float32)}
        session.run(None, feed)
        runs, start_s, cpu_s = 0, time.monotonic(), time.process_time()
        while (spent_s := time.monotonic() - start_s) < seconds:
            session.run(None, feed)
            runs += 1
        figures[rows] = (runs * rows / spent_s, (time.process_time() - cpu_s) / (runs * rows) * 1e6)
    return figures


if __name__ == "__main__":
    only = tuple(map(int, sys.argv[3:])) or BATCH_ROWS
    print(json.dumps(measure(Path(sys.argv[1]), float(sys.argv[2]), only)))
