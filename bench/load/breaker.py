"""`make bench-breaker`: what a breaker and a bound on runs cost a call, and a version that starts to fail under load.

The first part runs tiny with and without them, by alternating pairs, one core for the server and one for the
generator. In the second, version 2 of a model begins to fail on what its callers send while version 1 would not: how
many calls fail before version 1 answers, how many are tried on version 2 meanwhile, and when it answers again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from bench import models as bench_models
from bench.bars import Bar
from bench.baseline import stubs
from bench.compare import BUILD, Case
from bench.growth import Result, compared, loaded, pairs_of, print_compared, run_parts
from bench.models import save
from bench.targets import SERVICE, Server, add_server_options, ours, require_two_cores
from infer._core import load_client

MODEL, COLUMNS = "fragile", 4
# In the first column: what version 2 fails on.
BREAKS = 666.0
ON = "--breaker previous --run-timeout 10s"
SHAPE = (4, 16)
PAIRS, SECONDS = 5, 3.0
RATE, FAILING_S = 2000.0, 4.0
WINDOW_S, OPEN_FOR_S, PROBES = 1.0, 0.5, 3
CONFIG = f"""
[models.{MODEL}]
version_policy = {{ latest = 2 }}
[models.{MODEL}.breaker]
fallback = "previous"
window = "{WINDOW_S:g}s"
open_for = "{OPEN_FOR_S:g}s"
probes = {PROBES}
"""


def write_models(root: Path) -> Path:
    """Version 1 answers its input; version 2 does, too, but for rows that break it."""
    for version in (1, 2):
        path = root / MODEL / str(version) / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {
            "first": np.array(0, np.int64), "breaks": np.array(BREAKS, np.float32),
            "impossible": np.array([1_000_003] * 2, np.int64), "whole": np.array([-1, COLUMNS], np.int64)}
        nodes = [helper.make_node("Gather", ["x", "first"], ["column"], axis=1),
                 helper.make_node("ReduceMax", ["column"], ["largest"], keepdims=0),
                 helper.make_node("Equal", ["largest", "breaks"], ["broken"]),
                 helper.make_node("Where", ["broken", "impossible" if version == 2 else "whole", "whole"], ["shape"]),
                 helper.make_node("Reshape", ["x", "shape"], ["y"])]
        save(path, nodes, (COLUMNS,), COLUMNS, [numpy_helper.from_array(value, name) for name, value in values.items()])
    return root


def request(value: float) -> bytes:
    pb2, _ = stubs.load()
    message = pb2.ModelInferRequest(model_name=MODEL)
    message.inputs.add(name="x", datatype="FP32", shape=[1, COLUMNS])
    message.raw_input_contents.append(np.full(COLUMNS, value, np.float32).tobytes())
    return bytes(message.SerializeToString())


def answered_by(reply: bytes | None) -> tuple[str, str]:
    """The version, and what marks the reply."""
    pb2, _ = stubs.load()
    response = pb2.ModelInferResponse.FromString(reply or b"")
    return response.model_version, response.parameters["infer_fallback"].string_param


def cost(start: Callable[[str], Server], pairs: int, seconds: float) -> Result:
    case = Case("tiny")
    with start("") as off, start(ON) as on:
        for server in (off, on):
            server.wait_ready()
            loaded(case, server, SHAPE, duration_s=seconds / 3)
        figures = compared(pairs_of(partial(loaded, case, off, SHAPE, duration_s=seconds),
                                    partial(loaded, case, on, SHAPE, duration_s=seconds), pairs))
    print_compared("without", f"with {ON}", figures)
    return [Bar("tiny: server CPU per request with a breaker and a bound on runs, by without", figures["cpu_ratio"],
                1.03, at_most=True)], figures


@dataclass(frozen=True)
class Failing:
    """Calls of the time in which version 2 fails."""

    failed: int
    failed_first: int
    """Those of them before the first that version 1 answered."""
    first_s: float
    """From the first of them to the last."""
    answered: int


def read(result: load_client.LoadResult) -> Failing:
    calls = np.frombuffer(result.calls, np.int64).reshape(-1, 4)
    calls = calls[np.argsort(calls[:, 2], kind="stable")]
    ok = calls[:, 3] >= 0
    first_ok = int(ok.argmax()) if ok.any() else len(calls)
    ended = calls[:first_ok, 2]
    return Failing(int((~ok).sum()), first_ok, float(ended[-1] - ended[0]) / 1e9 if first_ok else 0.0, int(ok.sum()))


def failing(start: Callable[[str], Server], config: Path) -> Result:
    good, bad = request(1.0), request(BREAKS)
    with start(f"--config {config}") as server:
        server.wait_ready()
        run = partial(load_client.run, server.address, f"{SERVICE}/ModelInfer", connections=4, streams=64, rate=RATE)
        before = run(payload=good, duration_s=2 * WINDOW_S)
        result = run(payload=bad, duration_s=FAILING_S, record=True)
        found = read(result)
        begun = time.monotonic()
        while answered_by((latest := run(payload=good, requests=20)).first_reply) != ("2", ""):
            if latest.statuses.keys() - {"OK"} or time.monotonic() - begun > 60.0:
                raise RuntimeError(f"version 2 does not come back: {latest.statuses}")
        back_s = time.monotonic() - begun
    if before.ok != before.sent or answered_by(before.first_reply) != ("2", ""):
        raise RuntimeError(f"before: {before.statuses}")
    if answered_by(result.first_reply) != ("1", "previous") or result.failures.keys() - {"wrong_length"}:
        raise RuntimeError(f"while it fails: {result.statuses} {result.failures} {result.reason}")
    # The time that it is open doubles with each trial.
    trials = int(np.log2(FAILING_S / OPEN_FOR_S + 1))
    tried = found.failed - found.failed_first
    figures = {**vars(found), "tried": tried, "trials_at_most": trials, "back_s": back_s, "statuses": result.statuses}
    print(f"  {found.failed_first} failed within {found.first_s:.2f} s, then {found.answered} were answered by version "
          f"1 and {tried} tried on version 2; it came back after {back_s:.2f} s", flush=True)
    return [Bar("from the first failed call until version 1 answers", found.first_s, WINDOW_S, at_most=True,
                unit="s"),
            Bar("calls that fail afterwards: trials", tried, (trials + 1) * PROBES, at_most=True),
            Bar("from when it could until version 2 answers again", back_s, 2 * OPEN_FOR_S * 2 ** trials, at_most=True,
                unit="s")], figures


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of each load [{SECONDS:g}]")
    add_server_options(parser, "-breaker")
    arguments = parser.parse_args()
    require_two_cores(parser, arguments)
    return arguments


def main() -> int:
    arguments = parse_arguments()
    tiny = bench_models.build(BUILD / "models") / "tiny"
    fragile = write_models(BUILD / "breaker" / "models")
    config = BUILD / "breaker" / "infer.toml"
    config.write_text(CONFIG)
    os.sched_setaffinity(0, {arguments.generator_core})

    def start(models: Path, more: str) -> Server:
        return ours(f"{arguments.server} {more}", models, arguments.server_core)

    parts: dict[str, Callable[[], Result]] = {
        "cost": partial(cost, partial(start, tiny), arguments.pairs, arguments.seconds),
        "a version that starts to fail": partial(failing, partial(start, fragile), config)}
    amounts: dict[str, Any] = {"pairs": arguments.pairs, "seconds": arguments.seconds, "rate": RATE}
    run_parts(parts, amounts, arguments.output, "-breaker")
    return 0


if __name__ == "__main__":
    sys.exit(main())
