"""`make bench-replicas`: three replicas behind a round-robin balancer beside one server with a cache of their size.

Keys follow Zipf's law, far more of them than the caches hold; each call goes to the next replica. What of the calls was
not run is the hit ratio, of the three together and of the one. Then what a forwarded hit takes beside one of the
replica's own, how many keys have to be run again when a replica is killed, and whether any call fails while that
happens and while it comes back.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import grpc
import numpy as np

from bench import models as bench_models
from bench.bars import Bar
from bench.compare import BUILD
from bench.growth import Result, run_parts
from bench.load import payload
from bench.load.limits import families
from bench.targets import SERVICE, Server, add_server_options, free_port, ours, require_two_cores

MODEL = "tiny"
REPLICAS = 3
KEYS, ZIPF = 20_000, 0.9
CALLS, QUICK_CALLS = 60_000, 10_000
CACHE_BYTES = 1_500_000
KNOWN_KEYS, TIMED = 300, 3_000
UP_S = 10.0

Infer = Callable[..., bytes]


def requests(count: int) -> list[bytes]:
    """Each another key's."""
    values = np.random.default_rng(5).uniform(-1.0, 1.0, (count, *bench_models.ROW_SHAPES[MODEL])).astype("<f4")
    return [payload.infer_request(MODEL, row.tobytes(), (1, *bench_models.ROW_SHAPES[MODEL])) for row in values]


def trace(calls: int) -> np.ndarray:
    """Which key each call is about."""
    weights = 1.0 / np.arange(1, KEYS + 1) ** ZIPF
    found: np.ndarray = np.random.default_rng(6).choice(KEYS, calls, p=weights / weights.sum())
    return found


def rows(server: Server) -> int:
    return server.counts().inferences


def total(server: Server, family: str, **labels: str) -> float:
    return sum(sample.value for sample in families(server)[family].samples
               if labels.items() <= sample.labels.items() and not sample.name.endswith("_created"))


@contextlib.contextmanager
def channels(servers: Sequence[Server]) -> Iterator[list[Infer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(grpc.insecure_channel(each.address)).unary_unary(f"{SERVICE}/ModelInfer")
               for each in servers]


def ratio(servers: Sequence[Server], known: Sequence[bytes], keys: np.ndarray) -> float:
    """Per cent of the calls that nobody ran, each sent to the next server."""
    before = sum(map(rows, servers))
    with channels(servers) as infer:
        for key, call in zip(keys, cycle(infer), strict=False):
            call(known[key], timeout=10)
    return 100.0 * (1.0 - (sum(map(rows, servers)) - before) / len(keys))


def until_up(servers: Sequence[Server], count: int) -> None:
    deadline = time.monotonic() + UP_S
    while any(total(server, "infer_replica_up") < count for server in servers):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the replicas do not reach each other within {UP_S:g} s")
        time.sleep(0.05)


class Fleet:
    """The replicas, on one core, each of which can be killed and started again."""

    def __init__(self, command: str, models: Path, core: int, ports: Sequence[int]) -> None:
        names = ",".join(f"127.0.0.1:{port}" for port in ports)
        flags = (f" --cache {CACHE_BYTES // REPLICAS} --replicas {names} --replicas-timeout 5s "
                 "--replicas-self 127.0.0.1:")
        self._start = [partial(ours, command.replace("{port}", str(port)) + flags + str(port), models, core)
                       for port in ports]
        self._ports = ports
        self.servers = [self.start(index) for index in range(len(ports))]

    def start(self, index: int) -> Server:
        server = self._start[index]()
        server.port, server.address = self._ports[index], f"127.0.0.1:{self._ports[index]}"
        server.wait_http_ready()
        return server

    def __enter__(self) -> Fleet:
        until_up(self.servers, len(self.servers) - 1)
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.__exit__()


def shared(command: str, models: Path, core: int, calls: int) -> Result:
    known, keys = requests(KEYS), trace(calls)
    with ours(f"{command} --cache {CACHE_BYTES}", models, core) as one:
        one.wait_http_ready()
        alone = ratio([one], known, keys)
    with Fleet(command, models, core, [free_port() for _ in range(REPLICAS)]) as fleet:
        together = ratio(fleet.servers, known, keys)
        answered = sum(total(each, "infer_replica_forwards", outcome="answered") for each in fleet.servers)
    print(f"  hits: one server {alone:.2f}%, {REPLICAS} replicas {together:.2f}%; another replica answered "
          f"{answered:,.0f} of {calls:,} calls", flush=True)
    return [Bar("replicas: hit ratio, points below one cache of the whole size", alone - together, 2.0, True)], {
        "alone": alone, "together": together, "forwarded": answered, "calls": calls}


def timed_ms(infer: Infer, request: bytes) -> float:
    begin = time.perf_counter()
    infer(request, timeout=10)
    return (time.perf_counter() - begin) * 1e3


def killed(command: str, models: Path, core: int, _calls: int) -> Result:
    known = requests(KNOWN_KEYS)
    with Fleet(command, models, core, [free_port() for _ in range(REPLICAS)]) as fleet, \
            channels(fleet.servers) as infer:
        for _ in range(2):
            for request, call in zip(known, cycle(infer), strict=False):
                call(request, timeout=10)
        # Whose they are shows in what the first replica forwards.
        first = fleet.servers[0]
        own: list[bytes] = []
        forwarded: list[bytes] = []
        for request in known:
            before = total(first, "infer_replica_forwards", outcome="answered")
            infer[0](request, timeout=10)
            (forwarded if total(first, "infer_replica_forwards", outcome="answered") > before else own).append(request)
        times = {name: np.array([timed_ms(infer[0], request) for request in islice(cycle(group), TIMED)])
                 for name, group in (("own", own), ("forwarded", forwarded))}
        tail = {name: [float(np.percentile(each, part)) for part in (50, 99)] for name, each in times.items()}
        print(f"  a hit of its own: p50 {tail['own'][0]:.2f}, p99 {tail['own'][1]:.2f} ms; forwarded: p50 "
              f"{tail['forwarded'][0]:.2f}, p99 {tail['forwarded'][1]:.2f} ms", flush=True)
        failed = [0]
        done = [0]
        ended = threading.Event()

        def load(call: Infer) -> None:
            for request in cycle(known):
                if ended.is_set():
                    return
                try:
                    call(request, timeout=10)
                except grpc.RpcError:
                    failed[0] += 1
                done[0] += 1

        with ThreadPoolExecutor(2) as pool:
            loads = [pool.submit(load, call) for call in infer[:2]]
            time.sleep(0.5)
            before = sum(map(rows, fleet.servers[:2]))
            fleet.servers[2].process.kill()
            time.sleep(1.5)
            moved = sum(map(rows, fleet.servers[:2])) - before
            fleet.servers[2] = fleet.start(2)
            until_up(fleet.servers, REPLICAS - 1)
            time.sleep(1.0)
            ended.set()
            for each in loads:
                each.result()
        print(f"  killed and back: {failed[0]} of {done[0]:,} calls failed, {moved} of {KNOWN_KEYS} keys ran again",
              flush=True)
    return [Bar("a replica killed and back: failed calls", failed[0], 0, True),
            Bar("a replica killed: keys that move", 100 * moved / KNOWN_KEYS, 100 / REPLICAS + 5, True, "%")], {
        "ms": tail, "calls": done[0], "moved": moved, "keys": KNOWN_KEYS}


PARTS = {"shared": shared, "killed": killed}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=[*PARTS], type=lambda text: text.split(","), help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="fewer calls: for a look, not for a record")
    add_server_options(parser, "-replicas")
    arguments = parser.parse_args()
    require_two_cores(parser, arguments)
    models = bench_models.build(BUILD / "models") / MODEL
    os.sched_setaffinity(0, {arguments.generator_core})
    calls = QUICK_CALLS if arguments.quick else CALLS
    run_parts({part: partial(PARTS[part], arguments.server, models, arguments.server_core, calls)
               for part in arguments.parts}, {"model": MODEL, "keys": KEYS, "zipf": ZIPF, "cache_bytes": CACHE_BYTES},
              arguments.output, "-replicas")
    return 0


if __name__ == "__main__":
    sys.exit(main())
