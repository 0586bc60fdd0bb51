"""The synchronous client. Its methods may be called from several threads at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc

from infer.client import calls
from infer.client.messages import Result, decode_reply, encode_request
from infer.client.retry import DEFAULT_RETRY, Attempts, RetryPolicy
from infer.proto import message


class InferClient:
    """One channel to `address`, host:port or unix:path. Close it, or use it in a `with`.

    `timeout` is in seconds and that of calls that give none; it bounds a call with all its attempts and waits. None: no
    bound. Every method raises InferError.
    """

    def __init__(self, address: str, *, timeout: float | None = calls.DEFAULT_TIMEOUT,
                 credentials: grpc.ChannelCredentials | None = None, retry: RetryPolicy = DEFAULT_RETRY) -> None:
        if credentials is None:
            self._channel = grpc.insecure_channel(address, calls.CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, credentials, calls.CHANNEL_OPTIONS)
        self._timeout = timeout
        self._retry = retry
        self._sleep: Callable[[float], object] = time.sleep

    def __enter__(self) -> InferClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def infer(self, model: str, inputs: Mapping[str, Any], *, version: str = "", outputs: Sequence[str] | None = None,
              timeout: float | None = None, request_id: str = "",
              parameters: Mapping[str, bool | int | float | str] | None = None,
              metadata: calls.Metadata | None = None) -> Result:
        """Runs a model: arrays by input in, arrays by output out.

        An input may be a Tensor where its array does not say the type. Without `version` the server chooses one;
        without `outputs` it answers with all.
        """
        request = encode_request(model, inputs, version=version, outputs=outputs, request_id=request_id,
                                 parameters=parameters)
        return decode_reply(self.call(calls.INFER_PATH, request, timeout=timeout, metadata=metadata))

    def metadata(self, model: str, version: str = "", *, timeout: float | None = None) -> Any:
        """A model's inference.ModelMetadataResponse: name, versions, inputs and outputs with name, datatype, shape."""
        return self._ask(calls.model_metadata(model, version), timeout)

    def ready(self, model: str = "", version: str = "", *, timeout: float | None = None) -> bool:
        """Whether the server, or one of its models, is ready."""
        query = calls.model_ready(model, version) if model else calls.server_ready()
        return bool(self._ask(query, timeout).ready)

    def healthy(self, service: str = "", *, timeout: float | None = None) -> bool:
        """Whether grpc.health.v1 calls a service SERVING."""
        return bool(self._ask(calls.health_check(service), timeout).status == calls.SERVING)

    def statistics(self, model: str = "", version: str = "", *, timeout: float | None = None) -> Sequence[Any]:
        """inference.ModelStatistics of each version that is asked for; of all without a model."""
        return tuple(self._ask(calls.model_statistics(model, version), timeout).model_stats)

    def models(self, *, timeout: float | None = None) -> Sequence[Any]:
        """Every version that the server knows: inference.RepositoryIndexResponse.ModelIndex with name, version, state
        and reason."""
        return tuple(self._ask(calls.repository_index(), timeout).models)

    def load(self, model: str, *, config: str | None = None, files: Mapping[tuple[int, str], bytes] | None = None,
             timeout: float | None = None) -> None:
        """Loads a model, or loads it again; returns once it is served. The server has to be in explicit mode.

        `config` is a ModelConfig as JSON, used instead of the repository's; `files` by version and name, beside it,
        take the place of the model's directory.
        """
        self._ask(calls.model_load(model, config, files or {}), timeout)

    def unload(self, model: str, *, timeout: float | None = None) -> None:
        """Unloads every version of a model."""
        self._ask(calls.model_unload(model), timeout)

    def move_label(self, model: str, label: str, version: int, *, timeout: float | None = None) -> None:
        """Moves a label to a version, at once or when that is ready; 0: as the model's settings say."""
        self._ask(calls.label_move(model, label, version), timeout)

    def record_outcome(self, model: str, metric: str, value: float, *, request_id: str = "", routing_key: str = "",
                       timeout: float | None = None) -> calls.Recorded:
        """Tells what became of a reply, by the id of its request or by the routing key, to whoever experiments with the
        model. Sent again after a failure, it counts once."""
        return self.record_outcomes([calls.Outcome(model, metric, value, request_id, routing_key)], timeout=timeout)

    def record_outcomes(self, outcomes: Iterable[calls.Outcome], *, timeout: float | None = None) -> calls.Recorded:
        """1 to 1,000 at once, of any models; where one of them cannot be an outcome none counts."""
        return calls.recorded(self._ask(calls.outcome_record(outcomes), timeout))

    def _ask(self, query: calls.Query, timeout: float | None) -> Any:
        return message(query.reply).FromString(self.call(query.path, query.request, timeout=timeout))

    def call(self, path: str, request: bytes, *, timeout: float | None = None,
             metadata: calls.Metadata | None = None) -> bytes:
        """An encoded reply to an encoded request: any unary call, with this client's deadline and retries."""
        attempts = Attempts(self._retry, self._timeout if timeout is None else timeout)
        stub = self._channel.unary_unary(path)
        sent = calls.pairs(metadata)
        while True:
            try:
                reply: bytes = stub(request, timeout=attempts.time_left(), metadata=sent)
                return reply
            except grpc.RpcError as raised:
                error, pushback = calls.failure(raised)
            wait = attempts.wait_after(error.code, pushback)
            if wait is None:
                raise error
            self._sleep(wait)
