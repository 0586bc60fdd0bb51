"""A good client that gives up on many calls: `python -m bench.load.cancels HOST PORT KIND SECONDS SLOW GOOD`.

SLOW and GOOD are files that hold a message each: one that takes longer than a client waits, and one that is answered at
once. KIND is `cancels` or `timeouts`, by grpcio or, with `-raw` behind, by a client that speaks HTTP/2 itself and does
what grpcio does: whole requests, then RST_STREAM(CANCEL). Cancels are CALLS at once, as often as fits; timeouts RATE in
a second, TIMEOUT_S after each call's start. All on one connection, with a good call at the end. Prints JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import grpc

from bench.targets import SERVICE
from tests.support.h2_peer import GOAWAY, ConnectionEnded, Peer, prefixed, request_fields

PATH = f"{SERVICE}/ModelInfer"
CALLS, RATE, TIMEOUT_S = 1_000, 200, 0.02
# Until the good call has its answer; those before it are given up, and the model may still be at one.
PATIENCE_S = 30.0
PAUSE_S = 0.05


def code_name(call: Any) -> str:
    return str(call.code().name)


def by_grpcio(address: str, kind: str, seconds: float, slow: bytes, good: bytes) -> dict[str, Any]:
    codes: Counter[str] = Counter()
    running: deque[Any] = deque()
    # A connection that ends would be opened anew at once, and is counted by the server.
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(PATH)
        call(good, timeout=PATIENCE_S)
        started_s = time.monotonic()
        number = 0
        while number == 0 or time.monotonic() < started_s + seconds:
            if kind == "cancels":
                running.extend(call.future(slow, timeout=PATIENCE_S) for _ in range(CALLS))
                time.sleep(PAUSE_S)
                for each in running:
                    each.cancel()
                number += CALLS
            else:
                time.sleep(max(0.0, started_s + number / RATE - time.monotonic()))
                running.append(call.future(slow, timeout=TIMEOUT_S))
                number += 1
            while running and running[0].done():
                codes[code_name(running.popleft())] += 1
        codes.update(code_name(each) for each in running)
        _, last = call.with_call(good, timeout=PATIENCE_S)
        return {"calls": number, "codes": codes, "last": code_name(last), "seconds": time.monotonic() - started_s}


def drain(peer: Peer, connection: socket.socket, until_s: float) -> None:
    """Reads what comes until then."""
    while (left_s := until_s - time.monotonic()) > 0:
        connection.settimeout(left_s)
        try:
            peer.read()
        except TimeoutError:
            break
    connection.settimeout(PATIENCE_S)


def raw(address: tuple[str, int], kind: str, seconds: float, slow: bytes, good: bytes) -> dict[str, Any]:
    number, last = 0, "connection ended"
    due: deque[tuple[float, int]] = deque()
    started_s = time.monotonic()
    with socket.create_connection(address, PATIENCE_S) as connection, Peer(connection) as peer:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            peer.call(message=good)
            while number == 0 or time.monotonic() < started_s + seconds:
                for _ in range(CALLS if kind == "cancels" else 1):
                    stream = peer.open(request_fields(PATH))
                    peer.body(stream, prefixed(slow))
                    due.append((time.monotonic() + TIMEOUT_S, stream))
                    number += 1
                drain(peer, connection, time.monotonic() + PAUSE_S if kind == "cancels" else started_s + number / RATE)
                while due and (kind == "cancels" or due[0][0] <= time.monotonic()):
                    stream = due.popleft()[1]
                    if not peer.replies[stream].ended:
                        peer.reset(stream)
            reply = peer.call(message=good)
            last = "OK" if reply.code == 0 else str(reply.code)
        except ConnectionEnded:
            pass
        goaways = sum(each.kind == GOAWAY for each in peer.others)
    return {"calls": number, "goaways": goaways, "last": last, "seconds": time.monotonic() - started_s}


def main() -> None:
    host, port, kind, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    slow, good = (Path(path).read_bytes() for path in sys.argv[5:7])
    if kind.endswith("-raw"):
        done = raw((host, port), kind.removesuffix("-raw"), seconds, slow, good)
    else:
        done = by_grpcio(f"{host}:{port}", kind, seconds, slow, good)
    print(json.dumps(done))


if __name__ == "__main__":
    main()
