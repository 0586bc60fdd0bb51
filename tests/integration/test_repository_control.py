"""Loads, unloads and labels by RPC over real sockets, and what is served of repositories that people have."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from infer.client import InferError
from tests.support import models
from tests.support.command import Serving
from tests.support.model_repositories import (
    TF_SERVING_VERSIONS,
    TRITON_VERSIONS,
    tf_serving_models,
    triton_repository,
)
from tests.support.repositories import (
    Caller,
    Repository,
    break_version,
    calling,
    config_json,
    place_version,
    repository_server,
)
from tests.support.server import fetch, scrape
from tests.unit.test_triton_repository import ASPIRED, tritons


def refused(repository: Repository, verb: str, *arguments: object, **options: object) -> tuple[str, str]:
    with pytest.raises(InferError) as error:
        getattr(repository.client, verb)(*arguments, **options)
    return error.value.status, error.value.message


def test_a_triton_repository_is_served_unchanged(tmp_path: Path, transport: str) -> None:
    root = triton_repository(tmp_path)
    with repository_server(root, transport=transport) as repository:
        expected = {(name, str(version)) for name in TRITON_VERSIONS
                    for version in ASPIRED.get(name, {1})}
        repository.until(lambda: {each for each, state in repository.caller.index().items() if state == "READY"}
                         == expected)
        assert repository.answer("scale_latest") == ("5", 5.0)
        assert repository.answer("scale_latest", "4") == ("4", 4.0)
        assert repository.answer("scale_all", "2") == ("2", 2.0)
        assert repository.answer("scale_specific") == ("3", 3.0)
        assert repository.status("scale_specific", "2")[0] == "NOT_FOUND"
        reshaped = repository.client.infer("two_in_three_out", {
            "x": np.arange(8, dtype=np.float32).reshape(2, 2, 2), "z": np.ones((2, 2), np.float32)})
        assert reshaped["y"].tolist() == [[0, 1, 2, 3, 1, 1], [4, 5, 6, 7, 1, 1]]
        assert reshaped["w"].tolist() == [6, 22]
        assert [list(each.shape) for each in repository.client.metadata("two_in_three_out").inputs] == [
            [-1, 2, 2], [-1, 2]]
        metadata = repository.client.metadata("scale_all")
        assert list(metadata.versions) == ["1", "2", "3", "4", "5"]
        assert {each.version for each in repository.client.statistics("scale_all")} == set(metadata.versions)
        for name in sorted(TRITON_VERSIONS):
            completed = tritons(name)
            config = repository.caller.config(name)
            # How many run at once where it is not written is this machine's.
            if len(completed.instance_group) == 1 and completed.instance_group[0].name == name:
                completed.instance_group[0].count = config.instance_group[0].count
            assert config == completed, name


def test_a_tensorflow_serving_configuration_is_served_unchanged(tmp_path: Path) -> None:
    config = tf_serving_models(tmp_path)
    with repository_server(tmp_path, paths=(), model_config_file=config) as repository:
        expected = {"my_first_model": {3}, "my_second_model": {1, 2}, "my_third_model": {1, 2}}
        # Of files that were written just now some may be taken a settle time later.
        repository.until(lambda: {name: {int(version) for model, version in repository.caller.index() if model == name}
                                  for name in TF_SERVING_VERSIONS} == expected)
        assert repository.answer("my_first_model") == ("3", 3.0)
        # The default is what `stable` names.
        assert repository.answer("my_second_model") == ("1", 1.0)
        assert repository.answer("my_second_model", "canary") == ("2", 2.0)
        assert repository.client.ready("my_second_model", "canary")
        assert repository.client.metadata("my_second_model", "canary").properties["labels"] == "canary"
        assert repository.caller.config("my_second_model", "stable").name == "my_second_model"
        assert [each.version for each in repository.client.statistics("my_second_model", "canary")] == ["2"]


def test_a_mode_that_was_not_chosen_refuses(tmp_path: Path) -> None:
    place_version(tmp_path, "m", 1)
    for mode in ("none", "watch"):
        with repository_server(tmp_path, model_control_mode=mode) as repository:
            status, text = refused(repository, "load", "m")
            assert status == "FAILED_PRECONDITION"
            assert f"in mode {mode!r}; start it with --model-control-mode explicit" in text
            assert refused(repository, "unload", "m")[0] == "FAILED_PRECONDITION"
            assert repository.answer("m") == ("1", 1.0)


def test_mode_none_looks_once(tmp_path: Path) -> None:
    place_version(tmp_path, "m", 1)
    with repository_server(tmp_path, model_control_mode="none") as repository:
        place_version(tmp_path, "m", 2)
        assert repository.served.server.models.watcher.looks == 1
        assert repository.answer("m") == ("1", 1.0)


def test_explicit_loads_and_unloads(tmp_path: Path, transport: str) -> None:
    for version in (1, 2):
        place_version(tmp_path, "m", version)
    place_version(tmp_path, "n", 1)
    with repository_server(tmp_path, model_control_mode="explicit", load_model=("n",),
                           transport=transport) as repository:
        assert fetch(repository.served.http_address, "/v2/health/ready")[0] == 200
        assert repository.answer("n") == ("1", 1.0)
        status, text = repository.status("m")
        assert (status, "infer load" in text) == ("NOT_FOUND", True)
        assert repository.caller.index() == {("m", ""): "UNAVAILABLE", ("n", "1"): "READY"}
        repository.client.load("m")
        assert repository.answer("m") == ("2", 2.0)
        with calling(repository.served.address):
            # What is there later is taken by the next load, and by nothing else.
            place_version(tmp_path, "m", 3)
            repository.looked(3)
            assert repository.answer("m") == ("2", 2.0)
            repository.client.load("m")
            assert repository.answer("m") == ("3", 3.0)
        repository.client.unload("m")
        assert repository.status("m")[0] in ("NOT_FOUND", "UNAVAILABLE")
        repository.until(lambda: repository.status("m")[0] == "NOT_FOUND")
        assert refused(repository, "load", "x")[0] == "NOT_FOUND"
        repository.client.unload("n")
        assert scrape(repository.served.http_address)["infer_ready", frozenset()] == 1


def test_f26_a_load_that_fails_leaves_what_was_served(tmp_path: Path) -> None:
    place_version(tmp_path, "m", 1)
    with repository_server(tmp_path, model_control_mode="explicit", load_model=("*",)) as repository:
        with calling(repository.served.address) as answers:
            break_version(tmp_path, "m", 2)
            status, text = refused(repository, "load", "m")
            assert (status, "NoSuchOperator" in text) == ("FAILED_PRECONDITION", True)
            assert repository.answer("m") == ("1", 1.0)
        assert set(answers) == {("1", 1.0)}


def test_a_load_takes_a_copy_that_has_just_ended(tmp_path: Path) -> None:
    """Without a rename or a marker: it waits for as long as it takes to tell, and no longer."""
    with repository_server(tmp_path, model_control_mode="explicit", repository_poll_interval=3600) as repository:
        models.write_version(tmp_path, "m", 1, models.scale(1.0))
        repository.client.load("m")
        assert repository.answer("m") == ("1", 1.0)


def test_a_load_of_a_copy_that_goes_on_says_so(tmp_path: Path) -> None:
    content = models.scale(1.0)
    with repository_server(tmp_path, model_control_mode="explicit") as repository:
        path = models.write_model(tmp_path / "m" / "1" / "model.onnx", content[:-30])
        status, text = refused(repository, "load", "m")
        assert status in ("UNAVAILABLE", "FAILED_PRECONDITION"), text
        path.write_bytes(content)
        repository.client.load("m")
        assert repository.answer("m") == ("1", 1.0)


def test_a_load_with_a_configuration_and_files(tmp_path: Path) -> None:
    place_version(tmp_path, "m", 1)
    with repository_server(tmp_path, model_control_mode="explicit", load_model=("*",)) as repository:
        repository.client.load("m", config=config_json(max_batch_size=4))
        assert repository.caller.config("m").max_batch_size == 4
        assert repository.answer("m") == ("1", 1.0)
        repository.client.load("m", config=config_json(max_batch_size=2), files={
            (5, "model.onnx"): models.scale(5.0)})
        assert repository.answer("m") == ("5", 5.0)
        assert repository.caller.config("m").max_batch_size == 2
        assert refused(repository, "load", "m", config=config_json(max_batch_size=-2))[0] == "INVALID_ARGUMENT"
        assert repository.answer("m") == ("5", 5.0)
        repository.client.load("m")
        assert repository.answer("m") == ("1", 1.0)


def test_labels_move_when_their_version_is_ready(tmp_path: Path) -> None:
    config = tmp_path / "m" / "config.pbtxt"
    for version in (1, 2):
        place_version(tmp_path, "m", version)
    config.write_text("version_policy { all {} }\n")
    with repository_server(tmp_path, model_control_mode="explicit", load_model=("*",)) as repository:
        repository.client.move_label("m", "stable", 1)
        assert repository.answer("m") == ("1", 1.0)
        repository.client.move_label("m", "canary", 2)
        assert repository.answer("m", "canary") == ("2", 2.0)
        # One that is not there yet: it stays where it is.
        repository.client.move_label("m", "canary", 3)
        assert repository.answer("m", "canary") == ("2", 2.0)
        with calling(repository.served.address, version="canary") as answers:
            place_version(tmp_path, "m", 3)
            repository.client.load("m")
            repository.until(lambda: repository.answer("m", "canary") == ("3", 3.0))
        assert set(answers) <= {("2", 2.0), ("3", 3.0)}
        assert repository.answer("m") == ("1", 1.0)
        repository.client.move_label("m", "stable", 0)
        assert repository.answer("m") == ("3", 3.0)
        assert repository.status("m", "nightly")[0] == "NOT_FOUND"
        assert refused(repository, "move_label", "m", "7", 1)[0] == "INVALID_ARGUMENT"


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps what is freed")
def test_an_unload_gives_its_memory_back(tmp_path: Path) -> None:
    columns = 4096
    size_bytes = 4 * columns * columns
    weights = numpy_helper.from_array(np.ones((columns, columns), np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", columns]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    large = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    place_version(tmp_path, "m", 1)
    models.write_version(tmp_path, "large", 1, large)
    with Serving(tmp_path, "--model-control-mode", "explicit", "--load-model", "m", "--gather-rows", "1") as serving:
        caller = Caller(serving.address)

        def resident_bytes() -> float:
            return scrape(serving.http)["process_resident_memory_bytes", frozenset()]

        def loaded_and_unloaded() -> float:
            before = resident_bytes()
            caller.client.load("large")
            assert resident_bytes() - before > size_bytes / 2
            caller.client.unload("large")
            while scrape(serving.http)["infer_model_versions_draining", frozenset()]:
                pass
            return resident_bytes()

        # What the runtime and each thread that loads keep of a first large model they keep once.
        first = loaded_and_unloaded()
        for _ in range(3):
            assert loaded_and_unloaded() < first + size_bytes / 4
        caller.client.close()
        assert serving.stop() == 0, serving.output


def test_the_bound_on_loads_under_way_is_reached(tmp_path: Path) -> None:
    """More models than threads: the others wait, and are counted."""
    for at in range(8):
        place_version(tmp_path, f"m{at}", 1)
    with repository_server(tmp_path, model_control_mode="explicit", load_threads=1) as repository:
        most = []

        def waiting() -> None:
            gauges = repository.served.server.models.manager.gauges()
            most.append((gauges["models_loading"], gauges["models_waiting"]))

        server = repository.served.server
        server.models.on_step = waiting
        with grpc.insecure_channel(repository.served.address) as channel:
            from infer.client.calls import model_load

            calls = []
            for at in range(8):
                query = model_load(f"m{at}", None, {})
                calls.append(channel.unary_unary(query.path).future(query.request, timeout=60))
            for call in calls:
                call.result()
        assert max(loading for loading, _ in most) == 1
        assert max(waiting for _, waiting in most) >= 1
