"""The scenarios of `bench.load.cancels` against a server of our own, and what they are held to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.bars import Bar
from bench.compare import BUILD, Case
from bench.growth import Result
from bench.load import payload
from bench.load.cancels import CALLS, RATE
from bench.load.limits import connections_accepted, difference, refused
from bench.targets import ROOT, Server
from tests.support.models import slow, write_version

# By name: the kind, and the bar's words.
SCENARIOS = {
    "cancels": f"{CALLS:,} calls cancelled at once, by grpcio",
    "cancels-raw": f"{CALLS:,} calls cancelled at once, frames by hand",
    "timeouts": f"{RATE} timeouts a second, by grpcio",
    "timeouts-raw": f"{RATE} timeouts a second, frames by hand",
}
# Longer than a client of these waits, whatever the machine.
SLOW_STEPS = 5_000
# Of the calls that are due, those that have to be made for the run to count.
SHARE = 0.95


def write_slow_model(root: Path) -> None:
    write_version(root, "slow", 1, slow())


def slow_body() -> bytes:
    return payload.infer_request("slow", np.array([SLOW_STEPS], "<i8").tobytes(), (1, 1), datatype="INT64")


def judged(name: str, done: dict[str, Any], connections: float, limits: dict[str, float]) -> list[Bar]:
    lost = sum(count for limit, count in limits.items() if limit) + done.get("goaways", 0)
    return [
        Bar(f"{name}: connections that it took", connections, 1, True),
        Bar(f"{name}: calls and connections that a limit ended", lost, 0, True),
        Bar(f"{name}: good call afterwards", float(done["last"] == "OK"), 1),
    ]


def give_up(host: str, port: int, kind: str, seconds: float, files: list[Path]) -> dict[str, Any]:
    """What a client of that kind did; the files are those of the slow call and of the good one."""
    command = [sys.executable, "-m", "bench.load.cancels", host, str(port), kind, str(seconds), *map(str, files)]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    done: dict[str, Any] = json.loads(output)
    return done


def scenario(start: Callable[[], Server], case: Case, kind: str, seconds: float) -> Result:
    folder = BUILD / "bodies"
    files = [folder / "slow.message", folder / "good.message"]
    for path, message in zip(files, (slow_body(), case.message), strict=True):
        path.write_bytes(message)
    with start() as server:
        server.wait_ready()
        before, accepted = refused(server), connections_accepted(server)
        done = give_up("127.0.0.1", server.port, kind, seconds, files)
        limits, connections = difference(before, refused(server)), connections_accepted(server) - accepted
    due = RATE * seconds if kind.startswith("timeouts") else CALLS
    if done["calls"] < SHARE * due:
        raise RuntimeError(f"{SCENARIOS[kind]}: only {done['calls']} calls in {done['seconds']:.1f} s")
    print(f"  {SCENARIOS[kind]:44} {done['calls']:7} calls on {connections:.0f} connection, then {done['last']}"
          f" {done.get('codes', '')}", flush=True)
    return judged(SCENARIOS[kind], done, connections, limits), {**done, "connections": connections, "refused": limits}
