"""Locust users that call the models of a server over gRPC. Requests are named by model in Locust's tables.

    pip install infer-server locust
    locust -f bench/load/locustfile.py --host localhost:8001 --headless -u 50 -r 50 -t 30s
    MODELS=digits,trees locust -f bench/load/locustfile.py --host localhost:8001        # then open its page

`MODELS` names the models [all that are ready]. Each call has one row of random data, made from the model's metadata;
the bundled examples get a row of their held-out data. A call that fails is in Locust's table of failures with its gRPC
status. Calls are not retried, so that what is counted is what the server said. A process of Locust fills one core:
`--processes -1` starts one for each, and for a server's limit there are `infer bench` and ghz.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any, NamedTuple

import grpc.experimental.gevent
from locust import User, constant, task  # type: ignore[import-not-found, unused-ignore]

from infer.cli.client import first_rows, random_inputs, sample_of, typed_inputs
from infer.client import InferClient, InferError, RetryPolicy
from infer.client.calls import INFER_PATH, SERVICE
from infer.client.messages import encode_request
from infer.proto import message

# Before the first channel is made: else a call would block all users of the process.
grpc.experimental.gevent.init_gevent()

TIMEOUT_S = 10.0


class CallFailed(Exception):
    """What Locust groups failures by: the gRPC status and its message."""


class Prepared(NamedTuple):
    model: str
    request: bytes


def prepare(client: InferClient) -> list[Prepared]:
    """A request for each model that is asked for."""
    names = [name for name in os.environ.get("MODELS", "").split(",") if name] or served(client)
    requests = []
    for name in names:
        metadata = client.metadata(name)
        sample = sample_of(metadata)
        arrays = first_rows(sample, 1) if sample else random_inputs(metadata)
        requests.append(Prepared(name, encode_request(name, typed_inputs(metadata, arrays))))
    return requests


def served(client: InferClient) -> list[str]:
    asked = message("inference.RepositoryIndexRequest")(ready=True).SerializeToString()
    reply = message("inference.RepositoryIndexResponse").FromString(client.call(SERVICE + "RepositoryIndex", asked))
    return sorted({model.name for model in reply.models})


class InferUser(User):  # type: ignore[misc, unused-ignore]
    """A caller with a channel of its own that sends its next call when the last one is answered."""

    wait_time = constant(0)

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.client = InferClient(self.host, timeout=TIMEOUT_S, retry=RetryPolicy(attempts=1))
        self.requests: list[Prepared] = []

    def on_start(self) -> None:
        self.requests = prepare(self.client)

    def on_stop(self) -> None:
        self.client.close()

    @task  # type: ignore[untyped-decorator, unused-ignore]
    def infer(self) -> None:
        model, request = random.choice(self.requests)
        reply, failure = b"", None
        started = time.perf_counter()
        try:
            reply = self.client.call(INFER_PATH, request)
        except InferError as error:
            failure = CallFailed(f"{error.status}: {error.message}")
        self.environment.events.request.fire(
            request_type="gRPC", name=model, response_time=(time.perf_counter() - started) * 1e3,
            response_length=len(reply), exception=failure, context={})
