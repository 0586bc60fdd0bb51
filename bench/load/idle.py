"""A process that holds HTTP/2 connections open and idle: `python -m bench.load.idle HOST PORT COUNT`.

Each has sent its preface, had its SETTINGS exchange in both directions and a PING answered, so the server has nothing
left to do for it. Prints `open COUNT` when all are, waits for a line on its input, prints `still COUNT` with how many
the server has not closed meanwhile, and ends.
"""

import socket
import struct
import sys

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, ACK = 4, 6, 1
FRAME_HEAD_BYTES = 9
CONNECT_S = 30.0


def frame(kind: int, flags: int = 0, payload: bytes = b"", stream_id: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream_id) + payload


def frames(data: bytes) -> list[tuple[int, int]]:
    """(type, flags) of every whole frame."""
    found, at = [], 0
    while at + FRAME_HEAD_BYTES <= len(data):
        at_next = at + FRAME_HEAD_BYTES + int.from_bytes(data[at : at + 3], "big")
        if at_next > len(data):
            break
        found.append((data[at + 3], data[at + 4]))
        at = at_next
    return found


def open_one(host: str, port: int) -> socket.socket:
    """A connection that is settled on both ends."""
    opened = socket.create_connection((host, port), CONNECT_S)
    opened.sendall(PREFACE + frame(SETTINGS) + frame(SETTINGS, ACK) + frame(PING, 0, bytes(8)))
    data = b""
    while not {(SETTINGS, 0), (SETTINGS, ACK), (PING, ACK)} <= set(frames(data)):
        more = opened.recv(4096)
        if not more:
            raise ConnectionError("the server closed a connection before it was settled")
        data += more
    opened.setblocking(False)
    return opened


def is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(4096) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def main() -> None:
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    connections = [open_one(host, port) for _ in range(count)]
    print(f"open {len(connections)}", flush=True)
    sys.stdin.readline()
    print(f"still {sum(map(is_open, connections))}", flush=True)


if __name__ == "__main__":
    main()
