"""A call through the whole pipeline on one thread: open, submit, batch, an identity model's run, its reply."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from bench.load.payload import row_request
from bench.micro.timing import Row, measure
from infer._core import _testing_bench_pipeline as core
from infer._core import clock
from infer._core.executor import ExecutorPool
from infer._core.model_version import VersionEntry
from infer._core.ort_runtime import Runtime
from infer._core.ort_session import OrtSession, attach
from infer._core.pipeline import Pipeline
from infer._core.router import RouteTable, route_to_highest
from infer._core.tenants import Tenants
from infer.quotas import NONE

COLUMNS = 16
HOUR_NS = 3_600 * 10**9


class NoTimers:
    """An event loop whose timers never come: no deadline of the benchmark does either."""

    def call_later(self, delay: float, callback: Any) -> "NoTimers":
        return self

    def cancel(self) -> None:
        pass


def identity_entry(folder: Path) -> VersionEntry:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", COLUMNS]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    path = folder / "identity.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    session = OrtSession(Runtime(), path, providers=[("CPUExecutionProvider", {})])
    entry = VersionEntry("identity", "1", session, session.inputs, session.outputs, batched=True, max_rows=64,
                         gather_rows=64, delay_ns=0, queue_limit_rows=4096, max_running=1, properties={})
    attach(entry, session)
    return entry


def rows() -> Iterator[Row]:
    loop: Any = NoTimers()
    pool = ExecutorPool(1)
    with tempfile.TemporaryDirectory() as folder:
        entry = identity_entry(Path(folder))
    pipeline = Pipeline(loop, pool, RouteTable([]), Tenants(1, NONE))
    pipeline.attach(entry)
    pipeline.set_routes(RouteTable([("identity", route_to_highest([entry]))]))
    loops = partial(core.calls, pipeline=pipeline, pool=pool, message=row_request("identity", (COLUMNS,)))
    for batch in (1, 64):
        yield measure("pipeline", f"submit to reply, batches of {batch}", partial(loops, batch=batch))
    yield measure("pipeline", "submit to reply, batches of 64, deadlines",
                  partial(loops, batch=64, deadline_ns=clock.now() + HOUR_NS))
    pipeline.detach(entry)
