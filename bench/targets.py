"""The servers that the bench compares: how each is started, and how its counters and its CPU time are read."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bench.baseline import stubs
from infer._core import load_client

ROOT = Path(__file__).resolve().parents[1]
SERVICE = "/inference.GRPCInferenceService"
START_S = 60.0
OURS = "{python} -m infer serve {models} --host 127.0.0.1 --port {port} --http-port {http_port}"
# Calls answered OK, and rows inferred, as our /metrics names them.
OK_METRIC = "infer_requests_total"
ROWS_METRIC = "infer_rows_total"


@dataclass(frozen=True)
class Counts:
    ok: int
    inferences: int

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(self.ok - other.ok, self.inferences - other.inferences)


def counts_from_metrics(http_port: int) -> Counts:
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    ok = inferences = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == OK_METRIC and sample.labels.get("code") == "OK":
                ok += sample.value
            elif sample.name == ROWS_METRIC:
                inferences += sample.value
    return Counts(int(ok), int(inferences))


def counts_from_statistics(address: str) -> Counts:
    pb2, _ = stubs.load()
    reply = load_client.run(address, f"{SERVICE}/ModelStatistics", b"", requests=1).first_reply
    stats = pb2.ModelStatisticsResponse.FromString(reply or b"").model_stats
    return Counts(sum(s.inference_stats.success.count for s in stats), sum(s.inference_count for s in stats))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Server:
    """A server process pinned to one core; `with` ends it."""

    def __init__(self, name: str, template: str, models: Path, core: int, *, has_metrics: bool = False) -> None:
        self.name = name
        self.has_metrics = has_metrics
        self.port, self.http_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        values = {"python": sys.executable, "models": models, "port": self.port, "http_port": self.http_port}
        command = [word.format(**values) for word in template.split()]
        self.process = subprocess.Popen(["taskset", "-c", str(core), *command], cwd=ROOT, stdout=subprocess.DEVNULL)

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
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode} before it was ready")
            try:
                if load_client.run(self.address, f"{SERVICE}/ServerReady", b"", requests=1).first_reply == b"\x08\x01":
                    return
            except ConnectionError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} was not ready within {START_S:.0f} s")

    def counts(self) -> Counts:
        return counts_from_metrics(self.http_port) if self.has_metrics else counts_from_statistics(self.address)

    def cpu_s(self) -> float:
        """User and system time of all its threads. taskset execs, so the pid is the server's."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def baselines(models: Path, core: int) -> list[Server]:
    template = "{python} -m bench.baseline.%s {models} --port {port}"
    return [Server(name, template % name, models, core) for name in ("in_handler", "queued")]


def ours(template: str, models: Path, core: int) -> Server:
    return Server("infer", template, models, core, has_metrics=True)
