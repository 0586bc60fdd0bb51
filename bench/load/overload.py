"""`make bench-overload`: what is left of a server when more comes than it can do.

A model whose rows cost a core 1 ms each, however many share a batch. The server has one core, the generator another.
The loop is open: calls come at their times from half to five times of what the server can do, each with a deadline of
50 ms, and latency counts from the time at which a call was to be sent. Good is an OK within that. A second generator is
grpcio with its retry policy, whose channel sends refused calls again as the server's pushback says; it is too slow for
a row of 1 ms, so its model has rows of 4 ms. For tiny and mid, whose calls cost little beside what a refusal costs, the
bar is lower. A call for which the generator has no stream free within 5 ms is given up and counts as not good: were
they kept in line until their deadline, all that it sends would be about to expire, whatever a server does. Last, calls
without deadlines, with `--adaptive-limit` and without.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
from onnx import helper

from bench import models as bench_models
from bench.bars import Bar
from bench.compare import BUILD, commit
from bench.growth import Result, run_parts
from bench.load import payload
from bench.load.limits import families
from bench.targets import ROOT, SERVICE, Server, add_server_options, ours, require_two_cores
from infer._core import load_client

WIDTH = 2_000
ROW_MS = {"row": 1.0, "row4": 4.0}
DEADLINE_S = 0.05
PATIENCE_S = 0.005
TIMES = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0)
FEW_TIMES = (0.5, 1.0, 2.0, 5.0)
SHAPE = (8, 512)
ADAPTIVE, ANSWERED = "adaptive", "answered meanwhile"
SECONDS, QUICK_SECONDS, WARMUP_S = 6.0, 1.5, 1.0
RETRIES = {"methodConfig": [{"name": [{}], "retryPolicy": {
    "maxAttempts": 4, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["RESOURCE_EXHAUSTED", "UNAVAILABLE"]}}]}

# Of a load: ms of the calls that were OK, calls by code, seconds measured, the generator's share of its core.
Load = tuple[np.ndarray, dict[str, int], float, float]


@dataclass(frozen=True)
class Step:
    """One offered load. Rates are per second, times in ms from the scheduled time, shares of 1."""

    times: float
    offered: float
    good: float
    """OK within the deadline."""
    ok_p50_ms: float
    ok_p99_ms: float
    """Of calls that were answered OK."""
    codes: dict[str, int]
    expired_in_run: float
    """Requests whose deadline passed while they ran, of those that ran."""
    server_codes: dict[str, int]
    refused: dict[str, int]
    """By limit, as the server counts."""
    batch_rows: float
    generator_cpu_share: float


def write_model(root: Path, name: str, row_ms: float, core: int) -> float:
    """As many sines of WIDTH elements as take `row_ms` on that core; rows per second of a core by itself."""
    path = root / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(layers: int) -> None:
        names = ["x", *(f"h{layer}" for layer in range(layers)), "last"]
        nodes = [helper.make_node("Sin", [before], [after]) for before, after in pairwise(names)]
        nodes.append(helper.make_node("ReduceMean", ["last"], ["y"], axes=[1]))
        bench_models.save(path, nodes, (WIDTH,), 1, [])

    def took_ms(rows: int) -> float:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        x = np.zeros((rows, WIDTH), np.float32)
        times = []
        for _ in range(30):
            begin = time.perf_counter()
            session.run(None, {"x": x})
            times.append(time.perf_counter() - begin)
        return float(np.median(times)) * 1e3 / rows

    os.sched_setaffinity(0, {core})
    layers = 40
    for _ in range(3):
        write(layers)
        layers = max(1, round(layers * row_ms / took_ms(4)))
    write(layers)
    alone_ms = took_ms(1)
    print(f"{name}: {layers} layers, {alone_ms:.2f} ms for a row by itself, {took_ms(16):.2f} ms in a batch of 16")
    return 1e3 / alone_ms


def by_label(server: Server, family: str, label: str, model: str) -> dict[str, int]:
    return {sample.labels[label]: int(sample.value) for sample in families(server)[family].samples
            if sample.labels.get("model") == model and sample.name.endswith("_total")}


def counters(server: Server, model: str) -> dict[str, Counter[str]]:
    return {"codes": Counter(by_label(server, "infer_requests", "code", model)),
            "refused": Counter(by_label(server, "infer_queue_refused", "limit", model)),
            "expired": Counter(by_label(server, "infer_expired", "in", model)),
            "rows": Counter(by_label(server, "infer_rows", "version", model)),
            "batches": Counter(by_label(server, "infer_batches", "version", model))}


def step(server: Server, model: str, times: float, offered: float,
         load: Callable[[float], Load]) -> Step:
    """`load` makes calls at a rate."""
    before = counters(server, model)
    latency_ms, codes, seconds, share = load(offered)
    gained = {name: each - before[name] for name, each in counters(server, model).items()}
    rows = gained["rows"].total()
    good = float((latency_ms <= DEADLINE_S * 1e3).sum()) / seconds
    p50, p99 = np.percentile(latency_ms, [50, 99]) if len(latency_ms) else (0.0, 0.0)
    found = Step(times, offered, good, float(p50), float(p99), codes, gained["expired"]["run"] / max(rows, 1),
                 dict(gained["codes"]), dict(gained["refused"]), rows / max(gained["batches"].total(), 1), share)
    print(f"  {times:4.1f}x  offered {offered:9,.0f}/s  good {good:9,.0f}/s  p50 {p50:5.1f}  p99 {p99:5.1f} ms  "
          f"expired in a run {100 * found.expired_in_run:5.2f}%  batch {found.batch_rows:4.1f}  "
          f"{codes}  {found.refused}", flush=True)
    return found


def compiled(server: Server, request: bytes, seconds: float, offered: float) -> Load:
    result = load_client.run(server.address, f"{SERVICE}/ModelInfer", request, *SHAPE, duration_s=seconds,
                             warmup_s=WARMUP_S, rate=offered, timeout_s=DEADLINE_S, patience_s=PATIENCE_S, record=True)
    calls = np.frombuffer(result.calls, np.int64).reshape(-1, 4)
    measured = calls[calls[:, 0] >= calls[:, 0].min() + WARMUP_S * 1e9]
    ok = measured[measured[:, 3] >= 0]
    return (ok[:, 2] - ok[:, 0]) / 1e6, {**result.statuses, **{k: v for k, v in result.failures.items() if v}}, \
        seconds, result.cpu_share


def patient(server: Server, request: bytes, seconds: float, offered: float) -> Load:
    """As `compiled`, without deadlines: of the calls that are answered until the last one is scheduled."""
    result = load_client.run(server.address, f"{SERVICE}/ModelInfer", request, *SHAPE, duration_s=seconds, rate=offered,
                             record=True)
    calls = np.frombuffer(result.calls, np.int64).reshape(-1, 4)
    ok = calls[(calls[:, 3] >= 0) & (calls[:, 2] <= calls[:, 0].max())]
    return (ok[:, 2] - ok[:, 0]) / 1e6, {**result.statuses, ANSWERED: len(ok)}, seconds, result.cpu_share


def retrying(server: Server, request: bytes, seconds: float, offered: float) -> Load:
    """grpcio's channel sends again what its policy lets it. A reply counts once Python has it, so the thread that sends
    must not keep the one that hears waiting."""
    sys.setswitchinterval(1e-4)
    latency_ms: list[float] = []
    codes: Counter[str] = Counter()
    lock = threading.Lock()

    def done(scheduled: float, counts: bool, call: grpc.Future) -> None:
        took_ms = (time.perf_counter() - scheduled) * 1e3
        code = call.code().name
        with lock:
            codes[code] += 1
            if counts and code == "OK":
                latency_ms.append(took_ms)

    options = [("grpc.service_config", json.dumps(RETRIES)), ("grpc.enable_retries", 1)]
    with grpc.insecure_channel(server.address, options=options) as channel:
        infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
        infer(request, timeout=1)
        cpu, begin = time.process_time(), time.perf_counter()
        calls = []
        for index in range(round(offered * (WARMUP_S + seconds))):
            scheduled = begin + index / offered
            if (pause := scheduled - time.perf_counter()) > 0:
                time.sleep(pause)
            call = infer.future(request, timeout=max(0.001, DEADLINE_S - (time.perf_counter() - scheduled)))
            call.add_done_callback(partial(done, scheduled, scheduled >= begin + WARMUP_S))
            calls.append(call)
        share = (time.process_time() - cpu) / (time.perf_counter() - begin)
        for call in calls:
            call.exception()
    return np.array(latency_ms), dict(codes), seconds, share


def capacity(server: Server, request: bytes, seconds: float) -> float:
    """Calls per second of a closed loop without deadlines, which is to see nothing but OK."""
    result = load_client.run(server.address, f"{SERVICE}/ModelInfer", request, 4, 64, duration_s=seconds,
                             warmup_s=WARMUP_S)
    if result.ok != result.sent:
        raise RuntimeError(f"a closed loop of 256 calls: {result.statuses} {result.failures} {result.reason}")
    return result.rate


def adaptive(server_command: str, root: Path, most: float, core: int, seconds: float) -> Result:
    """Without deadlines nothing judges how long a request waits but `--adaptive-limit`: with it and without, twice of
    what the server can do."""
    request = payload.row_request("row", (WIDTH,))
    steps = {}
    for name, flags in (("off", ""), ("on", " --adaptive-limit")):
        with ours(server_command + flags, root / "row", core) as server:
            server.wait_http_ready()
            # What it begins with is measured as well, but not here.
            load_client.run(server.address, f"{SERVICE}/ModelInfer", request, *SHAPE, duration_s=seconds,
                            rate=2 * most)
            print(f"  {name}", flush=True)
            steps[name] = step(server, "row", 2.0, 2 * most, partial(patient, server, request, seconds))
    off, on = steps["off"], steps["on"]
    return [Bar("without deadlines, --adaptive-limit: answered, by as much as without it",
                100 * on.codes[ANSWERED] / off.codes[ANSWERED], 90.0, unit="%"),
            Bar("without deadlines, --adaptive-limit: p99, by what it is without it",
                100 * on.ok_p99_ms / off.ok_p99_ms, 20.0, True, "%")], {
        "capacity": most, "steps": [asdict(each) for each in steps.values()]}


@dataclass(frozen=True)
class Part:
    """A model under loads."""

    model: str
    times: Sequence[float]
    least: float
    """Goodput in per cent of the peak at the highest load."""
    judged: bool
    """Its tail, and what of it ran in vain."""
    load: Callable[[Server, bytes, float, float], Load] = compiled


PARTS = {
    "row": Part("row", TIMES, 85.0, True),
    "retries": Part("row4", FEW_TIMES, 85.0, True, retrying),
    "mid": Part("mid", FEW_TIMES, 50.0, False),
    "tiny": Part("tiny", FEW_TIMES, 50.0, False),
}


def overload(start: Callable[[Path], Server], root: Path, part: Part, most: float | None, seconds: float) -> Result:
    """`most`: its capacity, where it is known."""
    model, load = part.model, part.load
    request = payload.row_request(model, bench_models.ROW_SHAPES.get(model, (WIDTH,)))
    with start(root / model) as server:
        server.wait_http_ready()
        closed = capacity(server, request, min(seconds, 2.0))
        print(f"  a closed loop of 256 calls without deadlines: {closed:,.0f}/s, all OK", flush=True)
        most = most or closed
        steps = [step(server, model, each, each * most, partial(load, server, request, seconds))
                 for each in part.times]
    peak = max(each.good for each in steps)
    last = steps[-1]
    name = model if load is compiled else f"{model}, clients that retry"
    bars = [Bar(f"{name}: goodput at {last.times:g}x of the peak", 100 * last.good / peak, part.least, unit="%")]
    if part.judged:
        bars += [
            Bar(f"{name}: p99 of OK replies", max(each.ok_p99_ms for each in steps), DEADLINE_S * 1e3, True, "ms"),
            Bar(f"{name}: expired while they ran", 100 * max(each.expired_in_run for each in steps), 1.0, True, "%")]
    bars.append(Bar(f"{name}: UNAVAILABLE", sum(each.codes.get("UNAVAILABLE", 0) for each in steps), 0, True))
    return bars, {"capacity": most, "steps": [asdict(each) for each in steps]}


def plot(results: dict[str, Result], path: Path) -> None:
    """Goodput over the load that is offered, both by the capacity: an SVG without a library."""
    width, height, left, bottom = 640, 400, 60, 350
    most = max(TIMES)
    colours = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728")

    def x(times: float) -> float:
        return left + times / most * (width - left - 20)

    def y(share: float) -> float:
        return bottom - share / 1.2 * (bottom - 30)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
             'font-size="12"><rect width="100%" height="100%" fill="white"/>',
             f'<path d="M{left},30V{bottom}H{width - 20}" fill="none" stroke="black"/>',
             f'<text x="{width / 2}" y="{height - 12}" text-anchor="middle">offered, times the capacity</text>',
             f'<text x="14" y="{height / 2}" transform="rotate(-90 14 {height / 2})" text-anchor="middle">'
             'answered within 50 ms, times the capacity</text>']
    for tick in range(int(most) + 1):
        parts.append(f'<text x="{x(tick)}" y="{bottom + 16}" text-anchor="middle">{tick}</text>')
    for share in (0.25, 0.5, 0.75, 1.0):
        parts.append(f'<path d="M{left},{y(share)}H{width - 20}" stroke="#ddd"/>'
                     f'<text x="{left - 6}" y="{y(share) + 4}" text-anchor="end">{share}</text>')
    for index, (name, (_, result)) in enumerate(results.items()):
        points = " ".join(f"{x(each['times']):.1f},{y(each['good'] / result['capacity']):.1f}"
                          for each in result["steps"])
        colour = colours[index % len(colours)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
                     f'<text x="{width - 30}" y="{bottom - 80 + 16 * index}" text-anchor="end" fill="{colour}">{name}'
                     '</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help=f"of each load [{SECONDS}]")
    parser.add_argument("--parts", default=[*PARTS, ADAPTIVE], type=lambda text: text.split(","),
                        help=", ".join([*PARTS, ADAPTIVE]))
    parser.add_argument("--quick", action="store_true", help="short loads: for a look, not for a record")
    add_server_options(parser, "-overload")
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    require_two_cores(parser, arguments)
    return arguments


def main() -> int:
    arguments = parse_arguments()
    root = bench_models.build(BUILD / "models")
    # Of tiny and mid a closed loop says it.
    rates = {name: write_model(root, name, row_ms, arguments.server_core) for name, row_ms in ROW_MS.items()
             if name in {PARTS[part].model if part in PARTS else "row" for part in arguments.parts}}
    os.sched_setaffinity(0, {arguments.generator_core})
    start = partial(ours, arguments.server, core=arguments.server_core)
    found: dict[str, Result] = {}

    def measure(part: str) -> Result:
        if part == ADAPTIVE:
            return adaptive(arguments.server, root, rates["row"], arguments.server_core, arguments.seconds)
        found[part] = overload(start, root, PARTS[part], rates.get(PARTS[part].model), arguments.seconds)
        return found[part]

    run_parts({part: partial(measure, part) for part in arguments.parts},
              {"deadline_s": DEADLINE_S, "seconds": arguments.seconds}, arguments.output, "-overload")
    plot(found, (arguments.output or ROOT / "bench" / "results" / f"{commit()}-overload.json").with_suffix(".svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
