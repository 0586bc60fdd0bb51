"""A process that runs one attack: `python -m bench.load.attacker HOST PORT NAME BODY`; BODY is a framed message's file.

The bytes are made before the first connection. As many connections as the attack has are kept open; one that the server
ends is replaced at once. Prints `ready` when all are open, goes on until there is a line on its input, then prints what
it did as JSON and ends. The process takes only time that nobody else on its core wants.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench.load.attacks import Attack, attacks

READ_BYTES = 1 << 16
ANY = selectors.EVENT_READ | selectors.EVENT_WRITE


@dataclass
class Line:
    """One connection, and how much of the content it has sent."""

    connection: socket.socket
    sent_bytes: int = 0


class Attacker:
    def __init__(self, host: str, port: int, attack: Attack) -> None:
        self.address = (host, port)
        self.attack = attack
        self.content = memoryview(attack.content())
        self.selector = selectors.DefaultSelector()
        self.counts: Counter[str] = Counter()
        self.stopped = False

    def open(self) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect_ex(self.address)
        self.counts["connections"] += 1
        self.selector.register(connection, ANY, Line(connection))

    def replace(self, line: Line) -> None:
        self.selector.unregister(line.connection)
        line.connection.close()
        self.open()

    def turn(self) -> None:
        for key, events in self.selector.select():
            line: Line | None = key.data
            if line is None:
                self.stopped = True
                continue
            try:
                ended = bool(events & selectors.EVENT_READ) and not line.connection.recv(READ_BYTES)
                if not ended and events & selectors.EVENT_WRITE:
                    self.send(line)
            except BlockingIOError:
                continue
            except OSError:
                # A reset: the server does not read what comes after the cut.
                ended = True
            if ended:
                self.counts["ended"] += 1
                self.replace(line)

    def send(self, line: Line) -> None:
        part = self.content[line.sent_bytes : line.sent_bytes + self.attack.piece_bytes]
        sent = line.connection.send(part)
        line.sent_bytes += sent
        self.counts["bytes"] += sent
        if line.sent_bytes == len(self.content):
            self.counts["whole"] += 1
            if self.attack.holds:
                self.selector.unregister(line.connection)
                # Open for as long as the process is.
                line.connection.detach()
                return
            line.connection.shutdown(socket.SHUT_WR)
            self.selector.modify(line.connection, selectors.EVENT_READ, line)


def main() -> None:
    host, port, name, body = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    attacker = Attacker(host, port, attacks(body.read_bytes())[name])
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    for _ in range(attacker.attack.connections):
        attacker.open()
    attacker.selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    started_s, used_s = time.monotonic(), time.process_time()
    while not attacker.stopped:
        attacker.turn()
    seconds, cpu_s = time.monotonic() - started_s, time.process_time() - used_s
    print(json.dumps({**attacker.counts, "seconds": seconds, "cpu_share": cpu_s / seconds}))


if __name__ == "__main__":
    main()
