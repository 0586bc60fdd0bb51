"""Drains of one of two servers behind a balancer, under an even load: how many calls fail. The bar is none.

    python -m bench.load.drain [envoy nginx haproxy] --drains 20 --rate 1000

Both servers and the balancer are processes of this machine; calls come from the compiled generator at a fixed rate, on
connections that last the whole run and without a second attempt. Each time one server is told to stop, ends, and is
started again on its port; the next waits until both have answered calls. The exit status is 1 when a call failed, or a
server did not end with 0.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.load.balancers import FILES, Balancer, find, free_port
from bench.targets import counts_from_metrics
from infer._core import load_client
from infer.cli.samples import examples_directory, load_sample
from infer.client import InferClient, RetryPolicy
from infer.client.calls import INFER_PATH
from infer.client.messages import encode_request

MODEL = "trees"
CONNECTIONS, STREAMS = 4, 64
DRAIN_DELAY_S = 3.0
START_S, STOP_S = 60.0, 60.0
PAUSE_S = 0.05
# The load lasts this long for each drain, which is more than one takes, so that it goes on to the last.
PER_DRAIN_S = 6.0
PATIENT = RetryPolicy(attempts=1000, first_backoff=0.05, longest_backoff=0.2)


class Server:
    """`infer serve` on ports that it keeps over its restarts."""

    def __init__(self) -> None:
        self.port, self.http_port = free_port(), free_port()
        self.grpc, self.http = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.http_port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "infer", "serve", str(examples_directory()), "--host", "127.0.0.1", "--port",
                   str(self.port), "--http-port", str(self.http_port), "--drain-delay", str(DRAIN_DELAY_S),
                   "--log-level", "warning"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def answered(self) -> int:
        try:
            return counts_from_metrics(self.http_port).ok
        except OSError:
            return 0

    def drain(self) -> tuple[int, float]:
        """Exit status, and the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S), time.monotonic() - started

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def wait_serving(servers: list[Server], load: Future[Any]) -> None:
    """Returns when each has answered calls since now; raises when the load is over or it takes too long."""
    before = [server.answered() for server in servers]
    until = time.monotonic() + START_S
    while any(server.answered() <= count for server, count in zip(servers, before, strict=True)):
        if load.done() or time.monotonic() > until:
            raise RuntimeError("a server gets no calls" if not load.done() else "the load ended before the drains did")
        time.sleep(PAUSE_S)


def measure(name: str, program: str, drains: int, rate: float) -> dict[str, Any]:
    sample = load_sample(MODEL)
    if sample is None:
        raise RuntimeError(f"the sample of {MODEL} is missing")
    payload = encode_request(MODEL, {key: array[:1] for key, array in sample.inputs.items()})
    servers = [Server(), Server()]
    ended = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        try:
            for server in servers:
                server.start()
            with Balancer(name, program, [(server.grpc, server.http) for server in servers], Path(folder)) as balancer:
                with InferClient(balancer.address, timeout=START_S, retry=PATIENT) as client:
                    client.call(INFER_PATH, payload)
                load = pool.submit(load_client.run, balancer.address, INFER_PATH, payload, CONNECTIONS, STREAMS,
                                   duration_s=drains * PER_DRAIN_S + PER_DRAIN_S, rate=rate)
                for number in range(drains):
                    wait_serving(servers, load)
                    server = servers[number % 2]
                    status, seconds = server.drain()
                    ended.append(status)
                    server.start()
                    print(f"{name}: drain {number + 1} of {drains}: exit {status} after {seconds:.2f} s", flush=True)
                result = load.result()
                log = balancer.output()
        finally:
            for server in servers:
                server.stop()
    failed = {key: count for key, count in {**result.statuses, **result.failures}.items() if key != "OK" and count}
    return {"balancer": name, "drains": len(ended), "rate": rate, "sent": result.sent, "ok": result.ok,
            "failed": failed, "reason": result.reason, "p99_us": result.p99_us, "max_us": result.max_us,
            "exits": sorted(set(ended)), "log": log if failed else ""}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load.drain", description=__doc__.splitlines()[0])
    parser.add_argument("balancers", nargs="*", default=["envoy", "nginx"], metavar="BALANCER",
                        help="envoy, nginx, haproxy [envoy and nginx]")
    parser.add_argument("--drains", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1000.0, help="calls per second")
    parser.add_argument("--envoy", help="the program, where it is not on PATH")
    options = parser.parse_args()
    good = True
    for name in options.balancers:
        if name not in FILES:
            parser.error(f"unknown balancer {name!r}, expected one of {', '.join(FILES)}")
        program = options.envoy if name == "envoy" and options.envoy else find(name)
        if program is None:
            print(f"{name}: not installed, nothing measured")
            good = False
            continue
        result = measure(name, program, options.drains, options.rate)
        print(json.dumps(result))
        good = good and not result["failed"] and result["exits"] == [0] and result["drains"] == options.drains
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
