"""Baseline that runs ONNX Runtime in the handler: no queue, no batch, no thread to hand over to."""

import numpy as np

from bench.baseline.serving import Model, Service, main


class InHandler(Service):
    async def infer(self, model: Model, rows: np.ndarray) -> list[np.ndarray]:
        model.executions += 1
        return model.run(rows)


if __name__ == "__main__":
    main(InHandler)
