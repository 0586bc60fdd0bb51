"""Closed loop by h2load: a generator that is not ours, so that nobody has to take our word for the rate.

h2load takes any 2xx for success and looks at no grpc-status; the bytes of data that it received are compared with what
as many good replies hold, and the server's own counters with its count. Quantiles need its log of every request, which
costs it more than the request does: the rate comes from a run without, the quantiles from a shorter one with the log.
"""

import re
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

OUTCOMES = ("total", "started", "done", "succeeded", "failed", "errored", "timeout")
CLASSES = ("2xx", "3xx", "4xx", "5xx")
UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6}
FINISHED = re.compile(r"finished in ([\d.]+)(us|ms|s), ([\d.]+) req/s")
REQUESTS = re.compile(
    r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout"
)
STATUSES = re.compile(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx")
DATA = re.compile(r"\((\d+)\) data")
# The logged run has one in so many requests of the other.
LOGGED_PART = 4
TIMES = re.compile(r"time for request:\s+" + r"\s+".join([r"([\d.]+)(us|ms|s)"] * 4))


@dataclass(frozen=True)
class H2LoadResult:
    """Counts are of both runs, quantiles of the logged one, the rest of the other."""

    requests: int
    succeeded: int
    statuses: dict[str, int]
    """HTTP statuses by class."""
    data_bytes: int
    """Of all replies, gRPC prefixes included."""
    duration_s: float
    rate: float
    min_us: float
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    sd_us: float
    cpu_share: float

    @property
    def bottleneck(self) -> bool:
        return self.cpu_share > 0.8


class H2LoadError(Exception):
    """h2load failed, or its output is not what this module knows."""


def _search(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.search(text)
    if found is None:
        raise H2LoadError(f"h2load printed nothing like {pattern.pattern!r}:\n{text}")
    return found


def parse(text: str) -> dict[str, float]:
    """The figures of h2load's report; times in microseconds."""
    finished, times = _search(FINISHED, text), _search(TIMES, text).groups()
    figures = {"duration_s": float(finished[1]) * UNITS_US[finished[2]] / 1e6, "rate": float(finished[3])}
    for names, pattern in ((OUTCOMES, REQUESTS), (CLASSES, STATUSES)):
        figures |= {name: int(value) for name, value in zip(names, _search(pattern, text).groups(), strict=True)}
    figures["data_bytes"] = int(_search(DATA, text)[1])
    for index, name in enumerate(("min_us", "max_us", "mean_us", "sd_us")):
        figures[name] = float(times[2 * index]) * UNITS_US[times[2 * index + 1]]
    return figures


def read_log(path: Path) -> np.ndarray:
    """Microseconds of each request: the third column of the log."""
    times: np.ndarray = np.loadtxt(path, dtype=np.int64, usecols=2, ndmin=1)
    return times


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _load(command: list[str]) -> tuple[dict[str, float], float]:
    """One run: its figures, and its share of its core."""
    cpu_s, start_s = _cpu_s(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    share = (_cpu_s() - cpu_s) / (time.monotonic() - start_s)
    if done.returncode != 0:
        raise H2LoadError(done.stderr or done.stdout)
    figures = parse(done.stdout)
    if figures["succeeded"] == 0:
        raise H2LoadError(f"no request succeeded:\n{done.stdout}")
    return figures, share


def run(url: str, body: Path, shape: tuple[int, int], requests: int, *, core: int) -> H2LoadResult:
    """`requests` calls and a quarter more with the framed message in `body`, pinned to `core`; shape is (connections,
    streams on each)."""
    connections, streams = shape
    logged = max(requests // LOGGED_PART, connections * streams)
    command = ["taskset", "-c", str(core), "h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-d{body}"]
    command += ["-Hcontent-type: application/grpc", "-Hte: trailers"]
    figures, share = _load([*command, f"-n{requests}", url])
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "requests.tsv"
        also, _ = _load([*command, f"-n{logged}", f"--log-file={log}", url])
        p50, p90, p99, p999 = np.percentile(read_log(log), [50, 90, 99, 99.9])
    return H2LoadResult(
        requests=int(figures["total"] + also["total"]),
        succeeded=int(figures["succeeded"] + also["succeeded"]),
        statuses={name: int(figures[name] + also[name]) for name in CLASSES if figures[name] + also[name]},
        p50_us=float(p50),
        p90_us=float(p90),
        p99_us=float(p99),
        p999_us=float(p999),
        cpu_share=share,
        data_bytes=int(figures["data_bytes"] + also["data_bytes"]),
        **{name: figures[name] for name in ("duration_s", "rate", "min_us", "mean_us", "max_us", "sd_us")},
    )
