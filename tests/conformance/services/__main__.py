"""Serves the services of the test clients on the native transport, on a free port of the loopback, until SIGTERM.

    python -m tests.conformance.services [--certificate FILE --key FILE [--client-ca FILE]]
    python -m tests.conformance.services --page
    python -m tests.conformance.services --connect

The first two print `serving ADDRESS`; the second serves a page to any HTTP/2 client, at /h2spec, and nothing else. The
third is told what to do by connectconformance: a ServerCompatRequest on standard input, answered by a
ServerCompatResponse, each after its length as 4 bytes.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import uvloop

from infer._core import _testing_page, arena
from infer._core.executor import ExecutorPool
from infer._core.pipeline import Pipeline
from infer._core.router import RouteTable
from infer._core.tenants import Tenants
from infer.observe.http import bind
from infer.quotas import NONE
from infer.security.tls import Certificates, TlsFiles
from infer.services.call import Service, StreamCall, Streaming
from infer.transport.native import NativeTransport
from tests.conformance.services.connect import PACKAGE, conformance_service
from tests.conformance.services.interop import interop_service
from tests.conformance.services.messages import message

HOST = "127.0.0.1"
DRAIN_SECONDS = 10.0
LENGTH_BYTES = 4


def read_request() -> Any:
    size = int.from_bytes(sys.stdin.buffer.read(LENGTH_BYTES), "big")
    return message(PACKAGE + "ServerCompatRequest").FromString(sys.stdin.buffer.read(size))


def write_response(port: int, certificate: bytes) -> None:
    content = message(PACKAGE + "ServerCompatResponse")(host=HOST, port=port, pem_cert=certificate).SerializeToString()
    sys.stdout.buffer.write(len(content).to_bytes(LENGTH_BYTES, "big") + content)
    sys.stdout.buffer.flush()


def tls_files(arguments: Namespace, request: Any, folder: Path) -> TlsFiles | None:
    """Those of the flags, or those that a request holds, put into `folder`."""
    if arguments.certificate is not None:
        return TlsFiles(arguments.certificate, arguments.key, arguments.client_ca)
    if request is None or not request.use_tls:
        return None
    files = TlsFiles(folder / "server.pem", folder / "key.pem",
                     folder / "client.pem" if request.client_tls_cert else None)
    for path, content in zip(files, (request.server_creds.cert, request.server_creds.key, request.client_tls_cert),
                             strict=True):
        if path is not None:
            path.write_bytes(content)
    return files


async def write_page(call: StreamCall) -> None:
    while await call.read() is not None:
        pass
    await call.write(b"a page")


async def serve(arguments: Namespace, folder: Path) -> int:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    arena.open(1 << 40, 1 << 30)
    # Answers NOT_FOUND to every ModelInfer.
    pipeline = Pipeline(loop, ExecutorPool(1), RouteTable([]), Tenants(1, NONE))
    listening = bind(HOST, 0)
    port = listening.getsockname()[1]
    services: Service = {_testing_page.PATH: Streaming(write_page)} if arguments.page else {
        **interop_service(), **conformance_service()}
    request = read_request() if arguments.connect else None
    limits = {} if request is None else {"max_message_bytes": request.message_receive_limit}
    transport = NativeTransport(loop, pipeline, services, **limits)
    pipeline.after_turn = transport.flush
    files = tls_files(arguments, request, folder)
    if arguments.page:
        pages = await loop.create_server(lambda: _testing_page.connection(transport.endpoint), sock=listening)
    else:
        await transport.listen([listening], None if files is None else Certificates(files))
    if request is not None:
        write_response(port, request.server_creds.cert)
    else:
        print(f"serving {HOST}:{port}", flush=True)
    await ended.wait()
    if arguments.page:
        pages.close()
    drained = await transport.drain(DRAIN_SECONDS)
    await transport.close()
    pipeline.close()
    return 0 if drained else 1


def main() -> int:
    parser = ArgumentParser()
    parser.add_argument("--connect", action="store_true")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--client-ca", type=Path)
    loop = uvloop.new_event_loop()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return loop.run_until_complete(serve(parser.parse_args(), Path(folder)))
    finally:
        loop.close()


sys.exit(main())
