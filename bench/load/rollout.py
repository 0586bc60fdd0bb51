"""`make bench-rollout`: versions that are worse than they look, rolled out under load, and one that is as good.

A network trained on real data (scikit-learn's diabetes) answers 2,000 calls a second, as many for each of 100 rows.
Then versions of it are rolled out from 1% on: one whose runs fail for 5% of the calls, one that takes three times as
long, one whose outputs are 30% too large, and one whose weights are rounded to 16 bits. Of each of the first three:
when it was taken back, counted from its first call, how many calls it had until then beside what its test needs for
such an effect, and whether any other call was lost. The last one has to come to answer every call.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.bars import Bar
from bench.baseline import stubs
from bench.compare import BUILD
from bench.growth import Result, run_parts
from bench.load.floods import take_precedence
from bench.models import IR_VERSION, OPSET
from bench.targets import SERVICE, Server, add_server_options, free_port, ours, require_two_cores
from infer._core import load_client
from infer.rollouts import LIMITS, RolloutSettings
from infer.traffic.sequential import samples_needed

MODEL = "risk"
WIDTH, SLOW_TIMES, SHIFT = 2048, 3, 1.3
RATE, ROWS, FAILING_ROWS = 2000.0, 100, 5
TRAINED, EPOCHS = 300, 25
GOOD, FAILS, SLOW, SHIFTED = "as good", "5% errors", "3 times slower", "shifted outputs"
VERSIONS = {FAILS: 2, SLOW: 3, SHIFTED: 4, GOOD: 5}
# What no row has but those that version 2 fails on.
BREAKS = 1e6
EVERY_S, QUICK_EVERY_S = 10.0, 5.0
STEADY_S, AFTER_S, END_S = 3.0, 2.0, 600.0
WITHIN_S = 30.0
STEPS = "1,5,25,50,100"
CONFIG = f"""
[models.{MODEL}]
version_policy = {{ all = {{}} }}
labels = {{ stable = 1 }}
"""


def write_models(root: Path) -> Path:
    """Versions 1 to 5, made once."""
    paths = {version: root / MODEL / str(version) / "model.onnx" for version in (1, *VERSIONS.values())}
    if all(path.exists() for path in paths.values()):
        return root
    layers = _trained()
    rounded = [tuple(part.astype(np.float16).astype(np.float32) for part in layer) for layer in layers]
    for version, model in {
            1: _model(layers), VERSIONS[FAILS]: _model(layers, fails=True),
            VERSIONS[SLOW]: _model(layers, times=SLOW_TIMES), VERSIONS[SHIFTED]: _model(layers, scale=SHIFT),
            VERSIONS[GOOD]: _model(rounded)}.items():
        paths[version].parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, paths[version])
    return root


def _data() -> tuple[Any, Any]:
    from sklearn.datasets import load_diabetes

    rows, target = load_diabetes(return_X_y=True, scaled=False)
    return rows.astype(np.float32), target


def _trained() -> list[tuple[Any, ...]]:
    """Weights and biases by layer, of rows as they are."""
    from sklearn.neural_network import MLPRegressor

    rows, target = _data()
    mean, spread = rows[:TRAINED].mean(0), rows[:TRAINED].std(0)
    network = MLPRegressor(hidden_layer_sizes=(WIDTH, WIDTH), random_state=1, learning_rate_init=1e-4)
    for _ in range(EPOCHS):
        network.partial_fit((rows[:TRAINED] - mean) / spread, target[:TRAINED])
    layers = [(weights.astype(np.float32), biases.astype(np.float32))
              for weights, biases in zip(network.coefs_, network.intercepts_, strict=True)]
    weights, biases = layers[0]
    return [(weights / spread[:, None], biases - (mean / spread) @ weights), *layers[1:]]


def _model(layers: list[tuple[Any, ...]], *, fails: bool = False, times: int = 1, scale: float = 1.0
           ) -> onnx.ModelProto:
    """x -> y. `fails`: for rows that begin with BREAKS; `times`: the network is run so often."""
    columns = len(layers[0][0])
    values: dict[str, Any] = {
        "first": np.array(0, np.int64), "breaks": np.array(BREAKS, np.float32),
        "whole": np.array([-1, columns], np.int64), "scale": np.array(scale / times, np.float32)}
    if fails:
        values["impossible"] = np.array([1_000_003] * 2, np.int64)
    for number, (weights, biases) in enumerate(layers):
        values[f"w{number}"], values[f"b{number}"] = weights, biases
    nodes = [helper.make_node("Gather", ["x", "first"], ["column"], axis=1),
             helper.make_node("ReduceMax", ["column"], ["largest"], keepdims=0),
             helper.make_node("Equal", ["largest", "breaks"], ["broken"]),
             helper.make_node("Where", ["broken", "impossible" if fails else "whole", "whole"], ["shape"]),
             helper.make_node("Reshape", ["x", "shape"], ["rows"])]
    for turn in range(times):
        # Each run has an input of its own, so that none can be left out.
        values[f"near{turn}"] = np.array(1 + turn * 1e-6, np.float32)
        nodes.append(helper.make_node("Mul", ["rows", f"near{turn}"], [f"h{turn}.0"]))
        for number in range(len(layers)):
            nodes.append(helper.make_node("Gemm", [f"h{turn}.{number}", f"w{number}", f"b{number}"],
                                          [f"g{turn}.{number}"]))
            if number < len(layers) - 1:
                nodes.append(helper.make_node("Relu", [f"g{turn}.{number}"], [f"h{turn}.{number + 1}"]))
    nodes += [helper.make_node("Sum", [f"g{turn}.{len(layers) - 1}" for turn in range(times)], ["sum"]),
              helper.make_node("Mul", ["sum", "scale"], ["y"])]
    graph = helper.make_graph(
        nodes, MODEL, [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(value, name) for name, value in values.items()])
    return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])


def payloads() -> list[bytes]:
    """Of rows that it was not trained on; the last ones are those that version 2 fails on."""
    pb2, _ = stubs.load()
    found = []
    for number, row in enumerate(_data()[0][TRAINED:TRAINED + ROWS]):
        if number >= ROWS - FAILING_ROWS:
            row[0] = BREAKS
        request = pb2.ModelInferRequest(model_name=MODEL)
        request.inputs.add(name="x", datatype="FP32", shape=[1, len(row)])
        request.raw_input_contents.append(row.tobytes())
        found.append(bytes(request.SerializeToString()))
    return found


@dataclass(frozen=True)
class Calls:
    """All calls of a load, by when they began."""

    began_ns: Any
    took_ns: Any
    version: Any
    """0 for one that was not answered with OK."""
    fails: Any
    """Whether version 2 would fail on it."""
    failures: dict[str, int]


class Load:
    """A client for each row, until `end`."""

    def __init__(self, server: Server) -> None:
        self._ended = threading.Event()
        self._results: list[load_client.LoadResult | Exception | None] = [None] * ROWS
        self._threads = [threading.Thread(target=self._run, args=(server, number, message))
                         for number, message in enumerate(payloads())]
        for thread in self._threads:
            thread.start()

    def _run(self, server: Server, number: int, message: bytes) -> None:
        try:
            take_precedence()
            # Replies of a model whose traffic is divided are longer, by the variant.
            self._results[number] = load_client.run(
                server.address, f"{SERVICE}/ModelInfer", message, 1, 64, rate=RATE / ROWS, record=True,
                any_length=True, until=self._ended.is_set)
        except Exception as error:
            self._results[number] = error

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def calls(self) -> Calls:
        pb2, _ = stubs.load()
        began, took, version, fails = [], [], [], []
        failures: dict[str, int] = {}
        for number, result in enumerate(self._results):
            if not isinstance(result, load_client.LoadResult):
                raise result or RuntimeError("a load has no result")
            answered = [0 if reply is None else int(pb2.ModelInferResponse.FromString(reply).model_version)
                        for reply in (*result.replies, None)]
            calls = np.frombuffer(result.calls, np.int64).reshape(-1, 4)
            began.append(calls[:, 1])
            took.append(calls[:, 2] - calls[:, 1])
            version.append(np.array(answered)[calls[:, 3]])
            fails.append(np.full(len(calls), number >= ROWS - FAILING_ROWS))
            for name, count in result.failures.items():
                failures[name] = failures.get(name, 0) + count
        order = np.argsort(np.concatenate(began), kind="stable")
        return Calls(np.concatenate(began)[order], np.concatenate(took)[order], np.concatenate(version)[order],
                     np.concatenate(fails)[order], failures)


@contextmanager
def loading(server: Server) -> Iterator[Load]:
    load = Load(server)
    try:
        yield load
    finally:
        load.end()


def rollout(port: int, *arguments: object) -> list[dict[str, Any]]:
    """What `infer rollout` prints as JSON, or nothing."""
    done = subprocess.run([sys.executable, "-m", "infer", "rollout", *map(str, arguments), "--address",
                           f"127.0.0.1:{port}"], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def rolled_out(port: int, version: int, every_s: float) -> dict[str, Any]:
    """From its start to its end."""
    rollout(port, "start", MODEL, "--to", version, "--from", 1, "--steps", STEPS, "--every", f"{every_s:g}s",
            "--reason", "bench")
    until = time.monotonic() + END_S
    while (found := rollout(port, "history", MODEL, "--json")[-1])["state"] not in ("done", "rolled back", "aborted"):
        if time.monotonic() > until:
            raise RuntimeError(f"version {version} is still {found['state']}: {found}")
        time.sleep(0.5)
    return found


def slower(calls: Calls, its: Any) -> float:
    """The share of its calls that took longer than the guardrail of the median allows beside the others' then."""
    beside = ~its & (calls.began_ns >= calls.began_ns[its][0]) & (calls.began_ns <= calls.began_ns[its][-1])
    allowed_ns = LIMITS["p50"] * np.median(calls.took_ns[beside]) + RolloutSettings().latency_slack_ms * 1e6
    return float((calls.took_ns[its] > allowed_ns).mean())


def needed(name: str, slow_share: float) -> float:
    """Calls of the new version that the test has to see, of which one in a hundred is its. `slow_share`: as `slower`
    finds it."""
    settings = RolloutSettings()
    alpha = settings.alpha / (len(LIMITS) * (len(settings.steps) - 1))
    find = partial(samples_needed, share_b=0.01)
    return {FAILS: find(0.0, FAILING_ROWS / ROWS, alpha=alpha, increase=LIMITS["errors"]),
            SLOW: find(0.5, min(slow_share, 0.99), alpha=alpha, increase=0.05),
            # A quarter of the values moves over the middle, one of nine borders with two tests each.
            SHIFTED: find(0.5, 0.25, alpha=alpha / 18, increase=-LIMITS["drift"], above=False)}[name]


def bad(name: str, start: Callable[[str], Server], every_s: float) -> Result:
    version = VERSIONS[name]
    port = free_port()
    with start(f"--admin-port {port}") as server:
        server.wait_ready()
        with loading(server) as load:
            time.sleep(STEADY_S)
            ended = rolled_out(port, version, every_s)
            time.sleep(AFTER_S)
        calls = load.calls()
    # A call that failed was the new version's.
    its = (calls.version == version) | ((calls.version == 0) & (calls.fails if name == FAILS else False))
    lost = int((calls.version == 0).sum()) - int((its & (calls.version == 0)).sum())
    its_ns = calls.began_ns[its]
    within_s = float(its_ns[-1] - its_ns[0]) / 1e9
    harmed = int((its & (calls.version == 0)).sum()) if name == FAILS else int(its.sum())
    slow_share = slower(calls, its)
    test = needed(name, slow_share)
    reason = ended["history"][-1]["reason"]
    print(f"  {name}: {ended['state']} after {within_s:.1f} s and {its.sum()} calls of its own, {harmed} harmed; the "
          f"test needs {test:.0f}; {len(calls.version)} calls in all\n    {reason}", flush=True)
    figures = {"state": ended["state"], "within_s": within_s, "calls": int(its.sum()), "harmed": harmed,
               "needed": test, "slow_share": slow_share, "lost": lost, "all": len(calls.version),
               "failures": calls.failures, "reason": reason}
    return [Bar(f"{name}: rolled back by itself", float(ended["state"] == "rolled back"), 1),
            Bar(f"{name}: from its first call to its last", within_s, WITHIN_S, at_most=True, unit="s"),
            Bar(f"{name}: its calls, by what the test needs", int(its.sum()) / test, 3, at_most=True),
            Bar(f"{name}: other calls that failed", lost, 0, at_most=True)], figures


def good(start: Callable[[str], Server], every_s: float) -> Result:
    version, port = VERSIONS[GOOD], free_port()
    with start(f"--admin-port {port}") as server:
        server.wait_ready()
        with loading(server) as load:
            time.sleep(STEADY_S)
            ended = rolled_out(port, version, every_s)
            # What was routed before is answered.
            at_ns = time.monotonic_ns() + round(0.5e9)
            time.sleep(AFTER_S)
        calls = load.calls()
    after = calls.version[calls.began_ns > at_ns]
    share = float((after == version).mean())
    begun, *_, last = ended["history"]
    seconds = last["time"] - begun["time"]
    print(f"  {GOOD}: {ended['state']} after {seconds:.1f} s; then {share:.2%} of the calls are its own", flush=True)
    figures = {"state": ended["state"], "seconds": seconds, "share": share, "failed": int((calls.version == 0).sum()),
               "all": len(calls.version), "history": ended["history"]}
    return [Bar(f"{GOOD}: share of calls at the end", share, 1.0),
            Bar(f"{GOOD}: calls that failed", figures["failed"], 0, at_most=True)], figures


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=float, default=EVERY_S, help=f"seconds of a step, at least [{EVERY_S:g}]")
    parser.add_argument("--only", choices=VERSIONS, help="one of the versions")
    add_server_options(parser, "-rollout")
    arguments = parser.parse_args()
    require_two_cores(parser, arguments)
    return arguments


def main() -> int:
    arguments = parse_arguments()
    models = write_models(BUILD / "rollout" / "models")
    config = BUILD / "rollout" / "infer.toml"
    config.write_text(CONFIG)
    os.sched_setaffinity(0, {arguments.generator_core})

    def start(more: str) -> Server:
        # The generator needs little of its core.
        return ours(f"{arguments.server} --config {config} {more}", models,
                    f"{arguments.server_core},{arguments.generator_core}")

    parts: dict[str, Callable[[], Result]] = {
        name: partial(good, start, arguments.every) if name == GOOD else partial(bad, name, start, arguments.every)
        for name in VERSIONS if arguments.only in (None, name)}
    amounts: dict[str, Any] = {"rate": RATE, "rows": ROWS, "width": WIDTH, "every_s": arguments.every, "steps": STEPS}
    run_parts(parts, amounts, arguments.output, "-rollout")
    return 0


if __name__ == "__main__":
    sys.exit(main())
