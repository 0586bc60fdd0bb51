"""Queue policies and levels of priority of a config.pbtxt, as clients of a server meet them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from infer.proto import message
from tests.support import models
from tests.support.calls import SERVICE
from tests.support.repositories import Repository, repository_server
from tests.support.requests import add_raw, infer_request, pack
from tests.support.server import scrape

# Steps of the model `slow`: what holds it for longer than every wait of a test, and what gives others time to pass.
HOLD, BRIEF = 100_000, 200
CONFIG = """
platform: "onnxruntime_onnx"
max_batch_size: 1
instance_group { count: 1 kind: KIND_CPU }
dynamic_batching {
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy { max_queue_size: %d }
  priority_queue_policy { key: 1 value { default_timeout_microseconds: 60000000 allow_timeout_override: true } }
  priority_queue_policy { key: 3 value { default_timeout_microseconds: 1000 timeout_action: DELAY } }
}
"""


def request(steps: int, **parameters: int) -> bytes:
    asked = infer_request("slow")
    for name, value in parameters.items():
        asked.parameters[name].int64_param = value
    add_raw(asked, "x", "INT64", [1, 1], pack("INT64", [steps]))
    return bytes(asked.SerializeToString())


class Line:
    """Calls of the model, and the order in which they ended."""

    def __init__(self, repository: Repository, channel: grpc.Channel) -> None:
        self.served = repository.served
        self._infer = channel.unary_unary(f"{SERVICE}ModelInfer")
        self.ended: list[str] = []
        self.calls: dict[str, Any] = {}

    def call(self, name: str, content: bytes) -> Any:
        self.calls[name] = self._infer.future(content, timeout=120)
        # One thread of the channel's hands out what ends, in its order.
        self.calls[name].add_done_callback(lambda _: self.ended.append(name))
        return self.calls[name]

    def queued(self, name: str, content: bytes) -> None:
        """Once it waits."""
        before = self.served.snapshot()["queued"]
        self.call(name, content)
        self.served.until(lambda: self.served.server.pipeline.queued_requests == before + 1)

    def refusal(self, name: str, content: bytes) -> tuple[str, str, dict[str, str]]:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(name, content).result()
        error: Any = caught.value
        return error.code().name, error.details(), dict(error.trailing_metadata())


def write_config(root: Path, max_queue_size: int) -> None:
    staged = root / "slow" / ".config"
    staged.write_text(CONFIG % max_queue_size)
    staged.rename(root / "slow" / "config.pbtxt")


@pytest.fixture
def line(tmp_path: Path, transport: str) -> Iterator[tuple[Repository, Line]]:
    models.write_version(tmp_path, "slow", 1, models.slow(HOLD))
    write_config(tmp_path, 2)
    with repository_server(tmp_path, transport=transport) as repository:
        with grpc.insecure_channel(repository.served.address) as channel:
            line = Line(repository, channel)
            # The model is held from here on, with nothing that waits.
            line.call("hold", request(HOLD))
            line.served.until(lambda: (line.served.server.pipeline.in_flight,
                                       line.served.server.pipeline.queued_requests) == (1, 0))
            yield repository, line


def refused(repository: Repository, limit: str) -> float:
    labels = frozenset({("model", "slow"), ("version", "1"), ("limit", limit)})
    return scrape(repository.served.http_address)["infer_queue_refused_total", labels]


def test_levels_bounds_and_times_of_a_config(line: tuple[Repository, Line]) -> None:
    repository, queue = line
    queue.queued("late", request(BRIEF, priority=3))
    queue.queued("second", request(BRIEF))
    queue.queued("third", request(BRIEF, priority=9))
    status, text, trailers = queue.refusal("more", request(BRIEF, priority=2))
    assert (status, text) == (
        "RESOURCE_EXHAUSTED", "the queue of model 'slow' is full: it holds 2 of at most 2 requests of priority 2 "
        "(max_queue_size); retry later or send to another replica")
    assert 1 <= int(trailers["grpc-retry-pushback-ms"]) <= 10_000
    queue.queued("first", request(BRIEF, priority=1))
    status, text, _ = queue.refusal("impatient", request(BRIEF, priority=1, timeout=2_000))
    assert status == "DEADLINE_EXCEEDED"
    assert text.startswith("the request waited longer than 2000 us in the queue of model 'slow'; it was not run")
    assert (refused(repository, "max_queue_size"), refused(repository, "queue_timeout")) == (1, 1)
    queue.served.until_here(lambda: queue.served.stats("slow")["queue_delayed"] == 1)
    assert not queue.calls["hold"].done()
    for name in ("hold", "first", "second", "third", "late"):
        queue.calls[name].result()
    queue.served.until_here(lambda: len(queue.ended) == 7)
    assert queue.ended == ["more", "impatient", "hold", "first", "second", "third", "late"]
    (statistics,) = repository.client.statistics("slow")
    counted = statistics.inference_stats
    assert (statistics.inference_count, counted.success.count, counted.fail.count, counted.queue.count) == (5, 5, 2, 5)


def test_other_bounds_count_without_a_load(line: tuple[Repository, Line]) -> None:
    repository, queue = line
    [entry] = queue.served.server.versions()
    queue.queued("first", request(BRIEF))
    write_config(repository.root, 1)
    queue.served.until(lambda: entry.settings.queue.max_size == 1)
    assert "it holds 1 of at most 1 requests of priority 2" in queue.refusal("more", request(BRIEF))[1]
    write_config(repository.root, 0)
    queue.served.until(lambda: entry.settings.queue.max_size == 0)
    queue.queued("second", request(BRIEF))
    assert list(queue.served.server.versions()) == [entry]
    config = repository.caller.config("slow").dynamic_batching
    assert (config.priority_levels, config.default_queue_policy.max_queue_size) == (3, 0)
    for name in ("hold", "first", "second"):
        queue.calls[name].result()
    # Another number of levels is another load.
    (repository.root / "slow" / "config.pbtxt").write_text((CONFIG % 0).replace("levels: 3", "levels: 4"))
    repository.until(lambda: [each.levels for each in queue.served.server.versions()] == [4])


def test_nothing_of_it_is_said_to_be_left_out(
        tmp_path: Path, transport: str, caplog: pytest.LogCaptureFixture) -> None:
    models.write_version(tmp_path, "slow", 1, models.slow(1))
    write_config(tmp_path, 2)
    with repository_server(tmp_path, transport=transport) as repository:
        reply = repository.client.call(f"{SERVICE}ModelInfer", request(1))
        assert message("inference.ModelInferResponse").FromString(reply).model_name == "slow"
    assert "not honoured" not in caplog.text


@pytest.mark.parametrize(("bound", "limit", "text"), [
    ({"max_queue_rows": 1}, "max_queue_rows", "of at most 1 rows (--max-queue-rows)"),
    ({"max_queue_bytes": 30}, "max_queue_bytes", "of at most 30 bytes (--max-queue-bytes)"),
    ({"max_queue_rows_total": 1}, "max_queue_rows_total", "of at most 1 rows (--max-queue-rows-total)"),
    ({"max_queue_bytes_total": 30}, "max_queue_bytes_total", "of at most 30 bytes (--max-queue-bytes-total)"),
    ({"max_queue_rows": 1, "triton_status_codes": True}, "max_queue_rows", ""),
])
def test_bounds_of_the_server(tmp_path: Path, transport: str, bound: dict[str, Any], limit: str, text: str) -> None:
    models.write_version(tmp_path, "slow", 1, models.slow(HOLD))
    with repository_server(tmp_path, transport=transport, executors=1, **bound) as repository:
        with grpc.insecure_channel(repository.served.address) as channel:
            line = Line(repository, channel)
            line.call("hold", request(HOLD))
            line.served.until(lambda: (line.served.server.pipeline.in_flight,
                                       line.served.server.pipeline.queued_requests) == (1, 0))
            line.queued("first", request(BRIEF))
            held = scrape(repository.served.http_address)
            of_slow = frozenset({("model", "slow"), ("version", "1")})
            assert held["infer_queue_rows", of_slow] == 1
            assert 30 < held["infer_queue_bytes", of_slow] < 256
            status, said, trailers = line.refusal("more", request(BRIEF))
            if text:
                assert status == "RESOURCE_EXHAUSTED"
                assert text in said
            else:
                assert (status, said) == ("UNAVAILABLE", "Exceeds maximum queue size")
            assert 1 <= int(trailers["grpc-retry-pushback-ms"]) <= 10_000
            assert refused(repository, limit) == 1
            for name in ("hold", "first"):
                line.calls[name].result()
