"""The steps of a file by grpcio, synchronous or (`--aio` first) by its asyncio API. See scenario.py."""

import asyncio
import base64
import json
import queue
import sys

import grpc
from descriptors import classes
from google.protobuf import json_format

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def pairs(metadata):
    return [[key, base64.b64encode(value).decode() if isinstance(value, bytes) else value] for key, value in metadata]


class Step:
    """One call's messages and arguments."""

    def __init__(self, step, kinds):
        self.step = step
        reply = kinds(step["reply"])
        self.requests = [json_format.ParseDict(each, kinds(step["request"])()) for each in step["requests"]]
        self.codec = (lambda request: request.SerializeToString(), reply.FromString)
        self.arguments = {"timeout": step["timeout"], "metadata": [
            (key, base64.b64decode(value) if key.endswith("-bin") else value) for key, value in step["metadata"]]}
        self.replies = []

    def keep(self, reply):
        """True once the call is to be cancelled."""
        self.replies.append(json_format.MessageToDict(reply, preserving_proto_field_name=True))
        return self.step["cancel_after"] == len(self.replies)

    def result(self, code, message, initial, trailing):
        return {"replies": self.replies, "code": code.value[0], "message": message or "", "initial": pairs(initial),
                "trailing": pairs(trailing)}


def call_of(channel, step):
    shape = {"unary": "unary_unary", "server": "unary_stream", "client": "stream_unary", "bidi": "stream_stream"}
    return getattr(channel, shape[step.step["kind"]])(step.step["path"], *step.codec)


def run_sync(channel, step):
    kind = step.step["kind"]
    if kind == "unary":
        call = call_of(channel, step).future(step.requests[0], **step.arguments)
    elif kind == "client":
        call = call_of(channel, step).future(iter(step.requests), **step.arguments)
    elif kind == "server":
        call = call_of(channel, step)(step.requests[0], **step.arguments)
    else:
        waiting = queue.SimpleQueue()
        call = call_of(channel, step)(iter(waiting.get, None), **step.arguments)
        left = [*step.requests, None]
        for each in left[:1] if step.step["lockstep"] else left:
            waiting.put(each)
        del left[:1]
    try:
        if kind in ("unary", "client"):
            step.keep(call.result())
        else:
            for reply in call:
                if step.keep(reply):
                    call.cancel()
                if step.step["lockstep"]:
                    waiting.put(left.pop(0))
    except grpc.FutureCancelledError:
        pass
    except grpc.RpcError:
        pass
    finally:
        if kind == "bidi":
            waiting.put(None)
    return step.result(call.code(), call.details(), call.initial_metadata(), call.trailing_metadata())


async def run_aio(channel, step):
    kind = step.step["kind"]
    initial, trailing = (), ()
    one = step.requests[:1] if kind in ("unary", "server") else ()
    call = call_of(channel, step)(*one, **step.arguments)
    try:
        if kind in ("client", "bidi"):
            for request in step.requests:
                await call.write(request)
                if step.step["lockstep"]:
                    step.keep(await call.read())
            await call.done_writing()
        if kind in ("unary", "client"):
            step.keep(await call)
        else:
            while (reply := await call.read()) is not grpc.aio.EOF:
                if step.keep(reply):
                    call.cancel()
                    break
        initial = await call.initial_metadata()
    except asyncio.CancelledError:
        if not call.cancelled():
            raise
    except grpc.RpcError as error:
        initial = error.initial_metadata() or ()
    trailing = await call.trailing_metadata() or ()
    return step.result(await call.code(), await call.details(), initial, trailing)


def credentials(files):
    content = []
    for name in files:
        with open(name, "rb") as file:
            content.append(file.read())
    authority, certificate, key = (*content, None, None)[:3]
    return grpc.ssl_channel_credentials(authority, key, certificate)


async def all_aio(address, tls, steps):
    opened = (grpc.aio.secure_channel(address, credentials(tls), OPTIONS) if tls
              else grpc.aio.insecure_channel(address, OPTIONS))
    async with opened as channel:
        return {step.step["name"]: await run_aio(channel, step) for step in steps}


def main(arguments):
    use_aio = arguments[0] == "--aio"
    address, descriptors, steps_file, results_file, *tls = arguments[use_aio:]
    kinds = classes(descriptors)
    with open(steps_file) as file:
        steps = [Step(step, kinds) for step in json.load(file)]
    if use_aio:
        results = asyncio.run(all_aio(address, tls, steps))
    else:
        opened = (grpc.secure_channel(address, credentials(tls), OPTIONS) if tls
                  else grpc.insecure_channel(address, OPTIONS))
        with opened as channel:
            results = {step.step["name"]: run_sync(channel, step) for step in steps}
    with open(results_file, "w") as file:
        json.dump(results, file)


main(sys.argv[1:])
