"""A call through a session: what came is fed, the answer is queued, the output is taken."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core._testing_transport import SessionDriver
from infer._core.http2_client import ClientConnection

PATH = "/inference.GRPCInferenceService/ModelInfer"
# Calls to a read, bytes of the request and of the reply.
SHAPES = ((1, 120, 60), (16, 120, 60), (64, 120, 60), (16, 100_000, 60), (16, 120, 100_000))


def rows() -> Iterator[Row]:
    for streams, request_bytes, reply_bytes in SHAPES:
        driver = SessionDriver()
        client = ClientConnection(PATH, "localhost:8001", max_calls=streams)
        for _ in range(3):
            driver.feed(client.take_output())
            client.feed(driver.output())
        reply = b"\0" + reply_bytes.to_bytes(4, "big") + bytes(reply_bytes)
        yield measure("http2_session", f"a call, {streams} to a read, {request_bytes} in, {reply_bytes} out",
                      partial(driver.time_calls, client, bytes(request_bytes), reply, streams),
                      rounds=20_000 if request_bytes + reply_bytes < 10_000 else 1_000)
        driver.close()
