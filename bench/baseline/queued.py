"""Baseline with an asyncio queue per model: gathers rows, runs them in an executor thread, scatters the outputs.

Work-conserving: while a batch runs the next one gathers; nothing waits for a batch to fill.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bench.baseline.serving import Model, Service, main

GATHER_ROWS = 64
Item = tuple[np.ndarray, "asyncio.Future[list[np.ndarray]]"]


class Queued(Service):
    def __init__(self, models: dict[str, Model]) -> None:
        super().__init__(models)
        self.executor = ThreadPoolExecutor(1)
        self.queues: dict[str, asyncio.Queue[Item]] = {name: asyncio.Queue() for name in models}
        self.tasks = [asyncio.create_task(self.batch(model)) for model in models.values()]

    async def infer(self, model: Model, rows: np.ndarray) -> list[np.ndarray]:
        answer: asyncio.Future[list[np.ndarray]] = asyncio.get_running_loop().create_future()
        self.queues[model.name].put_nowait((rows, answer))
        return await answer

    async def batch(self, model: Model) -> None:
        """Feed one model; ends when it is cancelled."""
        queue = self.queues[model.name]
        while True:
            items = [await queue.get()]
            count = len(items[0][0])
            while count < GATHER_ROWS and not queue.empty():
                items.append(queue.get_nowait())
                count += len(items[-1][0])
            await self.run(model, items)

    async def run(self, model: Model, items: list[Item]) -> None:
        loop = asyncio.get_running_loop()
        try:
            rows = items[0][0] if len(items) == 1 else np.concatenate([item[0] for item in items])
            outputs = await loop.run_in_executor(self.executor, model.run, rows)
        except Exception as error:
            for _, answer in items:
                if not answer.done():
                    answer.set_exception(error)
            return
        model.executions += 1
        first = 0
        for part, answer in items:
            last = first + len(part)
            if not answer.done():
                answer.set_result([output[first:last] for output in outputs])
            first = last

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.executor.shutdown()


if __name__ == "__main__":
    main(Queued)
