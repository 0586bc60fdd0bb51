"""Envoy, nginx and HAProxy as processes, on the configuration files of deploy/ with other addresses filled in."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FILES = {"envoy": "envoy/envoy.yaml", "nginx": "nginx/nginx.conf", "haproxy": "haproxy/haproxy.cfg"}
STOP_SECONDS = 10.0
# Debian keeps servers where a user's PATH may not look.
SYSTEM_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"


def find(name: str) -> str | None:
    """The balancer's program, None where it is not installed."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def render(name: str, port: int, servers: list[tuple[str, str]], folder: Path) -> str:
    """The configuration for a balancer on `port` of the loopback; `servers` are (gRPC address, HTTP address)."""
    text = (DEPLOY / FILES[name]).read_text()
    changes = {
        "envoy": [("address: 0.0.0.0, port_value: 8001", f"address: 127.0.0.1, port_value: {port}"),
                  ("port_value: 9901", "port_value: 0")],
        "nginx": [("listen 8001 ", f"listen 127.0.0.1:{port} "), ("/tmp/nginx", f"{folder}/nginx")],
        "haproxy": [("bind :8001", f"bind 127.0.0.1:{port}")],
    }[name]
    for number, (grpc, http) in enumerate(servers, 1):
        host, grpc_port = grpc.rsplit(":", 1)
        http_port = http.rsplit(":", 1)[1]
        server = f"infer-{number}"
        changes += {
            "envoy": [(f"address: {server}, port_value: 8001", f"address: {host}, port_value: {grpc_port}")],
            "nginx": [(f"server {server}:8001", f"server {grpc}")],
            # The file has one port for the checks of all servers, here each has its own.
            "haproxy": [(f"{server} {server}:8001", f"{server} {grpc} port {http_port}")],
        }[name]
    for old, new in changes:
        if old not in text:
            raise ValueError(f"{FILES[name]}: {old!r} is not in it")
        text = text.replace(old, new)
    if re.search(r"\b8001\b|infer-\d[: ,]\D*8001", re.sub(r"#.*", "", text)):
        raise ValueError(f"{FILES[name]}: an address is left that was not filled in")
    return text


class Balancer:
    """A balancer that runs during the `with`; what it prints goes to `log`."""

    def __init__(self, name: str, program: str, servers: list[tuple[str, str]], folder: Path) -> None:
        self.name = name
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = folder / f"{name}.log"
        self._program = program
        self._file = folder / Path(FILES[name]).name
        self._file.write_text(render(name, self.port, servers, folder))

    def command(self) -> list[str]:
        file = str(self._file)
        return {
            "envoy": [self._program, "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"],
            "nginx": [self._program, "-c", file, "-e", "stderr", "-g", "daemon off;"],
            "haproxy": [self._program, "-db", "-f", file],
        }[self.name]

    def __enter__(self) -> Balancer:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def output(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-4000:]
