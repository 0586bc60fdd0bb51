"""`grpc.testing.TestService`, and the load reports that its clients ask for.

Sources: gRPC `doc/interop-test-descriptions.md`; gRFC A51.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from infer.services.call import Call, Service, StreamCall, Streaming
from tests.conformance.services.messages import message

INITIAL_KEY = "x-grpc-test-echo-initial"
TRAILING_KEY = "x-grpc-test-echo-trailing-bin"
LOAD_KEY = "endpoint-load-metrics-bin"


def echo_metadata(call: Call | StreamCall) -> None:
    for key, value in call.metadata:
        if key == INITIAL_KEY:
            call.send_initial_metadata([(key, value)])
        elif key == TRAILING_KEY:
            call.set_trailing_metadata([(key, value)])


def abort_as_asked(call: Call | StreamCall, request: Any) -> None:
    if request.response_status.code:
        call.abort(request.response_status.code, request.response_status.message)


def load_report(asked: Any) -> Any:
    return message("xds.data.orca.v3.OrcaLoadReport")(
        cpu_utilization=asked.cpu_utilization, mem_utilization=asked.memory_utilization,
        request_cost=dict(asked.request_cost), utilization=dict(asked.utilization))


async def empty_call(call: Call) -> bytes:
    message("grpc.testing.Empty").FromString(call.message)
    return b""


async def unary_call(call: Call) -> bytes:
    request = message("grpc.testing.SimpleRequest").FromString(call.message)
    echo_metadata(call)
    abort_as_asked(call, request)
    if request.HasField("orca_per_query_report"):
        report = load_report(request.orca_per_query_report).SerializeToString()
        call.set_trailing_metadata([(LOAD_KEY, report)])
    reply = message("grpc.testing.SimpleResponse")(payload={"body": bytes(request.response_size)})
    if request.fill_server_id:
        reply.server_id = str(os.getpid())
    content: bytes = reply.SerializeToString()
    return content


async def write_replies(call: StreamCall, request: Any) -> None:
    reply = message("grpc.testing.StreamingOutputCallResponse")
    for wanted in request.response_parameters:
        if wanted.interval_us:
            await asyncio.sleep(wanted.interval_us / 1e6)
        await call.write(reply(payload={"body": bytes(wanted.size)}).SerializeToString())


async def streaming_output_call(call: StreamCall) -> None:
    kind = message("grpc.testing.StreamingOutputCallRequest")
    await write_replies(call, kind.FromString(await call.read() or b""))


async def streaming_input_call(call: StreamCall) -> None:
    kind = message("grpc.testing.StreamingInputCallRequest")
    total = 0
    while (content := await call.read()) is not None:
        total += len(kind.FromString(content).payload.body)
    reply = message("grpc.testing.StreamingInputCallResponse")(aggregated_payload_size=total)
    await call.write(reply.SerializeToString())


async def half_duplex_call(call: StreamCall) -> None:
    kind = message("grpc.testing.StreamingOutputCallRequest")
    requests = []
    while (content := await call.read()) is not None:
        requests.append(kind.FromString(content))
    for request in requests:
        await write_replies(call, request)


class LoadReports:
    """The reports out of band. A call that sets them has them to itself until it ends."""

    def __init__(self) -> None:
        self._latest = load_report(message("grpc.testing.TestOrcaReport")())
        self._held = asyncio.Lock()

    async def full_duplex_call(self, call: StreamCall) -> None:
        kind = message("grpc.testing.StreamingOutputCallRequest")
        echo_metadata(call)
        holds = False
        try:
            while (content := await call.read()) is not None:
                request = kind.FromString(content)
                abort_as_asked(call, request)
                if request.HasField("orca_oob_report"):
                    holds = holds or await self._held.acquire()
                    self._latest = load_report(request.orca_oob_report)
                await write_replies(call, request)
        finally:
            if holds:
                self._held.release()

    async def stream_core_metrics(self, call: StreamCall) -> None:
        request = message("xds.service.orca.v3.OrcaLoadReportRequest").FromString(await call.read() or b"")
        every = request.report_interval.ToTimedelta().total_seconds() or 1.0
        while True:
            await call.write(self._latest.SerializeToString())
            await asyncio.sleep(every)


def interop_service() -> Service:
    """Its handlers by path. Loop thread only."""
    reports = LoadReports()
    base = "/grpc.testing.TestService/"
    return {
        base + "EmptyCall": empty_call,
        base + "UnaryCall": unary_call,
        base + "StreamingOutputCall": Streaming(streaming_output_call, client_streams=False),
        base + "StreamingInputCall": Streaming(streaming_input_call),
        base + "FullDuplexCall": Streaming(reports.full_duplex_call),
        base + "HalfDuplexCall": Streaming(half_duplex_call),
        "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics": Streaming(
            reports.stream_core_metrics, client_streams=False),
    }
