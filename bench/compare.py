"""`make bench`: this server and the faster of two plain baselines, side by side in one run.

Server on one core, generator on another. Closed-loop points run ABAB with h2load and report medians; the open-loop
point runs with our own generator. A run whose counts do not agree - generator, server, inferences, length of the
replies - is void: it is reported and left out of the medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import models as bench_models
from bench.load import h2load, payload
from bench.targets import OURS, ROOT, SERVICE, Counts, Server, baselines, ours
from infer._core import load_client

POINTS = {"c1": (1, 1), "c16": (16, 1), "c256": (4, 64)}
OPEN_RATE = 10_000
OPEN_SHAPE = (4, 64)
ALONE = ("trees", "mid")
BUILD = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Run:
    """One measured run of one server at one point."""

    target: str
    requests: int
    rate: float
    p50_us: float
    p99_us: float
    mean_us: float
    max_us: float
    cpu_us: float
    """Server CPU per request."""
    generator_cpu_share: float
    void: str
    """Why the run does not count; empty when it does."""


class Case:
    """One model with its request, and the length that each reply must have."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.message = payload.row_request(model, bench_models.ROW_SHAPES[model])
        self.body = payload.write_body(BUILD / "bodies" / model, self.message)

    def warm(self, server: Server, connections: int, streams: int, seconds: float) -> load_client.LoadResult:
        """Also the probe that says how many requests fill a run."""
        result = load_client.run(
            server.address, f"{SERVICE}/ModelInfer", self.message, connections, streams, duration_s=seconds
        )
        if result.ok != result.sent:
            raise RuntimeError(f"{server.name}, {self.model}: {result.statuses} {result.failures} {result.reason}")
        return result


def disagreement(sent: int, counted: Counts, data_bytes: int, reply_bytes: int) -> str:
    """Empty when every count is the same."""
    framed_bytes = reply_bytes + len(payload.framed(b""))
    if counted.ok != sent:
        return f"the generator counts {sent} replies, the server {counted.ok}"
    if counted.inferences != sent:
        return f"{sent} replies but {counted.inferences} inferences"
    if data_bytes != sent * framed_bytes:
        return f"{data_bytes} bytes of data, {sent} replies of {framed_bytes} are {sent * framed_bytes}"
    return ""


def closed_run(case: Case, server: Server, point: str, seconds: float, core: int) -> Run:
    connections, streams = POINTS[point]
    warm = case.warm(server, connections, streams, min(0.5, seconds))
    requests = max(int(warm.rate * seconds), 4 * connections * streams)
    counts, cpu_s = server.counts(), server.cpu_s()
    result = h2load.run(f"http://{server.address}{SERVICE}/ModelInfer", case.body, POINTS[point], requests, core=core)
    # Before the counters are asked for, which costs CPU of its own.
    cpu_s = server.cpu_s() - cpu_s
    void = disagreement(result.succeeded, server.counts() - counts, result.data_bytes, warm.reply_bytes)
    if result.succeeded != requests:
        void = f"{result.succeeded} of {requests} requests succeeded"
    return Run(
        server.name,
        requests,
        result.rate,
        result.p50_us,
        result.p99_us,
        result.mean_us,
        result.max_us,
        cpu_s / requests * 1e6,
        result.cpu_share,
        void,
    )


def open_run(case: Case, server: Server, seconds: float) -> Run:
    """Scheduled sends at OPEN_RATE: latency counts from the schedule."""
    warm = case.warm(server, *OPEN_SHAPE, min(0.5, seconds))
    counts, cpu_s = server.counts(), server.cpu_s()
    result = load_client.run(
        server.address,
        f"{SERVICE}/ModelInfer",
        case.message,
        *OPEN_SHAPE,
        rate=OPEN_RATE,
        requests=int(OPEN_RATE * seconds),
        expected_bytes=warm.reply_bytes,
    )
    cpu_s = server.cpu_s() - cpu_s
    data_bytes = result.ok * len(payload.framed(bytes(result.reply_bytes)))
    void = disagreement(result.ok, server.counts() - counts, data_bytes, warm.reply_bytes)
    if result.ok != result.sent or result.failures:
        void = f"{result.statuses} {result.failures} {result.reason}"
    return Run(
        server.name,
        result.sent,
        result.rate,
        result.p50_us,
        result.p99_us,
        result.mean_us,
        result.max_us,
        cpu_s / max(result.sent, 1) * 1e6,
        result.cpu_share,
        void,
    )


def summary(runs: list[Run]) -> dict[str, Any]:
    """Medians of the runs that count."""
    good = [run for run in runs if not run.void]
    names = ("rate", "p50_us", "p99_us", "mean_us", "cpu_us")
    medians = {name: statistics.median(getattr(run, name) for run in good) for name in names} if good else {}
    return {"target": runs[0].target, "medians": medians, "runs": [asdict(run) for run in runs]}


def alone(model: str, root: Path, core: int, seconds: float) -> dict[str, float]:
    """Rows per second of ONNX Runtime by itself at its best batch size."""
    path = root / model / "1" / "model.onnx"
    command = ["taskset", "-c", str(core), sys.executable, "-m", "bench.ort_alone", str(path), str(seconds)]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    rows, rate = max(json.loads(output).items(), key=lambda item: float(item[1]))
    return {"batch_rows": int(rows), "rows_per_s": rate}


def faster(case: Case, servers: list[Server], point: str, seconds: float) -> Server:
    return max(servers, key=lambda server: case.warm(server, *POINTS[point], seconds).rate)


def print_row(model: str, point: str, entry: dict[str, Any], base: dict[str, Any] | None) -> None:
    for run in entry["runs"]:
        if run["void"]:
            print(f"{model:6} {point:5} {entry['target']:11} VOID: {run['void']}", flush=True)
    if not entry["medians"]:
        return
    figures = entry["medians"]
    line = f"{model:6} {point:5} {entry['target']:11} {figures['rate']:10.0f}/s  p50 {figures['p50_us']:8.0f} us"
    line += f"  p99 {figures['p99_us']:8.0f} us  server CPU {figures['cpu_us']:8.1f} us"
    if base and base["medians"]:
        ratios = (figures[name] / base["medians"][name] for name in ("rate", "p50_us", "cpu_us"))
        line += "  | rate x{:.2f}  p50 x{:.2f}  CPU x{:.2f}".format(*ratios)
    share = max(run["generator_cpu_share"] for run in entry["runs"])
    if share > 0.8:
        line += f"  (generator at {share:.0%} of its core: it is the bottleneck)"
    print(line, flush=True)


def measure(arguments: argparse.Namespace, servers: list[Server], target: Server | None, core: int) -> list[Any]:
    """Every model at every point."""
    table = []
    for model in arguments.models:
        case = Case(model)
        for point in arguments.points:
            pair: list[Server]
            if point == "open":
                # The baselines do not reach the rate; they are on the closed-loop points.
                pair = [target] if target and model == "tiny" else []
            elif target:
                pair = [target, faster(case, servers, point, min(0.5, arguments.seconds))]
            else:
                pair = servers
            runs: dict[str, list[Run]] = {server.name: [] for server in pair}
            for _ in range(arguments.rounds):
                for server in pair:
                    if point == "open":
                        runs[server.name].append(open_run(case, server, arguments.seconds))
                    else:
                        runs[server.name].append(closed_run(case, server, point, arguments.seconds, core))
            entries = [summary(each) for each in runs.values()]
            for entry in entries:
                print_row(model, point, entry, entries[-1] if entry is not entries[-1] else None)
            table += [{"model": model, "point": point, **entry} for entry in entries]
    return table


def commit() -> str:
    """Short hash, with a mark when the tree has changes that the hash does not cover."""
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    diff = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "src", "bench", "setup.py"], cwd=ROOT, check=False)
    return head.stdout.strip() + ("-dirty" if diff.returncode else "")


def parse_arguments() -> argparse.Namespace:
    cores = sorted(os.sched_getaffinity(0))
    split = {"type": lambda text: text.split(",")}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=list(bench_models.ROW_SHAPES), **split)  # type: ignore[arg-type]
    parser.add_argument("--points", default=[*POINTS, "open"], **split)  # type: ignore[arg-type]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--server", default=OURS, help="command of our server; {python} {models} {port} {http_port}")
    parser.add_argument("--baselines-only", action="store_true")
    parser.add_argument("--skip-alone", action="store_true", help="leave out ONNX Runtime without a server")
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--generator-core", type=int, default=cores[-1])
    parser.add_argument("--output", type=Path, help="default: bench/results/<commit>.json")
    arguments = parser.parse_args()
    unknown = {*arguments.models} - {*bench_models.ROW_SHAPES} | {*arguments.points} - {*POINTS, "open"}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if arguments.server_core == arguments.generator_core:
        parser.error("server and generator need a core each")
    if not shutil.which("h2load"):
        parser.error("h2load is missing; on Debian or Ubuntu: apt-get install nghttp2-client")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    root = bench_models.build(BUILD / "models")
    # Our own generator runs in this process.
    os.sched_setaffinity(0, {arguments.generator_core})
    result: dict[str, Any] = {"commit": commit(), "seconds": arguments.seconds, "rounds": arguments.rounds}
    with ExitStack() as stack:
        servers = [stack.enter_context(server) for server in baselines(root, arguments.server_core)]
        target = None
        if not arguments.baselines_only:
            target = stack.enter_context(ours(arguments.server, root, arguments.server_core))
        for server in [*servers, *([target] if target else [])]:
            server.wait_ready()
        result["points"] = measure(arguments, servers, target, arguments.generator_core)
    result["alone"] = {}
    for model in [] if arguments.skip_alone else [name for name in ALONE if name in arguments.models]:
        result["alone"][model] = alone(model, root, arguments.server_core, min(0.5, arguments.seconds))
        best = result["alone"][model]
        print(f"{model:6} alone ONNX Runtime {best['rows_per_s']:10.0f} rows/s in batches of {best['batch_rows']}")
    output = arguments.output or ROOT / "bench" / "results" / f"{result['commit']}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {os.path.relpath(output)}")
    voids = sum(bool(run["void"]) for entry in result["points"] for run in entry["runs"])
    if voids:
        print(f"{voids} runs are void")
    return 1 if voids else 0


if __name__ == "__main__":
    sys.exit(main())
