"""The steps of a file by grpclib, which speaks HTTP/2 through h2. See scenario.py."""

import asyncio
import base64
import json
import ssl
import sys

from descriptors import classes
from google.protobuf import json_format
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

CARDINALITY = {"unary": Cardinality.UNARY_UNARY, "server": Cardinality.UNARY_STREAM,
               "client": Cardinality.STREAM_UNARY, "bidi": Cardinality.STREAM_STREAM}


def pairs(metadata):
    return [[key, base64.b64encode(value).decode() if isinstance(value, bytes) else value]
            for key, value in (metadata or {}).items()]


async def run(channel, step, kinds):
    reply_kind = kinds(step["reply"])
    requests = [json_format.ParseDict(each, kinds(step["request"])()) for each in step["requests"]]
    metadata = [(key, base64.b64decode(value) if key.endswith("-bin") else value) for key, value in step["metadata"]]
    result = {"replies": [], "code": 0, "message": ""}

    def keep(reply):
        """True once the call is to be cancelled."""
        result["replies"].append(json_format.MessageToDict(reply, preserving_proto_field_name=True))
        return step["cancel_after"] == len(result["replies"])

    stream = channel.request(step["path"], CARDINALITY[step["kind"]], kinds(step["request"]), reply_kind,
                             timeout=step["timeout"], metadata=metadata)
    try:
        async with stream:
            for number, request in enumerate(requests):
                await stream.send_message(request, end=number + 1 == len(requests) and not step["lockstep"])
                if step["lockstep"]:
                    keep(await stream.recv_message())
            if step["lockstep"] or not requests:
                await (stream.end() if requests else stream.send_request(end=True))
            while (reply := await stream.recv_message()) is not None:
                if keep(reply):
                    await stream.cancel()
                    break
    except GRPCError as error:
        result |= {"code": error.status.value, "message": error.message or ""}
    except TimeoutError:
        result["code"] = Status.DEADLINE_EXCEEDED.value
    except StreamTerminatedError:
        result["code"] = Status.CANCELLED.value
    if step["cancel_after"] is not None and step["cancel_after"] == len(result["replies"]):
        result["code"] = Status.CANCELLED.value
    return result | {"initial": pairs(stream.initial_metadata), "trailing": pairs(stream.trailing_metadata)}


def tls_context(files):
    if not files:
        return None
    authority, *pair = files
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["h2"])
    if pair:
        context.load_cert_chain(*pair)
    return context


async def main(address, descriptors, steps_file, results_file, *tls):
    host, port = address.rsplit(":", 1)
    kinds = classes(descriptors)
    with open(steps_file) as file:
        steps = json.load(file)
    async with Channel(host, int(port), ssl=tls_context(tls)) as channel:
        results = {step["name"]: await run(channel, step, kinds) for step in steps}
    with open(results_file, "w") as file:
        json.dump(results, file)


asyncio.run(main(*sys.argv[1:]))
