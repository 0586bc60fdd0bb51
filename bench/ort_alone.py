"""ONNX Runtime without any server: rows per second of one model by batch size, on the core that it is pinned to."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

BATCH_ROWS = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048)


def rows_per_second(path: Path, seconds: float, batches: Sequence[int] = BATCH_ROWS) -> dict[int, float]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    tensor = session.get_inputs()[0]
    random = np.random.default_rng(11)
    rates = {}
    for rows in batches:
        feed = {tensor.name: random.uniform(-1, 1, (rows, *tensor.shape[1:])).astype(np.float32)}
        session.run(None, feed)
        runs, start_s = 0, time.monotonic()
        while (spent_s := time.monotonic() - start_s) < seconds:
            session.run(None, feed)
            runs += 1
        rates[rows] = runs * rows / spent_s
    return rates


if __name__ == "__main__":
    only = tuple(map(int, sys.argv[3:])) or BATCH_ROWS
    print(json.dumps(rows_per_second(Path(sys.argv[1]), float(sys.argv[2]), only)))
