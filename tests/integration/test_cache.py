"""The prediction cache as clients of a server meet it, on both transports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from infer.proto import message
from tests.support import models
from tests.support.calls import SERVICE, slow_request
from tests.support.protos import message_class
from tests.support.repositories import Repository, place_version, repository_server
from tests.support.requests import add_raw, infer_request, pack
from tests.support.server import in_process, scrape

CACHED = 'platform: "onnxruntime_onnx"\nmax_batch_size: 8\nresponse_cache { enable: true }\n'
OWN = frozenset({("model", "m"), ("version", "1")})


def write_cached(root: Path, name: str) -> None:
    (root / name / "config.pbtxt").write_text(CACHED)


def counted(repository: Repository, name: str = "m") -> tuple[int, int, int, int, int, int]:
    """Triton's words: successes, computed, hits, misses, rows, executions."""
    (statistics,) = repository.client.statistics(name)
    of = statistics.inference_stats
    assert of.queue.count == of.success.count
    return (of.success.count, of.compute_infer.count, of.cache_hit.count, of.cache_miss.count,
            statistics.inference_count, statistics.execution_count)


def metrics(repository: Repository) -> dict[str, float]:
    """Of the cache, of model m version 1, other labels left out."""
    return {name: value for (name, labels), value in scrape(repository.served.http_address).items()
            if name.startswith("infer_cache_") and labels >= OWN
            and not labels & {("by", "joined"), ("reason", "expired"), ("reason", "rejected")}}


def test_response_cache_of_a_config(tmp_path: Path, transport: str) -> None:
    for name in ("m", "plain"):
        place_version(tmp_path, name, 1, 3.0)
    write_cached(tmp_path, "m")
    with repository_server(tmp_path, transport=transport) as repository:
        for _ in range(3):
            assert repository.answer("m") == ("1", 3.0)
            assert repository.answer("plain") == ("1", 3.0)
        assert counted(repository) == (3, 1, 2, 1, 1, 1)
        assert counted(repository, "plain") == (3, 3, 0, 0, 3, 3)
        assert [repository.caller.config(name).response_cache.enable for name in ("m", "plain")] == [True, False]
        found = metrics(repository)
        assert found.pop("infer_cache_bytes") > 0
        assert found == {"infer_cache_hits_total": 2, "infer_cache_misses_total": 1, "infer_cache_passed_total": 0,
                         "infer_cache_rows_total": 0, "infer_cache_gone_total": 0, "infer_cache_entries": 1,
                         "infer_cache_waiting": 0, "infer_cache_bypassed": 0}
        assert not any(labels >= {("model", "plain")} and name.startswith("infer_cache_")
                       for name, labels in scrape(repository.served.http_address))


def test_cache_of_every_model_but_those_that_say_otherwise(tmp_path: Path, transport: str) -> None:
    for name in ("m", "not"):
        place_version(tmp_path, name, 1, 3.0)
    toml = tmp_path / "infer.toml"
    toml.write_text('[models.not]\nresponse_cache = false\n[models.m]\ncache_ttl = "1h"\ncache_bytes = "2KiB"\n')
    settings: dict[str, Any] = {"repository_poll_interval": 0.05, "repository_settle_time": 0.05, "cache": 1 << 20,
                                "cache_ttl": 5.0, "transport": transport}
    with in_process(tmp_path, toml=toml, **settings) as served, grpc.insecure_channel(served.address) as channel:
        infer = channel.unary_unary(f"{SERVICE}ModelInfer")
        for name in ("m", "not"):
            for _ in range(2):
                for number in range(10):
                    request = infer_request(name)
                    add_raw(request, "x", "FP32", [1, 4], pack("FP32", [number] * 4))
                    infer(request.SerializeToString())
        assert served.stats("not")["cache"] is None
        stats = served.stats("m")["cache"]
        assert (stats["entries"], stats["evictions"]) == (4, 16)


def test_of_a_request_the_rows_run_that_are_not_known(tmp_path: Path, transport: str) -> None:
    for name in ("m", "whole"):
        place_version(tmp_path, name, 1, 3.0)
    toml = tmp_path / "infer.toml"
    toml.write_text("[models.whole]\ncache_rows = false\n")
    with in_process(tmp_path, toml=toml, cache=1 << 20, cache_rows=True, transport=transport) as served:
        with grpc.insecure_channel(served.address) as channel:
            infer = channel.unary_unary(f"{SERVICE}ModelInfer",
                                        response_deserializer=message_class("ModelInferResponse").FromString)
            for name in ("m", "whole"):
                for numbers in (range(30), range(32), range(31, -1, -1)):
                    request = infer_request(name)
                    values = [float(number) for number in numbers for _ in range(4)]
                    add_raw(request, "x", "FP32", [len(numbers), 4], pack("FP32", values))
                    reply = infer(request.SerializeToString())
                    assert reply.raw_output_contents[0] == pack("FP32", [3.0 * each for each in values])
        assert (served.stats("m")["rows"], served.stats("whole")["rows"]) == (32, 94)
        found = scrape(served.http_address)
        assert [found["infer_cache_rows_total", OWN | {("found", each)}] for each in ("known", "new")] == [62, 32]
        stats = served.stats("m")["cache"]
        assert (stats["hits"], stats["misses"], stats["entries"]) == (1, 2, 32)


def test_a_thousand_identical_calls_at_once_are_one_run(tmp_path: Path, transport: str) -> None:
    models.write_version(tmp_path, "slow", 1, models.slow(20_000))
    with in_process(tmp_path, cache=1 << 20, executors=1, transport=transport) as served:
        with grpc.insecure_channel(served.address) as channel:
            infer = channel.unary_unary(f"{SERVICE}ModelInfer")
            calls = [infer.future(slow_request(5_000), timeout=60) for _ in range(1000)]
            replies = {call.result() for call in calls}
        assert len(replies) == 1
        stats = served.stats("slow")
        assert (stats["rows"], stats["batches"], stats["calls"][0]) == (1, 1, 1000)
        assert (stats["cache"]["hits"], stats["cache"]["misses"]) == (999, 1)
        assert stats["cache"]["joined"] > 0


def test_another_version_answers_for_itself(tmp_path: Path, transport: str) -> None:
    place_version(tmp_path, "m", 1, 3.0)
    write_cached(tmp_path, "m")
    with repository_server(tmp_path, transport=transport) as repository:
        assert [repository.answer("m") for _ in range(2)] == [("1", 3.0)] * 2
        place_version(tmp_path, "m", 2, 5.0)
        repository.until_answer(("2", 5.0))
        repository.until_state(None, "1")
        assert repository.answer("m") == ("2", 5.0)
        # What version 1 answered went with it.
        repository.until(lambda: repository.served.look(
            lambda: [entry.version for entry in repository.served.server.pipeline.cache.cached()]) == ["2"])
        assert repository.served.look(lambda: repository.served.server.pipeline.cache.entries) == 1


def test_a_request_says_what_it_wants_of_the_cache(tmp_path: Path, transport: str) -> None:
    place_version(tmp_path, "m", 1, 3.0)
    with repository_server(tmp_path, transport=transport, cache=1 << 20) as repository:
        for value in ("no-store", "no-cache", "", "other"):
            request = infer_request("m")
            add_raw(request, "x", "FP32", [1, 4], pack("FP32", [1.0] * 4))
            if value:
                request.parameters["infer_cache"].string_param = value
            if value == "other":
                code = "OK"
                try:
                    repository.client.call(f"{SERVICE}ModelInfer", request.SerializeToString())
                except Exception as error:
                    code = error.status  # type: ignore[attr-defined]
                assert code == "INVALID_ARGUMENT"
            else:
                reply = message("inference.ModelInferResponse").FromString(
                    repository.client.call(f"{SERVICE}ModelInfer", request.SerializeToString()))
                assert reply.raw_output_contents[0] == pack("FP32", [3.0] * 4)
        assert counted(repository) == (3, 2, 1, 1, 2, 2)


def test_answers_outlive_the_server(tmp_path: Path, transport: str) -> None:
    place_version(tmp_path / "models", "m", 1, 3.0)
    kept: dict[str, Any] = {"cache": 1 << 20, "cache_file": tmp_path / "answers", "transport": transport}
    with repository_server(tmp_path / "models", **kept) as repository:
        assert repository.answer("m") == ("1", 3.0)
        assert counted(repository)[3] == 1
    with repository_server(tmp_path / "models", **kept) as repository:
        assert repository.answer("m") == ("1", 3.0)
        assert counted(repository) == (1, 0, 1, 0, 0, 0)
    place_version(tmp_path / "models", "m", 1, 5.0)
    with repository_server(tmp_path / "models", **kept) as repository:
        assert repository.answer("m") == ("1", 5.0)
        assert counted(repository) == (1, 1, 0, 1, 1, 1)
