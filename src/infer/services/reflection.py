"""Server reflection, v1 and v1alpha: describes what is served to clients that have no .proto files.

Answers come from the descriptor set that protos/ was compiled to; they are the same for the life of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from infer.errors import InferError, InvalidArgument, NotFound
from infer.proto import files, message, pool
from infer.services.call import StreamCall, Streaming, parsed, shown
from infer.services.server_view import ServerView

VERSIONS = ("v1", "v1alpha")
UNAVAILABLE = 14
# Served on another port.
ADMINISTRATION = "infer.v1"


def reflection_service(server: ServerView) -> Mapping[str, Streaming]:
    """ServerReflectionInfo of both versions by path."""
    return {f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": _stream(server, version)
            for version in VERSIONS}


def _stream(server: ServerView, version: str) -> Streaming:
    async def info(call: StreamCall) -> None:
        stopping = asyncio.ensure_future(_until_stopping(server))
        try:
            while (request := await _read_unless(call, stopping)) is not None:
                await call.write(answer(request, version))
        finally:
            stopping.cancel()

    return Streaming(info)


async def _until_stopping(server: ServerView) -> None:
    while not server.stopping:
        await server.changes.wait(server.changes.count)


async def _read_unless(call: StreamCall, stopping: asyncio.Future[None]) -> bytes | None:
    """The next request; ends the call where none has come when the server stops."""
    reading = asyncio.ensure_future(call.read())
    try:
        await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            return reading.result()
        call.abort(UNAVAILABLE, "the server is stopping; ask another replica")
    finally:
        if not reading.done():
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading


def answer(request_bytes: bytes, version: str) -> bytes:
    """The encoded ServerReflectionResponse to an encoded ServerReflectionRequest of `version`."""
    package = f"grpc.reflection.{version}"
    request = parsed(package, request_bytes, message(f"{package}.ServerReflectionRequest"))
    reply = message(f"{package}.ServerReflectionResponse")(valid_host=request.host, original_request=request)
    try:
        _fill(reply, request)
    except InferError as error:
        reply.error_response.error_code = error.code
        reply.error_response.error_message = error.message
    content: bytes = reply.SerializeToString()
    return content


def _fill(reply: Any, request: Any) -> None:
    kind = request.WhichOneof("message_request")
    if kind == "file_by_filename":
        name = request.file_by_filename
        if name not in files():
            raise NotFound(f"no file is called {shown(name)}; there are {', '.join(files())}")
        reply.file_descriptor_response.file_descriptor_proto.extend(_with_imports(name))
    elif kind == "file_containing_symbol":
        name = _file_of(request.file_containing_symbol)
        reply.file_descriptor_response.file_descriptor_proto.extend(_with_imports(name))
    elif kind == "file_containing_extension":
        wanted = request.file_containing_extension
        raise NotFound(f"{shown(wanted.containing_type)} has no extension {wanted.extension_number}")
    elif kind == "all_extension_numbers_of_type":
        # The files are proto3 throughout: a message has no extensions.
        name = request.all_extension_numbers_of_type
        try:
            pool().FindMessageTypeByName(name)
        except KeyError:
            raise NotFound(f"no message is called {shown(name)}") from None
        reply.all_extension_numbers_response.base_type_name = name
    elif kind == "list_services":
        for service in sorted(f"{file.package}.{each.name}" for file in files().values() for each in file.service
                              if file.package != ADMINISTRATION):
            reply.list_services_response.service.add(name=service)
    else:
        raise InvalidArgument("the request asks for nothing; set one field of message_request")


def _file_of(symbol: str) -> str:
    """Name of the file that declares a symbol."""
    # A pool does not count methods among the symbols of a file.
    for find in (pool().FindFileContainingSymbol, lambda name: pool().FindMethodByName(name).containing_service.file):
        with suppress(KeyError):
            name: str = find(symbol).name
            return name
    raise NotFound(f"nothing is called {shown(symbol)}; list the services, and take full names from them")


def _with_imports(name: str) -> list[bytes]:
    """The file, then those that it imports, encoded."""
    wanted = [name]
    for each in wanted:
        wanted += [imported for imported in files()[each].dependency if imported not in wanted]
    return [files()[each].SerializeToString() for each in wanted]
