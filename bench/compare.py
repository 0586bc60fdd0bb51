"""`make bench`: this server and the faster of two plain baselines, side by side in one run.

Server on one core, generator on another. Closed-loop points run ABAB with h2load and report medians; the open-loop
point runs with our own generator. A run whose counts do not agree - generator, server, inferences, length of the
replies - is void: it is reported and left out of the medians. ONNX Runtime without a server takes its turn in the same
rounds.
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
from bench.alone import Alone
from bench.bars import Bar, print_bars
from bench.load import h2load, payload
from bench.targets import (
    NATIVE,
    PORTABLE,
    ROOT,
    SERVICE,
    Counts,
    Server,
    Usage,
    add_server_options,
    baselines,
    ours,
    portable,
    require_two_cores,
)
from infer._core import load_client

POINTS = {"c1": (1, 1), "c16": (16, 1), "c256": (4, 64)}
OPEN_RATE = 10_000
OPEN_SHAPE = (4, 64)
ALONE = ("trees", "mid")
ALONE_POINT = "c256"
SECONDS = 4.0
QUICK_SECONDS = 1.0
BOTTLENECK_SHARE = 0.8
# Calls per second at c256 that the bar in calls per second supposes of the baseline.
USUAL_BASELINE = (2_700, 3_000)
# By point: what the portable transport does at least, by the baseline's rate.
PORTABLE_BARS = {"c256": 1.2, "c16": 1.0, "c1": 1.0}
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
    switches: float
    """Context switches of the server per request."""
    batch_rows: float
    """Mean rows per run of the model."""
    generator_cpu_share: float
    void: str
    """Why the run does not count; empty when it does."""


class Case:
    """One model with its request, and the length that each reply must have."""

    def __init__(self, model: str, row_shape: tuple[int, ...] | None = None, *, rows: int = 1) -> None:
        self.model = model
        self.message = payload.row_request(model, row_shape or bench_models.ROW_SHAPES[model], rows=rows)
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


def run_of(
    server: Server,
    result: h2load.H2LoadResult | load_client.LoadResult,
    requests: int,
    *,
    used: Usage,
    counted: Counts,
    void: str,
) -> Run:
    return Run(
        server.name,
        requests,
        result.rate,
        result.p50_us,
        result.p99_us,
        result.mean_us,
        result.max_us,
        used.cpu_s / max(requests, 1) * 1e6,
        used.switches / max(requests, 1),
        counted.inferences / max(counted.batches, 1),
        result.cpu_share,
        void,
    )


def closed_run(case: Case, server: Server, point: str, seconds: float, core: int) -> Run:
    connections, streams = POINTS[point]
    warm = case.warm(server, connections, streams, min(0.5, seconds))
    requests = max(int(warm.rate * seconds), 4 * connections * streams)
    counts, usage = server.counts(), server.usage()
    result = h2load.run(f"http://{server.address}{SERVICE}/ModelInfer", case.body, POINTS[point], requests, core=core)
    # Before the counters are asked for, which costs CPU of its own.
    used, counted = server.usage() - usage, server.counts() - counts
    void = disagreement(result.succeeded, counted, result.data_bytes, warm.reply_bytes)
    if result.succeeded != result.requests:
        void = f"{result.succeeded} of {result.requests} requests succeeded"
    return run_of(server, result, result.requests, used=used, counted=counted, void=void)


def open_run(case: Case, server: Server, seconds: float) -> Run:
    """Scheduled sends at OPEN_RATE: latency counts from the schedule."""
    warm = case.warm(server, *OPEN_SHAPE, min(0.5, seconds))
    counts, usage = server.counts(), server.usage()
    result = load_client.run(
        server.address,
        f"{SERVICE}/ModelInfer",
        case.message,
        *OPEN_SHAPE,
        rate=OPEN_RATE,
        requests=int(OPEN_RATE * seconds),
        expected_bytes=warm.reply_bytes,
    )
    used, counted = server.usage() - usage, server.counts() - counts
    data_bytes = result.ok * len(payload.framed(bytes(result.reply_bytes)))
    void = disagreement(result.ok, counted, data_bytes, warm.reply_bytes)
    if result.ok != result.sent or result.failures:
        void = f"{result.statuses} {result.failures} {result.reason}"
    return run_of(server, result, result.sent, used=used, counted=counted, void=void)


def summary(runs: list[Run]) -> dict[str, Any]:
    """Medians of the runs that count."""
    good = [run for run in runs if not run.void]
    names = ("rate", "p50_us", "p99_us", "mean_us", "cpu_us", "switches", "batch_rows")
    medians = {name: statistics.median(getattr(run, name) for run in good) for name in names} if good else {}
    return {"target": runs[0].target, "medians": medians, "runs": [asdict(run) for run in runs]}


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
    line += f"  switches {figures['switches']:5.2f}  batch {figures['batch_rows']:5.1f}"
    if base and base["medians"]:
        ratios = (figures[name] / base["medians"][name] for name in ("rate", "p50_us", "cpu_us"))
        line += "  | rate x{:.2f}  p50 x{:.2f}  CPU x{:.2f}".format(*ratios)
    share = max(run["generator_cpu_share"] for run in entry["runs"])
    if share > BOTTLENECK_SHARE:
        line += f"  (generator at {share:.0%} of its core: it is the bottleneck)"
    print(line, flush=True)


def measure_point(
    arguments: argparse.Namespace, case: Case, point: str, pair: list[Server], alone: Alone | None
) -> list[dict[str, Any]]:
    """Every server once in each round."""
    runs: dict[str, list[Run]] = {server.name: [] for server in pair}
    for _ in range(arguments.rounds):
        for server in pair:
            if point == "open":
                runs[server.name].append(open_run(case, server, arguments.seconds))
            else:
                runs[server.name].append(closed_run(case, server, point, arguments.seconds, arguments.generator_core))
        if alone:
            alone.round(arguments.seconds)
    entries = [summary(each) for each in runs.values()]
    for entry in entries:
        print_row(case.model, point, entry, entries[-1] if entry is not entries[-1] else None)
    if alone:
        best = alone.record()
        line = f"{case.model:6} alone ONNX Runtime {best['rows_per_s']:10.0f} rows/s  CPU {best['cpu_us']:8.1f} us"
        if entries[0]["medians"]:
            line += f" (x{best['cpu_us'] / entries[0]['medians']['cpu_us']:.2f} of {entries[0]['target']}'s)"
        print(f"{line}  batch {best['batch_rows']}")
    return [{"model": case.model, "point": point, **entry} for entry in entries]


def measure(
    arguments: argparse.Namespace, root: Path, servers: list[Server], targets: list[Server]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Every model at every point; and ONNX Runtime alone, by model."""
    table = []
    alone: dict[str, Any] = {}
    for model in arguments.models:
        case = Case(model)
        for point in arguments.points:
            pair = servers
            if point == "open":
                # The baselines do not reach the rate; they are on the closed-loop points.
                pair = targets[:1] if model == "tiny" else []
            elif targets:
                # The portable transport is held against the baseline where the transport is all there is.
                pair = targets if model == "tiny" else targets[:1]
                pair = [*pair, faster(case, servers, point, min(0.5, arguments.seconds))]
            runtime = None
            if point == ALONE_POINT and model in ALONE and not arguments.skip_alone:
                runtime = Alone(model, root, arguments.server_core)
            table += measure_point(arguments, case, point, pair, runtime)
            if runtime:
                alone[model] = runtime.record()
    return table, alone


def bars(points: list[dict[str, Any]], alone: dict[str, Any]) -> list[Bar]:
    """What the medians are held against, as far as it was measured."""

    def medians_of(targets: set[str]) -> dict[tuple[str, str], dict[str, float]]:
        return {(e["model"], e["point"]): e["medians"] for e in points if e["target"] in targets and e["medians"]}

    ours_at, portable_at = medians_of({NATIVE}), medians_of({PORTABLE})
    base_at = medians_of({e["target"] for e in points} - {NATIVE, PORTABLE})
    found = []

    def ratio(name: str, key: tuple[str, str], figure: str, limit: float, *, at_most: bool = False) -> None:
        if key in ours_at and key in base_at:
            found.append(Bar(name, ours_at[key][figure] / base_at[key][figure], limit, at_most, "x"))

    key = ("tiny", "c256")
    ratio("tiny c256: rate, by the baseline's", key, "rate", 40)
    if key in ours_at and key in base_at:
        usual = USUAL_BASELINE[0] <= base_at[key]["rate"] <= USUAL_BASELINE[1]
        found.append(Bar("tiny c256: rate", ours_at[key]["rate"], 100_000, unit="/s", applies=usual))
    ratio("tiny c1: median latency, by the baseline's", ("tiny", "c1"), "p50_us", 0.4, at_most=True)
    ratio("trees c256: rate, by the baseline's", ("trees", "c256"), "rate", 30)
    for point, limit in PORTABLE_BARS.items():
        if ("tiny", point) in portable_at and ("tiny", point) in base_at:
            value = portable_at["tiny", point]["rate"] / base_at["tiny", point]["rate"]
            found.append(Bar(f"tiny {point}, --transport grpcio: rate, by the baseline's", value, limit, unit="x"))
    if ("mid", ALONE_POINT) in ours_at and "mid" in alone:
        share = ours_at["mid", ALONE_POINT]["rate"] / alone["mid"]["rows_per_s"] * 100
        found.append(Bar("mid c256: rows/s, by ONNX Runtime's alone", share, 92, unit="%"))
        share = alone["mid"]["cpu_us"] / ours_at["mid", ALONE_POINT]["cpu_us"] * 100
        found.append(Bar("mid c256: ONNX Runtime's CPU per row, by the server's", share, 92, unit="%"))
    for point in POINTS:
        ratio(f"image {point}: server CPU per call, by the baseline's", ("image", point), "cpu_us", 0.35, at_most=True)
    if ("tiny", "open") in ours_at:
        runs = [run for e in points if (e["model"], e["point"]) == ("tiny", "open") for run in e["runs"]]
        found.append(Bar("tiny open loop: p99", ours_at["tiny", "open"]["p99_us"] / 1e3, 3.0, True, "ms"))
        found.append(Bar("tiny open loop: runs with a failure", sum(bool(run["void"]) for run in runs), 0, True))
    return found


def commit() -> str:
    """Short hash, with a mark when the tree has changes that the hash does not cover."""
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    diff = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "src", "bench", "setup.py"], cwd=ROOT, check=False)
    return head.stdout.strip() + ("-dirty" if diff.returncode else "")


def write_result(result: dict[str, Any], path: Path | None, suffix: str = "") -> Path:
    """To bench/results/<commit><suffix>.json where no path is given."""
    path = path or ROOT / "bench" / "results" / f"{result['commit']}{suffix}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def parse_arguments() -> argparse.Namespace:
    split = {"type": lambda text: text.split(",")}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=list(bench_models.ROW_SHAPES), **split)  # type: ignore[arg-type]
    parser.add_argument("--points", default=[*POINTS, "open"], **split)  # type: ignore[arg-type]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, help=f"of each run [{SECONDS}]")
    parser.add_argument("--quick", action="store_true", help=f"runs of {QUICK_SECONDS} s: for a look, not for a record")
    parser.add_argument("--baselines-only", action="store_true")
    parser.add_argument("--skip-alone", action="store_true", help="leave out ONNX Runtime without a server")
    add_server_options(parser, "")
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    unknown = {*arguments.models} - {*bench_models.ROW_SHAPES} | {*arguments.points} - {*POINTS, "open"}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    require_two_cores(parser, arguments)
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
        targets = []
        if not arguments.baselines_only:
            targets.append(stack.enter_context(ours(arguments.server, root, arguments.server_core)))
            if "tiny" in arguments.models:
                targets.append(stack.enter_context(portable(arguments.server, root, arguments.server_core)))
        for server in [*servers, *targets]:
            server.wait_ready()
        result["points"], result["alone"] = measure(arguments, root, servers, targets)
    judged = bars(result["points"], result["alone"])
    result["bars"] = [bar.record() for bar in judged]
    print()
    print_bars(judged)
    path = write_result(result, arguments.output)
    print(f"\nwritten to {os.path.relpath(path)}")
    voids = sum(bool(run["void"]) for entry in result["points"] for run in entry["runs"])
    if voids:
        print(f"{voids} runs are void")
    return 1 if voids else 0


if __name__ == "__main__":
    sys.exit(main())
