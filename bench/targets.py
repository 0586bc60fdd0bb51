"""The servers that the bench compares: how each is started, and how its counters and its CPU time are read."""

import argparse
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bench.baseline import stubs
from infer._core import load_client

ROOT = Path(__file__).resolve().parents[1]
SERVICE = "/inference.GRPCInferenceService"
START_S = 60.0
OURS = (
    "{python} -m infer serve {models} --host 127.0.0.1 --port {port} --http-port {http_port}"
    " --drain-delay 0 --log-level warning"
)
# What a result calls our server, on either transport.
NATIVE, PORTABLE = "infer", "grpcio"
# As our /metrics names them.
OK_METRIC = "infer_requests_total"
ROWS_METRIC = "infer_rows_total"
BATCHES_METRIC = "infer_batches_total"
CPUCLOCK_SCHED = 2
SWITCHES = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")


@dataclass(frozen=True)
class Counts:
    ok: int
    """Calls answered OK."""
    inferences: int
    """Rows."""
    batches: int

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(self.ok - other.ok, self.inferences - other.inferences, self.batches - other.batches)


@dataclass(frozen=True)
class Usage:
    """What all threads of a process have used so far."""

    cpu_s: float
    switches: int
    """Context switches, voluntary and not."""

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.cpu_s - other.cpu_s, self.switches - other.switches)


def metrics_of(http_port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics", timeout=10) as reply:
        return str(reply.read().decode())


def counts_from_metrics(http_port: int) -> Counts:
    ok = inferences = batches = 0.0
    for family in text_string_to_metric_families(metrics_of(http_port)):
        for sample in family.samples:
            if sample.name == OK_METRIC and sample.labels.get("code") == "OK":
                ok += sample.value
            elif sample.name == ROWS_METRIC:
                inferences += sample.value
            elif sample.name == BATCHES_METRIC:
                batches += sample.value
    return Counts(int(ok), int(inferences), int(batches))


def counts_from_statistics(address: str) -> Counts:
    pb2, _ = stubs.load()
    reply = load_client.run(address, f"{SERVICE}/ModelStatistics", b"", requests=1).first_reply
    stats = pb2.ModelStatisticsResponse.FromString(reply or b"").model_stats
    return Counts(
        sum(s.inference_stats.success.count for s in stats),
        sum(s.inference_count for s in stats),
        sum(s.execution_count for s in stats),
    )


def free_port() -> int:
    """One below those that the kernel gives to connections, so that none takes it before it is bound again."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(min(10_000, first - 1), first)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Server:
    """A server process pinned to a core, or to several as taskset lists them; `with` ends it."""

    def __init__(self, name: str, template: str, models: Path, core: int | str, *, has_metrics: bool = False,
                 log: Path | None = None) -> None:
        self.name = name
        self.has_metrics = has_metrics
        self.port, self.http_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        values = {"python": sys.executable, "models": models, "port": self.port, "http_port": self.http_port}
        command = [word.format(**values) for word in template.split()]
        self.spawned_s = time.monotonic()
        with open(log, "ab") if log is not None else nullcontext() as stderr:
            self.process = subprocess.Popen(["taskset", "-c", str(core), *command], cwd=ROOT,
                                            stdout=subprocess.DEVNULL, stderr=stderr)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_ready(self) -> None:
        """Return once ServerReady says so."""
        self._wait(self._says_ready, 0.05)

    def wait_http_ready(self) -> float:
        """Seconds from the spawn until /v2/health/ready answered 200."""
        return self._wait(self._http_ready, 0.0005) - self.spawned_s

    def _wait(self, is_ready: Callable[[], bool], pause_s: float) -> float:
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode} before it was ready")
            try:
                if is_ready():
                    return time.monotonic()
            except OSError:
                pass
            time.sleep(pause_s)
        raise RuntimeError(f"{self.name} was not ready within {START_S:.0f} s")

    def _says_ready(self) -> bool:
        return load_client.run(self.address, f"{SERVICE}/ServerReady", b"", requests=1).first_reply == b"\x08\x01"

    def _http_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.http_port), 1.0) as connection:
            connection.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")

    def counts(self) -> Counts:
        return counts_from_metrics(self.http_port) if self.has_metrics else counts_from_statistics(self.address)

    def usage(self) -> Usage:
        """taskset execs, so the pid is the server's."""
        process = Path(f"/proc/{self.process.pid}")
        return Usage(time.clock_gettime(cpu_clock(self.process.pid)),
                     sum(switches_of(thread / "status") for thread in (process / "task").iterdir()))

    def rss_bytes(self) -> int:
        return fields_of(Path(f"/proc/{self.process.pid}/status"))["VmRSS"] * 1024


def cpu_clock(pid: int) -> int:
    """The clock of the CPU time, user and system, of all threads that a process has had: exact where /proc counts in
    ticks. As clock_getcpuclockid(3) makes it."""
    return ~pid << 3 | CPUCLOCK_SCHED


def fields_of(status: Path) -> dict[str, int]:
    """The numbers of a status file under /proc by name; sizes in KiB."""
    lines = (line.split() for line in status.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def switches_of(status: Path) -> int:
    """Context switches of one thread; 0 where it has just ended."""
    try:
        fields = fields_of(status)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(fields[name] for name in SWITCHES)


def baselines(models: Path, core: int) -> list[Server]:
    template = "{python} -m bench.baseline.%s {models} --port {port}"
    return [Server(name, template % name, models, core) for name in ("in_handler", "queued")]


def ours(template: str, models: Path, core: int | str, log: Path | None = None) -> Server:
    """Its log goes to the file, if one is given."""
    return Server(NATIVE, template, models, core, has_metrics=True, log=log)


def portable(template: str, models: Path, core: int) -> Server:
    """Ours on its portable transport."""
    return Server(PORTABLE, template + " --transport grpcio", models, core, has_metrics=True)


def add_server_options(parser: argparse.ArgumentParser, suffix: str) -> None:
    """What a bench of one server on one core is told; `suffix` ends the name of its result."""
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--server", default=OURS, help="command of our server; {python} {models} {port} {http_port}")
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--generator-core", type=int, default=cores[-1])
    parser.add_argument("--output", type=Path, help=f"default: bench/results/<commit>{suffix}.json")


def require_two_cores(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.server_core == arguments.generator_core:
        parser.error("server and generator need a core each")
