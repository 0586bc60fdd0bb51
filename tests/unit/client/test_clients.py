"""Both clients against a grpcio server that answers as it is told: same calls, same errors, same retries."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import numpy as np
import pytest

import infer
from infer import errors
from infer.client import AsyncInferClient, InferClient, InferError, Outcome, Recorded, Result, RetryPolicy
from infer.client.retry import DEFAULT_RETRY
from infer.proto import message
from infer.services.health import health_service
from infer.services.inference import inference_service
from tests.support.cold_server import FakeRoutes, FakeServer, FakeVersion, serving
from tests.support.command import REPOSITORY

CODES = {code.value[0]: code for code in grpc.StatusCode}
X = np.arange(4, dtype=np.float32).reshape(1, 4)
SYNC, AIO = "sync", "aio"


@dataclass
class Script:
    """What a server answers, a call after the other: (code, text, pushback), 0 with the request's inputs; the last one
    for ever. And what it was sent."""

    answers: list[tuple[int, str, str | None]]
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    time_left: list[float | None] = field(default_factory=list)

    def answer(self, content: bytes, context: grpc.ServicerContext) -> bytes:
        request = message("inference.ModelInferRequest").FromString(content)
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.time_left.append(context.time_remaining())
        code, text, pushback = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if pushback is not None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
        if code:
            context.abort(CODES[code], text)
        reply = message("inference.ModelInferResponse")(
            model_name=request.model_name, model_version="1", id=request.id,
            raw_output_contents=request.raw_input_contents)
        for tensor in request.inputs:
            reply.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        encoded: bytes = reply.SerializeToString()
        return encoded


OK = (0, "", None)


class Scripted(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, script: Script) -> None:
        self.script = script

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self.script.answer)


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def script() -> Script:
    return Script([OK])


@pytest.fixture
def address(script: Script, threads: ThreadPoolExecutor) -> Iterator[str]:
    server = grpc.server(threads, handlers=[Scripted(script)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def infer_with(kind: str, address: str, waits: list[float], inputs: Mapping[str, Any] = MappingProxyType({"x": X}), *,
               retry: RetryPolicy = DEFAULT_RETRY, credentials: Any = None, **options: Any) -> Result:
    """One infer call by either client; its waits are noted and not waited."""
    if kind == SYNC:
        with InferClient(address, retry=retry, credentials=credentials) as client:
            client._sleep = waits.append
            return client.infer("m", inputs, **options)

    async def work() -> Result:
        async with AsyncInferClient(address, retry=retry, credentials=credentials) as client:
            async def note(seconds: float) -> None:
                waits.append(seconds)

            client._sleep = note
            return await client.infer("m", inputs, **options)

    return asyncio.run(work())


both = pytest.mark.parametrize("kind", [SYNC, AIO])


@both
def test_infer(kind: str, address: str, script: Script) -> None:
    result = infer_with(kind, address, [], version="3", outputs=["x"], request_id="9", parameters={"p": 1},
                        metadata={"tenant": "a", "token-bin": b"\0\xff"}, timeout=20)
    np.testing.assert_array_equal(result["x"], X)
    assert (result.model_name, result.request_id) == ("m", "9")
    (sent,) = script.requests
    assert (sent.model_version, sent.outputs[0].name, sent.parameters["p"].int64_param) == ("3", "x", 1)
    assert (script.metadata[0]["tenant"], script.metadata[0]["token-bin"]) == ("a", b"\0\xff")
    assert script.time_left[0] is not None
    # grpcio rounds what it sends up.
    assert 0 < script.time_left[0] <= 21


@both
@pytest.mark.parametrize(("code", "error"), [
    (1, errors.Cancelled), (2, InferError), (3, errors.InvalidArgument), (4, errors.DeadlineExceeded),
    (5, errors.NotFound), (7, errors.PermissionDenied), (8, errors.ResourceExhausted), (9, errors.FailedPrecondition),
    (12, errors.Unimplemented), (13, errors.Internal), (15, InferError), (16, errors.Unauthenticated)])
def test_a_status_is_an_error_of_its_class(kind: str, address: str, script: Script, code: int,
                                           error: type[InferError]) -> None:
    script.answers = [(code, "why \u00e9", None)]
    with pytest.raises(InferError) as raised:
        infer_with(kind, address, [])
    assert type(raised.value) is error
    assert (raised.value.code, raised.value.message) == (code, "why \u00e9")
    assert raised.value.status == CODES[code].name
    assert len(script.requests) == 1


@both
def test_unavailable_is_tried_again(kind: str, address: str, script: Script) -> None:
    script.answers = [(14, "no", None), (14, "no", "30"), (8, "full", "70"), OK]
    waits: list[float] = []
    np.testing.assert_array_equal(infer_with(kind, address, waits)["x"], X)
    assert 0.08 <= waits[0] <= 0.12
    assert waits[1:] == [0.03, 0.07]
    assert len(script.requests) == 4


@both
@pytest.mark.parametrize(("answer", "tried"), [
    ((8, "full", None), 1), ((8, "full", "-1"), 1), ((14, "no", "-1"), 1), ((14, "no", None), 3),
    ((14, "no", "90000"), 1)])
def test_what_is_not_tried_again(kind: str, address: str, script: Script, answer: tuple[int, str, str | None],
                                 tried: int) -> None:
    script.answers = [answer]
    with pytest.raises(type(errors.error_of(answer[0], "")), match=answer[1]):
        infer_with(kind, address, [], retry=RetryPolicy(attempts=3), timeout=30)
    assert len(script.requests) == tried


@both
def test_nobody_there(kind: str) -> None:
    waits: list[float] = []
    with pytest.raises(errors.Unavailable, match="failed to connect"):
        infer_with(kind, "127.0.0.1:1", waits, retry=RetryPolicy(attempts=2))
    assert len(waits) == 1


@both
def test_a_server_that_does_not_answer_in_time(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        with pytest.raises(errors.DeadlineExceeded):
            infer_with(kind, f"127.0.0.1:{mute.getsockname()[1]}", [], timeout=0.2)


@both
def test_inputs_that_cannot_be_sent(kind: str, address: str, script: Script) -> None:
    with pytest.raises(errors.InvalidArgument, match="input 'x': an array of complex128"):
        infer_with(kind, address, [], {"x": np.zeros(1, "c16")})
    assert script.requests == []


@both
def test_credentials(kind: str, script: Script, threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    server = grpc.server(threads, handlers=[Scripted(script)])
    server.add_secure_port(f"unix:{tmp_path}/s", grpc.local_server_credentials(grpc.LocalConnectionType.UDS))
    server.start()
    credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
    assert list(infer_with(kind, f"unix:{tmp_path}/s", [], credentials=credentials)) == ["x"]
    server.stop(None).wait()


SERVED = FakeServer(FakeRoutes({"m": [FakeVersion(b"m", "2"), FakeVersion(b"m", "3")]}), ready=False)


@pytest.fixture(scope="module")
def cold() -> Iterator[str]:
    with serving({**inference_service(SERVED), **health_service(SERVED)}) as where:
        yield where


def test_what_else_a_client_asks(cold: str) -> None:
    with InferClient(cold) as client:
        assert not client.ready()
        assert (client.ready("m"), client.ready("m", "9"), client.ready("n")) == (True, False, False)
        assert (client.healthy(), client.healthy("liveness")) == (False, True)
        metadata = client.metadata("m", "3")
        assert (metadata.name, list(metadata.versions), metadata.inputs[0].datatype) == ("m", ["3"], "FP32")
        assert [stats.version for stats in client.statistics("m")] == ["2", "3"]
        assert len(client.statistics()) == 2
        with pytest.raises(errors.NotFound):
            client.metadata("n")


async def test_what_else_an_asyncio_client_asks(cold: str) -> None:
    async with AsyncInferClient(cold) as client:
        assert (await client.ready(), await client.ready("m"), await client.ready("m", "9")) == (False, True, False)
        assert (await client.healthy(), await client.healthy("liveness")) == (False, True)
        assert list((await client.metadata("m", "3")).versions) == ["3"]
        assert [stats.version for stats in await client.statistics("m", "2")] == ["2"]
        with pytest.raises(errors.NotFound):
            await client.metadata("n")


def test_outcomes(cold: str) -> None:
    SERVED.outcomes.results = {"accepted": 2, "duplicate": 1, "unknown": 4, "late": 3}
    SERVED.outcomes.outcomes.clear()
    with InferClient(cold) as client:
        assert client.record_outcome("m", "clicked", 1, request_id="a") == Recorded(2, 1, 4, 3)
        assert client.record_outcomes([Outcome("m", "spend", 2.5, routing_key="bob"), Outcome("m", "clicked", 0, "b")]
                                      ) == Recorded(accepted=2, duplicates=1, unknown=4, late=3)
        with pytest.raises(errors.NotFound):
            client.record_outcome("n", "clicked", 1, request_id="a")

    async def work() -> Recorded:
        async with AsyncInferClient(cold) as client:
            await client.record_outcomes([Outcome("m", "clicked", 1, "d")])
            return await client.record_outcome("m", "clicked", 0, routing_key="carol")

    assert asyncio.run(work()) == Recorded(2, 1, 4, 3)
    assert [tuple(each) for each in SERVED.outcomes.outcomes] == [
        ("m", "clicked", 1.0, "a", ""), ("m", "spend", 2.5, "", "bob"), ("m", "clicked", 0.0, "b", ""),
        ("m", "clicked", 1.0, "d", ""), ("m", "clicked", 0.0, "", "carol")]


TRITON = REPOSITORY / "build" / "venvs" / "tritonclient" / "bin" / "python"
IMPORTS = ["import infer.client", "import tritonclient.grpc"]


@pytest.mark.skipif(not TRITON.exists(), reason="no environment with tritonclient; make conformance makes it")
@pytest.mark.parametrize("order", [IMPORTS, IMPORTS[::-1]])
def test_beside_tritonclient_in_one_process(address: str, order: list[str]) -> None:
    script = "\n".join([*order, f'''
import numpy as np
x = np.ones((1, 4), np.float32)
ours = infer.client.InferClient({address!r}).infer("m", {{"x": x}})["x"]
theirs = tritonclient.grpc.InferInput("x", [1, 4], "FP32")
theirs.set_data_from_numpy(x)
theirs = tritonclient.grpc.InferenceServerClient({address!r}).infer("m", [theirs]).as_numpy("x")
assert (ours == theirs).all() and ours.shape == theirs.shape
'''])
    package = str(Path(infer.__file__).parents[1])
    done = subprocess.run([TRITON, "-c", script], env={"PYTHONPATH": package}, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
