"""The sockets that gRPC is served on: bound before anything is loaded, so that a conflict ends the program at once."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import Any

from infer.observe import http as http_pages
from infer.observe.startup import address_text


def bind_all(host: str, port: int, uds: Path | None) -> list[socket.socket]:
    """Bound and not yet listening, TCP first. Raises OSError naming the address that is taken."""
    bound: list[socket.socket] = []
    try:
        with named(f"{host}:{port} (--host, --port)"):
            bound.append(http_pages.bind(host, port))
        if uds is not None:
            with named(f"{uds} (--uds)"):
                bound.append(bind_unix(uds))
    except OSError:
        for each in bound:
            each.close()
        raise
    return bound


@contextlib.contextmanager
def named(what: str) -> Any:
    """Adds what was to be bound to an OSError."""
    try:
        yield
    except OSError as error:
        advice = "; stop what holds it, or choose another" if error.errno == errno.EADDRINUSE else ""
        raise OSError(error.errno, f"cannot bind {what}: {error.strerror}{advice}") from error


def address_of(bound: socket.socket) -> str:
    """Where gRPC is served: host:port or unix:path."""
    name = bound.getsockname()
    return f"unix:{name}" if bound.family == socket.AF_UNIX else address_text(name[0], name[1])


def bind_unix(path: Path) -> socket.socket:
    """A bound Unix socket; one that a dead server left behind is replaced, one that answers is a conflict, and so is
    whatever is not a socket."""
    if path.exists() and not path.is_socket():
        raise OSError(errno.EEXIST, "it is not a socket; choose another path, or remove what is there")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
        except FileNotFoundError:
            pass
        else:
            raise OSError(errno.EADDRINUSE, "another server answers on it")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(os.fspath(path))
    return bound
