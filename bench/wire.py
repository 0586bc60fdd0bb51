"""`make bench-wire`: streams against unary calls, TLS against plaintext, 16 MiB messages against a loopback copy, and
what slow peers cost the others.

Server on one core, generators on another. Comparisons run ABAB and take the median of the pairs' ratios. Counts that
do not agree end the bench with an error.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import models as bench_models
from bench.bars import Bar, tail_limit
from bench.compare import BUILD, Case, disagreement
from bench.growth import MIB, Result, compared, loaded, pairs_of, print_compared, run_parts
from bench.load import h2load, loopback
from bench.load.held import held
from bench.load.limits import families
from bench.targets import SERVICE, Server, add_server_options, ours, require_two_cores
from infer._core import load_client
from infer.cores import memory_limit_bytes

SHAPE = (4, 64)
LARGE_BYTES = 4 * bench_models.LARGE_ROW[0]
LARGE_CONNECTIONS = (1, 4)
# Replies to peak hold a name, a shape and four bytes.
SMALL_BYTES = 64
SLOW_PEERS = 100
SLOW_RATE = 1_000
SLOW_FLAGS = " --max-buffered-bytes-total 256MiB"
SLOW_TOTAL_BYTES = 256 << 20
# Over the bound of all, connections that hold little are served until as much again as half of it is held.
HELD_BYTES = SLOW_TOTAL_BYTES + SLOW_TOTAL_BYTES // 2
# What one connection may have queued at its socket, as `infer serve` has it by default.
OUTBOUND_BYTES = 4 << 20
# The pages that the arena keeps of what was freed, as a share of the machine's memory.
CACHE_SHARE = 32
# Of a process that has begun to use its allocators, whatever the load.
SLACK_BYTES = 64 << 20
SETTLE_S, SETTLES = 0.5, 40
PAIRS, SECONDS = 5, 3.0
QUICK_PAIRS, QUICK_SECONDS = 3, 1.0


@dataclass(frozen=True)
class LargeSample:
    rate: float
    loopback_rate: float
    bytes_per_s: float
    """In and out."""
    p50_us: float
    cpu_us: float
    """Server CPU per call."""
    switches: float
    generator_cpu_share: float


@dataclass(frozen=True)
class SlowSample:
    p50_us: float
    p99_us: float
    max_us: float
    failed: int
    rss_bytes: int
    buffered_bytes: float
    outbound_bytes: float


def streaming(start: Callable[[], Server], case: Case, *, pairs: int, seconds: float) -> Result:
    """Messages on one stream for each connection against as many unary calls under way."""
    connections, under_way = SHAPE
    with start() as server:
        server.wait_ready()
        unary = partial(loaded, case, server, SHAPE, duration_s=seconds)
        stream = partial(
            loaded, case, server, (connections, 1), "ModelStreamInfer", stream_messages=under_way, duration_s=seconds
        )
        unary()
        stream()
        figures = compared(pairs_of(unary, stream, pairs))
    print_compared("unary", "stream", figures)
    return [Bar("tiny c256: rate on streams, by unary", figures["rate_ratio"] * 100, 80, unit="%")], figures


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate and its key, made by openssl."""
    folder.mkdir(parents=True, exist_ok=True)
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def h2loaded(case: Case, server: Server, url: str, *, requests: int, core: int, reply_bytes: int) -> dict[str, float]:
    counts, usage = server.counts(), server.usage()
    result = h2load.run(url, case.body, SHAPE, requests, core=core)
    used, counted = server.usage() - usage, server.counts() - counts
    void = disagreement(result.succeeded, counted, result.data_bytes, reply_bytes)
    if void or result.succeeded != result.requests:
        raise RuntimeError(f"{url}: {void} {result.succeeded} of {result.requests} succeeded")
    cpu_us = used.cpu_s / result.requests * 1e6
    return {"rate": result.rate, "cpu_us": cpu_us, "p99_us": result.p99_us, "generator_cpu_share": result.cpu_share}


def tls(start: Callable[[str], Server], core: int, case: Case, *, pairs: int, seconds: float) -> Result:
    """h2load over TLS against h2load without, two servers on one core, one of them idle at a time."""
    cert, key = certificate(BUILD / "tls")
    samples: dict[str, list[dict[str, float]]] = {"plaintext": [], "tls": []}
    with start("") as plain, start(f" --tls-cert {cert} --tls-key {key}") as secure:
        plain.wait_ready()
        secure.wait_http_ready()
        path = f"{SERVICE}/ModelInfer"
        warm = load_client.run(plain.address, path, case.message, *SHAPE, duration_s=min(0.5, seconds))
        requests = {"plaintext": int(warm.rate * seconds), "tls": int(warm.rate * seconds / 2)}
        servers = {"plaintext": (plain, "http"), "tls": (secure, "https")}
        for _ in range(pairs):
            for name, (server, scheme) in servers.items():
                url = f"{scheme}://{server.address}{path}"
                amount = {"requests": requests[name], "core": core, "reply_bytes": warm.reply_bytes}
                samples[name].append(h2loaded(case, server, url, **amount))
    ratio = statistics.median(b["rate"] / a["rate"] for a, b in zip(*samples.values(), strict=True))
    for name, each in samples.items():
        rate, cpu_us = (statistics.median(sample[figure] for sample in each) for figure in ("rate", "cpu_us"))
        print(f"  {name:24} {rate:10.0f}/s  server CPU {cpu_us:6.2f} us per request", flush=True)
    return [Bar("tiny c256: rate over TLS, by plaintext", ratio * 100, 50, unit="%")], samples


def large_sample(
    case: Case, server: Server, connections: int, seconds: float, *, out_bytes: int, core: int
) -> LargeSample:
    loopback_rate = loopback.copies_per_s(core, connections, LARGE_BYTES, out_bytes, seconds)
    usage = server.usage()
    result = load_client.run(server.address, f"{SERVICE}/ModelInfer", case.message, connections, duration_s=seconds)
    used = server.usage() - usage
    if result.ok != result.sent or result.failures:
        raise RuntimeError(f"{case.model}: {result.statuses} {result.failures} {result.reason}")
    return LargeSample(
        result.rate,
        loopback_rate,
        result.rate * (LARGE_BYTES + out_bytes),
        result.p50_us,
        used.cpu_s / result.sent * 1e6,
        used.switches / result.sent,
        result.cpu_share,
    )


def large(start: Callable[[], Server], server_core: int, pairs: int, seconds: float) -> Result:
    """Calls of 16 MiB against plain sockets that move as many bytes in the same order between the same cores."""
    bars: list[Bar] = []
    figures: dict[str, Any] = {}
    with start() as server:
        server.wait_ready()
        for model, what, out_bytes in (("copy", "in and out", LARGE_BYTES), ("peak", "in", SMALL_BYTES)):
            case = Case(model, bench_models.LARGE_ROW)
            for connections in LARGE_CONNECTIONS:
                measure = partial(large_sample, case, server, connections, out_bytes=out_bytes, core=server_core)
                measure(min(0.5, seconds))
                samples = [measure(seconds) for _ in range(pairs)]
                ratio = statistics.median(each.rate / each.loopback_rate for each in samples)
                moved = statistics.median(each.bytes_per_s for each in samples) / MIB
                cpu_ms = statistics.median(each.cpu_us for each in samples) / 1e3
                print(f"  16 MiB {what} c{connections}: {moved:.0f} MiB/s, server CPU {cpu_ms:.1f} ms", flush=True)
                bars.append(Bar(f"16 MiB {what} c{connections}: by a loopback copy", ratio * 100, 60, unit="%"))
                figures[f"{what} c{connections}"] = [asdict(each) for each in samples]
    return bars, figures


def gauges(server: Server) -> tuple[float, float]:
    """Bytes of unfinished requests, and of replies not yet handed to a socket."""
    found = families(server)
    buffered, outbound = (found[name].samples[0].value for name in ("infer_buffered_bytes", "infer_outbound_bytes"))
    return buffered, outbound


def well_behaved(case: Case, server: Server, seconds: float) -> SlowSample:
    requests = int(SLOW_RATE * seconds)
    result = load_client.run(
        server.address, f"{SERVICE}/ModelInfer", case.message, *SHAPE, rate=SLOW_RATE, requests=requests
    )
    failed = requests - result.ok + sum(result.failures.values())
    return SlowSample(result.p50_us, result.p99_us, result.max_us, failed, server.rss_bytes(), *gauges(server))


def settle(server: Server) -> None:
    """Until the bytes that the server holds stand still, to the mebibyte."""
    last: list[int] = []
    for _ in range(SETTLES):
        time.sleep(SETTLE_S)
        now = [int(held_bytes / MIB) for held_bytes in gauges(server)]
        if now == last:
            return
        last = now
    raise RuntimeError(f"the server holds {last} MiB, and not the same from one half second to the next")


def slow(start: Callable[[str], Server], case: Case, kind: str, body: Path, *, pairs: int, seconds: float) -> Result:
    """A client at a fixed rate, alone and beside slow peers that have settled."""
    alone, beside = [], []
    with start(SLOW_FLAGS) as server:
        server.wait_ready()
        well_behaved(case, server, seconds)
        rss_bytes = server.rss_bytes()
        for _ in range(pairs):
            alone.append(well_behaved(case, server, seconds))
            arguments = (kind, SLOW_PEERS, body)
            with held("bench.load.slow", "127.0.0.1", server.port, *arguments, count=SLOW_PEERS):
                settle(server)
                beside.append(well_behaved(case, server, seconds))
            # What they leave behind is not counted as the next client's.
            settle(server)
    p99, alone_ms = (statistics.median(each.p99_us for each in samples) / 1e3 for samples in (beside, alone))
    growth = max(each.rss_bytes for each in beside) - rss_bytes
    held_bytes = max(each.buffered_bytes + each.outbound_bytes for each in beside)
    bound = HELD_BYTES + SLOW_PEERS * OUTBOUND_BYTES + memory_limit_bytes() // CACHE_SHARE + SLACK_BYTES
    name = f"{SLOW_PEERS} slow {kind}"
    return [
        Bar(f"{name}: p99 of another client", p99, tail_limit(alone_ms), True, "ms"),
        Bar(f"{name}: its failed calls", sum(each.failed for each in (*alone, *beside)), 0, True),
        Bar(f"{name}: bytes held, by the gauges", held_bytes / MIB, HELD_BYTES / MIB, True, "MiB"),
        Bar(f"{name}: growth of RSS", growth / MIB, bound / MIB, True, "MiB"),
    ], {"alone": [asdict(each) for each in alone], "beside": [asdict(each) for each in beside], "rss_bytes": rss_bytes}


PARTS = ("streaming", "tls", "large", "slow_readers", "slow_senders")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=list(PARTS), type=lambda text: text.split(","), help=",".join(PARTS))
    parser.add_argument("--pairs", type=int, help=f"of each comparison [{PAIRS}]")
    parser.add_argument("--seconds", type=float, help=f"of each load [{SECONDS}]")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter pairs: for a look, not for a record")
    add_server_options(parser, "-wire")
    arguments = parser.parse_args()
    arguments.pairs = arguments.pairs or (QUICK_PAIRS if arguments.quick else PAIRS)
    arguments.seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    if unknown := {*arguments.parts} - {*PARTS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    require_two_cores(parser, arguments)
    missing = [tool for tool in ("h2load", "openssl") if "tls" in arguments.parts and not shutil.which(tool)]
    if missing:
        parser.error(f"missing: {', '.join(missing)}; on Debian or Ubuntu: apt-get install nghttp2-client openssl")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    root = bench_models.build_wire(BUILD / "wire-models")
    # The generators run in this process or inherit its core.
    os.sched_setaffinity(0, {arguments.generator_core})
    tiny = Case("tiny", bench_models.ROW_SHAPES["tiny"])
    repeat = {"pairs": arguments.pairs, "seconds": arguments.seconds}
    spread, peak = Case("spread", bench_models.SPREAD_ROW), Case("peak", bench_models.LARGE_ROW)

    def start(flags: str = "") -> Server:
        return ours(arguments.server + flags, root, arguments.server_core)

    parts: dict[str, Callable[[], Result]] = {
        "streaming": partial(streaming, start, tiny, **repeat),
        "tls": partial(tls, start, arguments.generator_core, tiny, **repeat),
        "large": partial(large, start, arguments.server_core, **repeat),
        "slow_readers": partial(slow, start, tiny, "readers", spread.body, **repeat),
        "slow_senders": partial(slow, start, tiny, "senders", peak.body, **repeat),
    }
    run_parts({name: parts[name] for name in arguments.parts}, repeat, arguments.output, "-wire")
    return 0


if __name__ == "__main__":
    sys.exit(main())
