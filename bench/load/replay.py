"""`make bench-replay`: captured calls sent again, to the version that answered them and to a quantised one.

Version 1 of a model answers calls with different inputs, which are captured; then they are replayed: against version 1,
where nothing may differ, and against version 2, whose weights have eight bits, to see how many differ and how far. The
last part calls at a steady rate with and without a capture, in turns, and compares the p99.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from bench.bars import Bar
from bench.compare import BUILD
from bench.growth import Result, run_parts
from bench.load.shadow import run
from bench.models import save
from bench.targets import Server, add_server_options, free_port, ours, require_two_cores
from infer.capture_file import CaptureReader
from infer.cli.client import Client
from infer.cli.replay import answers, replayed
from infer.client import InferClient
from infer.reply_comparison import ReplyComparison

MODEL, WIDTHS = "m", (64, 256, 256, 10)
CALLS, RATE = 10_000, 1_000
PAIRS, SECONDS = 5, 3.0
RTOL, ATOL = 1e-5, 1e-8
SETTINGS = f"[models.{MODEL}]\nversion_policy = {{ all = {{}} }}\n"


def write_models(root: Path) -> Path:
    """A classifier, and the same with the weights of each layer rounded to eight bits."""
    for version in (1, 2):
        path = root / MODEL / str(version) / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(7)
        nodes, weights, last = [], [], "x"
        for layer, (fan_in, fan_out) in enumerate(pairwise(WIDTHS)):
            matrix = random.standard_normal((fan_in, fan_out), dtype=np.float32) / np.float32(np.sqrt(fan_in))
            if version == 2:
                scale = np.float32(np.abs(matrix).max() / 127)
                weights += [numpy_helper.from_array(np.round(matrix / scale).astype(np.int8), f"q{layer}"),
                            numpy_helper.from_array(np.array(scale), f"s{layer}")]
                nodes.append(helper.make_node("DequantizeLinear", [f"q{layer}", f"s{layer}"], [f"w{layer}"]))
            else:
                weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
            nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"h{layer}"]))
            nodes.append(helper.make_node("Relu" if layer < len(WIDTHS) - 2 else "Softmax", [f"h{layer}"],
                                          [f"r{layer}" if layer < len(WIDTHS) - 2 else "y"]))
            last = f"r{layer}"
        save(path, nodes, (WIDTHS[0],), WIDTHS[-1], weights)
    return root


class Capturing:
    """A server whose calls can be captured."""

    def __init__(self, server: Server, admin_port: int, files: Path) -> None:
        self.server, self.admin_port, self.files = server, admin_port, files

    def capture(self, verb: str, *more: str) -> None:
        subprocess.run([sys.executable, "-m", "infer", "capture", verb, MODEL, "--address",
                        f"localhost:{self.admin_port}", *more], check=True, stdout=subprocess.DEVNULL)


def call_version_1(server: Server, calls: int) -> None:
    random = np.random.default_rng(1)
    inputs = random.standard_normal((calls, 1, WIDTHS[0]), dtype=np.float32)
    with closing(InferClient(server.address, timeout=30)) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda x: client.infer(MODEL, {"x": x}, version="1"), inputs))


def replay(start: Callable[[], Capturing], calls: int) -> Result:
    capturing = start()
    path = capturing.files / "calls.capture"
    figures: dict[str, Any] = {}
    with capturing.server as server:
        server.wait_ready()
        capturing.capture("start", "--name", "calls", "--per-second", "0")
        call_version_1(server, calls)
        capturing.capture("stop")
        captured = len(list(CaptureReader(path)))
        for name, version in (("same", "1"), ("quantised", "2")):
            with closing(Client(server.address, 30)) as client:
                begun = time.monotonic()
                report = replayed(answers(client, CaptureReader(path), f"{MODEL}:{version}", 8),
                                  ReplyComparison(RTOL, ATOL))
            output = report["outputs"]["y"]
            figures[name] = {**report, "seconds": time.monotonic() - begun}
            print(f"  {name:9} {report['agreed']} agreed, {report['differed']} differed, {report['failed']} failed; "
                  f"largest difference {output['max_abs']:.3g}, by magnitude {output['max_rel']:.3g}, median "
                  f"{output['relative']['p50']:.3g}; top-1 same {output['top1_same'] / output['top1']:.2%}", flush=True)
    figures["bytes"] = path.stat().st_size
    same, quantised = figures["same"], figures["quantised"]
    return [Bar("calls captured, of those made", 100 * captured / calls, 100, unit="%"),
            Bar(f"differences against the same version, rtol {RTOL:g}", same["differed"], 0, at_most=True),
            Bar("replayed calls that failed", same["failed"] + quantised["failed"], 0, at_most=True),
            Bar("calls that differ on the quantised version", quantised["differed"], 1)], figures


def cost(start: Callable[[], Capturing], pairs: int, seconds: float) -> Result:
    capturing = start()
    p99_us: dict[str, list[float]] = {"without": [], "with": []}
    with capturing.server as server:
        server.wait_ready()
        steady = partial(run, server, (4, 16), "1", rate=RATE, duration_s=seconds, warmup_s=0.5)
        steady()
        for pair in range(pairs):
            for name in ("without", "with") if pair % 2 == 0 else ("with", "without"):
                if name == "with":
                    capturing.capture("start", "--name", f"cost-{pair}", "--per-second", "0")
                p99_us[name].append(steady().p99_us)
                if name == "with":
                    capturing.capture("stop")
    alone_ms, beside_ms = (statistics.median(p99_us[name]) / 1e3 for name in ("without", "with"))
    print(f"  p99 {alone_ms:.3f} ms without, {beside_ms:.3f} ms with a capture of all of {RATE}/s", flush=True)
    return [Bar(f"p99 while all of {RATE} calls a second are captured", beside_ms,
                max(1.1 * alone_ms, alone_ms + 0.5), True, "ms")], {"p99_us": p99_us}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=CALLS, help=f"captured and replayed [{CALLS}]")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of each turn [{SECONDS:g}]")
    add_server_options(parser, "-replay")
    arguments = parser.parse_args()
    require_two_cores(parser, arguments)
    place = BUILD / "replay"
    shutil.rmtree(place, ignore_errors=True)
    root = write_models(place / "models")
    config = place / "infer.toml"
    config.write_text(SETTINGS)
    os.sched_setaffinity(0, {arguments.generator_core})

    def start(files: str) -> Capturing:
        port = free_port()
        return Capturing(ours(f"{arguments.server} --config {config} --admin-port {port} --capture-dir {place / files}",
                              root, arguments.server_core), port, place / files)

    parts: Mapping[str, Callable[[], Result]] = {
        "replays": partial(replay, partial(start, "files"), arguments.calls),
        "what a capture costs": partial(cost, partial(start, "cost"), arguments.pairs, arguments.seconds)}
    run_parts(dict(parts), {"calls": arguments.calls, "pairs": arguments.pairs, "seconds": arguments.seconds},
              arguments.output, "-replay")
    return 0


if __name__ == "__main__":
    sys.exit(main())
