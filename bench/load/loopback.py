"""What a loopback TCP connection moves: the ceiling for calls with large messages.

`python -m bench.load.loopback CORE IN_BYTES OUT_BYTES` is the peer: for each connection it receives IN_BYTES, then
sends OUT_BYTES, and again. Plain sockets, the same memory each time, nothing looked at.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PIECE_BYTES = 256 * 1024


def receive(connection: socket.socket, room: memoryview) -> bool:
    """Fills `room`; False at the end of the connection."""
    at = 0
    while at < len(room):
        size = connection.recv_into(room[at : at + PIECE_BYTES])
        if size == 0:
            return False
        at += size
    return True


def send(connection: socket.socket, data: memoryview) -> None:
    for at in range(0, len(data), PIECE_BYTES):
        connection.sendall(data[at : at + PIECE_BYTES])


def answer(connection: socket.socket, in_bytes: int, out_bytes: int) -> None:
    room, reply = memoryview(bytearray(in_bytes)), memoryview(bytes(out_bytes))
    with connection:
        while receive(connection, room):
            send(connection, reply)


def ask(connection: socket.socket, in_bytes: int, out_bytes: int, until_s: float, counts: list[int]) -> None:
    request, room = memoryview(bytes(in_bytes)), memoryview(bytearray(out_bytes))
    done = 0
    while time.monotonic() < until_s:
        send(connection, request)
        if not receive(connection, room):
            raise ConnectionError("the loopback's peer ended")
        done += 1
    counts.append(done)


def copies_per_s(core: int, connections: int, in_bytes: int, out_bytes: int, seconds: float) -> float:
    """Round trips per second over so many connections at once, the peer on `core`, this side where it runs."""
    command = [sys.executable, "-m", "bench.load.loopback", str(core), str(in_bytes), str(out_bytes)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) as peer:
        assert peer.stdout
        try:
            address = ("127.0.0.1", int(peer.stdout.readline()))
            opened = [socket.create_connection(address) for _ in range(connections)]
            counts: list[int] = []
            start_s = time.monotonic()
            arguments = (in_bytes, out_bytes, start_s + seconds, counts)
            threads = [threading.Thread(target=ask, args=(each, *arguments)) for each in opened]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took_s = time.monotonic() - start_s
            for each in opened:
                each.close()
        finally:
            peer.kill()
    if len(counts) != connections:
        raise RuntimeError(f"{connections - len(counts)} of {connections} loopback connections failed")
    return sum(counts) / took_s


def main() -> None:
    core, in_bytes, out_bytes = (int(text) for text in sys.argv[1:])
    os.sched_setaffinity(0, {core})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=answer, args=(connection, in_bytes, out_bytes), daemon=True).start()


if __name__ == "__main__":
    main()
