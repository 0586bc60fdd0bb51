"""`make bench-floods`: what floods on other connections cost a well-behaved client, and how many calls a good client
may give up on.

The server has one core. On the other the compiled generator makes 1,000 calls a second on its own connection, in turns
alone and beside an attacker that runs one row of FAULTS 1b after another (`bench/load/attacks.py`), each as fast as it
is let and with a new connection for each that the server ends. The medians of both sides are compared.

The attacker shares the generator's core, so it sends bytes that were made beforehand and runs at SCHED_IDLE: the
generator takes the core from it whenever it has something to do. What of the attacker it feels nevertheless, such as
packets that the kernel is still delivering on the attacker's behalf, counts against the server.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import models as bench_models
from bench.bars import Bar, print_bars, tail_limit
from bench.compare import BUILD, Case, commit, write_result
from bench.growth import Result
from bench.load.attacks import Attack, attacks
from bench.load.limits import difference, refused
from bench.load.patience import SCENARIOS, scenario, write_slow_model
from bench.targets import ROOT, SERVICE, Server, add_server_options, ours, require_two_cores
from infer._core import load_client

RATE = 1_000
STREAMS = 64
WARMUP_S = 0.2
# A flood keeps the attacker or the server busy; where neither is, something else has had their cores.
FLOOD_SHARE = 0.2
PAIRS, SECONDS = 5, 3.0
QUICK_PAIRS, QUICK_SECONDS = 1, 0.3
# Of the scenarios of a client that gives up on calls; the quick ones make a second's calls.
PATIENCE_S, QUICK_PATIENCE_S = 60.0, 1.0


@dataclass(frozen=True)
class Sample:
    """One phase of the well-behaved client; `attacker` is what was done to the server beside it."""

    p50_us: float
    p99_us: float
    max_us: float
    failed: int
    reason: str
    generator_cpu_share: float
    server_cpu_share: float
    attacker: dict[str, float] = field(default_factory=dict)
    refused: dict[str, float] = field(default_factory=dict)
    """By limit."""


def take_precedence() -> None:
    """From now on this process, and not what it starts, runs before anything else that wants its core."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        print("The generator may not have real-time priority (CAP_SYS_NICE): what else runs on its core delays it.")


def failed_calls(result: load_client.LoadResult, requests: int) -> int:
    """Calls that were not answered OK, whatever became of them."""
    return max(requests - result.ok, sum(result.failures.values()))


def well_behaved(case: Case, server: Server, seconds: float) -> Sample:
    requests = int(RATE * (WARMUP_S + seconds))
    used = server.usage()
    result = load_client.run(server.address, f"{SERVICE}/ModelInfer", case.message, 1, STREAMS, rate=RATE,
                             requests=requests, warmup_s=WARMUP_S)
    cpu_share = (server.usage() - used).cpu_s / (WARMUP_S + seconds)
    return Sample(result.p50_us, result.p99_us, result.max_us, failed_calls(result, requests), result.reason,
                  result.cpu_share, cpu_share)


@contextmanager
def attacking(host: str, port: int, attack: Attack, body: Path, done: dict[str, float]) -> Iterator[None]:
    """Fills `done` with what the attacker did."""
    command = [sys.executable, "-m", "bench.load.attacker", host, str(port), attack.name, str(body)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as attacker:
        try:
            assert attacker.stdout
            if attacker.stdout.readline() != "ready\n":
                raise RuntimeError(f"{attack.name}: the attacker did not start")
            yield
            done |= json.loads(attacker.communicate("\n", timeout=60)[0])
        finally:
            attacker.kill()


def beside(case: Case, server: Server, attack: Attack, seconds: float) -> Sample:
    done: dict[str, float] = {}
    before = refused(server)
    with attacking("127.0.0.1", server.port, attack, case.body, done):
        sample = well_behaved(case, server, seconds)
    limits = difference(before, refused(server))
    if not done.get("connections") or attack.cut not in (None, bool(limits)):
        raise RuntimeError(f"{attack.name}: the attacker did {done}, and the server refused {limits}")
    return replace(sample, attacker=done, refused=limits)


def is_flood(sample: Sample) -> bool:
    return max(sample.attacker["cpu_share"], sample.server_cpu_share) >= FLOOD_SHARE


def judged(name: str, quiet: list[Sample], flooded: list[Sample], holds: bool) -> list[Bar]:
    """The p99 is not judged where the attacker, which takes what others leave, got too little of its core to flood."""
    p99, alone = (statistics.median(each.p99_us for each in samples) / 1e3 for samples in (flooded, quiet))
    return [
        Bar(f"{name}: p99 of another client", p99, tail_limit(alone), True, "ms",
            applies=holds or all(map(is_flood, flooded))),
        Bar(f"{name}: its failed calls", sum(each.failed for each in (*quiet, *flooded)), 0, True),
    ]


def flood(case: Case, server: Server, attack: Attack, pairs: int, seconds: float) -> Result:
    quiet, flooded = [], []
    for _ in range(pairs):
        quiet.append(well_behaved(case, server, seconds))
        flooded.append(beside(case, server, attack, seconds))
    last = flooded[-1]
    print(f"  {attack.name:40} p99 {statistics.median(each.p99_us for each in quiet):6.0f} us alone,"
          f" {statistics.median(each.p99_us for each in flooded):6.0f} us beside;"
          f" {last.attacker.get('connections', 0) / last.attacker['seconds']:7.0f} connections/s,"
          f" server {last.server_cpu_share * 100:3.0f}% busy", flush=True)
    return judged(attack.name, quiet, flooded, attack.holds), {
        "quiet": [asdict(each) for each in quiet], "flooded": [asdict(each) for each in flooded]}


def parse_arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=[], action="append", metavar="TEXT",
                        help=f"only those whose name has TEXT, once for each: {'; '.join(names)}")
    parser.add_argument("--pairs", type=int, help=f"of each comparison [{PAIRS}]")
    parser.add_argument("--seconds", type=float, help=f"of each phase [{SECONDS}]")
    parser.add_argument("--patience", type=float, metavar="SECONDS", help=f"of each good client [{PATIENCE_S}]")
    parser.add_argument("--quick", action="store_true", help="one short pair each: for a look, not for a record")
    add_server_options(parser, "-floods")
    arguments = parser.parse_args()
    arguments.pairs = arguments.pairs or (QUICK_PAIRS if arguments.quick else PAIRS)
    arguments.seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    arguments.patience = arguments.patience or (QUICK_PATIENCE_S if arguments.quick else PATIENCE_S)
    require_two_cores(parser, arguments)
    return arguments


def main() -> int:
    case = Case("tiny", bench_models.ROW_SHAPES["tiny"])
    rows = attacks(case.body.read_bytes())
    arguments = parse_arguments([*rows, *SCENARIOS.values()])

    def chosen(name: str) -> bool:
        return not arguments.rows or any(text in name for text in arguments.rows)

    root = bench_models.build(BUILD / "models")
    slow_root = BUILD / "slow-models"
    write_slow_model(slow_root)
    os.sched_setaffinity(0, {arguments.generator_core})
    take_precedence()

    def start(flags: str = "") -> Server:
        return ours(arguments.server + flags, root / "tiny", arguments.server_core)

    parts: dict[str, Any] = {}
    bars: list[Bar] = []
    with start() as server:
        server.wait_ready()
        well_behaved(case, server, arguments.seconds)
        for attack in rows.values():
            if chosen(attack.name):
                judgement, parts[attack.name] = flood(case, server, attack, arguments.pairs, arguments.seconds)
                bars += judgement
    for kind, name in SCENARIOS.items():
        if chosen(name):
            judgement, parts[name] = scenario(lambda: start(f" {slow_root} --executors 1"), case, kind,
                                              arguments.patience)
            bars += judgement
    print()
    print_bars(bars)
    result = {"commit": commit(), "seconds": arguments.seconds, "pairs": arguments.pairs,
              "patience": arguments.patience, "bars": [bar.record() for bar in bars], "parts": parts}
    path = write_result(result, arguments.output, "-floods")
    print(f"\nwritten to {os.path.relpath(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
