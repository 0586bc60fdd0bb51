"""What both baselines share: sessions of a model directory, the cold RPCs, one reply, start and stop."""

import argparse
import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
import uvloop

from bench.baseline.stubs import load

pb2, pb2_grpc = load()

MAX_MESSAGE_BYTES = 64 << 20


class Model:
    """One ONNX Runtime session with the names and types that a request is checked against."""

    def __init__(self, name: str, path: Path, intra_op: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op
        options.inter_op_num_threads = 1
        self.name = name
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.rows = 0
        self.requests = 0
        self.executions = 0

    def run(self, rows: np.ndarray) -> list[np.ndarray]:
        outputs: list[np.ndarray] = self.session.run(self.outputs, {self.input: rows})
        return outputs


class Service(pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[name-defined,misc]
    """The RPCs that do not differ; a baseline adds `infer`."""

    def __init__(self, models: dict[str, Model]) -> None:
        self.models = models

    async def infer(self, model: Model, rows: np.ndarray) -> list[np.ndarray]:
        raise NotImplementedError

    async def close(self) -> None:
        """Called once the last call has ended."""

    async def ServerLive(self, request: Any, context: Any) -> Any:
        return pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return pb2.ServerReadyResponse(ready=True)

    async def ModelStatistics(self, request: Any, context: Any) -> Any:
        reply = pb2.ModelStatisticsResponse()
        for model in self.models.values():
            if request.name in ("", model.name):
                stats = reply.model_stats.add(name=model.name, version="1", inference_count=model.rows)
                stats.execution_count = model.executions
                stats.inference_stats.success.count = model.requests
        return reply

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        model = self.models.get(request.model_name)
        if model is None:
            return await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {request.model_name!r}")
        if len(request.inputs) != 1 or len(request.raw_input_contents) != 1:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "one raw input is expected")
        tensor = request.inputs[0]
        if tensor.name != model.input or tensor.datatype != "FP32":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the input is {model.input}, FP32")
        try:
            rows = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tensor.shape)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        outputs = await self.infer(model, rows)
        model.requests += 1
        model.rows += len(rows)
        reply = pb2.ModelInferResponse(model_name=model.name, model_version="1", id=request.id)
        for name, array in zip(model.outputs, outputs, strict=True):
            reply.outputs.add(name=name, datatype="FP32", shape=array.shape)
            reply.raw_output_contents.append(array.tobytes())
        return reply


def load_models(root: Path) -> dict[str, Model]:
    """Every `<name>/1/model.onnx` under root."""
    intra_op = len(os.sched_getaffinity(0))
    paths = sorted(root.glob("*/1/model.onnx"))
    if not paths:
        raise SystemExit(f"no <name>/1/model.onnx under {root}")
    return {path.parts[-3]: Model(path.parts[-3], path, intra_op) for path in paths}


async def _serve(service: Service, port: int) -> None:
    limits = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    server = grpc.aio.server(options=limits)
    pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(f"ready port={bound}", flush=True)
    await stop.wait()
    await server.stop(grace=5)
    await service.close()


def main(make: Callable[[dict[str, Model]], Service]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=Path, help="directory of <name>/1/model.onnx")
    parser.add_argument("--port", type=int, default=0, help="0 = any, printed")
    arguments = parser.parse_args()

    async def start() -> None:
        await _serve(make(load_models(arguments.models)), arguments.port)

    uvloop.run(start())
