"""What settings come to on a server."""

from typing import Any

import pytest

from infer._core.model_version import TensorInfo
from infer.errors import ModelLoadError
from infer.models.effective import (
    LONGEST_TIMEOUT_US,
    LoadOptions,
    applied,
    as_model_has,
    cache_limits,
    limits_of,
    map_sizes,
    not_honoured,
    providers_of,
    queue_policies,
    served_tensors,
    session_options,
    shape_limits,
)
from infer.models.settings import LIVE_FIELDS, ModelSettings, QueuePolicy, TensorSetting, changed_fields

CUDA: Any = ("cuda", {"a": "b"})
CPU: Any = ("cpu", {})
TREES: Any = ("openvino", {})


def settings(**fields: Any) -> ModelSettings:
    return ModelSettings("m", **fields)


@pytest.mark.parametrize(("asked", "server", "expected"), [
    ({}, (), ()),
    ({}, (CUDA, CPU), (CUDA, CPU)),
    ({"kind": "cpu"}, (), [CPU]),
    ({"kind": "cpu"}, (CUDA, TREES), [TREES]),
    ({"kind": "gpu"}, (), [("cuda", {})]),
    ({"kind": "gpu"}, (CUDA, CPU), [CUDA]),
    ({"kind": "gpu", "gpus": (1, 2)}, (), [("cuda", {"device_id": "1"})]),
    ({"gpus": (1,)}, (CUDA,), [("cuda", {"a": "b", "device_id": "1"})]),
    ({"providers": (TREES,)}, (CUDA,), (TREES,)),
])
def test_providers(asked: dict[str, Any], server: Any, expected: Any) -> None:
    assert providers_of(settings(**asked), LoadOptions(providers=server)) == expected


def test_a_session_as_the_server_makes_it() -> None:
    assert session_options(settings(), LoadOptions(intra_op=3)) == {
        "providers": (), "parallel": False, "intra_op": 3, "inter_op": None, "graph_optimization": "all"}


def test_a_session_as_the_model_asks_for_it() -> None:
    asked = settings(graph_optimization="basic", parameters={
        "intra_op_thread_count": "2", "inter_op_thread_count": "4", "execution_mode": "1", "mine": "x"})
    assert session_options(asked, LoadOptions(intra_op=3)) == {
        "providers": (), "parallel": True, "intra_op": 2, "inter_op": 4, "graph_optimization": "basic"}
    assert not_honoured(asked) == []


def test_what_has_no_effect_is_said() -> None:
    assert not_honoured(settings(gpus=(1,), response_cache=False)) == []
    assert not_honoured(settings(
        parameters={"enable_mem_arena": "0"}, gpus=(1, 2), response_cache=True, queue=QueuePolicy(),
        priority_levels=2)) == [
            "instance_group.gpus but the first", "parameters.enable_mem_arena"]


def test_answers_are_kept_where_the_settings_say_so_within_their_own_bounds() -> None:
    options = LoadOptions(cache_ttl_s=1.5, cache_bytes=1000)
    assert cache_limits(settings(response_cache=False), options) is None
    assert cache_limits(settings(response_cache=True), options) == {
        "ttl_ns": 1_500_000_000, "model_bytes": 1000, "rows": False}
    assert cache_limits(settings(response_cache=True, cache_ttl_s=0.0, cache_bytes=7), options) == {
        "ttl_ns": 0, "model_bytes": 7, "rows": False}
    for server, own, expected in ((True, None, True), (True, False, False), (False, True, True)):
        part = cache_limits(settings(response_cache=True, cache_rows=own), LoadOptions(cache_rows=server))
        assert part is not None
        assert part["rows"] is expected


@pytest.mark.parametrize(("name", "value"), [
    ("execution_mode", "parallel"), ("intra_op_thread_count", "-1"), ("inter_op_thread_count", "1025")])
def test_a_parameter_that_says_nothing_refuses_the_model(name: str, value: str) -> None:
    asked = settings(parameters={name: value}, places={"parameters": "m/config.pbtxt:7:1"})
    with pytest.raises(ModelLoadError, match=rf"^m/config.pbtxt:7:1: parameters.{name}: expected .* got '{value}'"):
        session_options(asked, LoadOptions())


def test_limits() -> None:
    options = LoadOptions(delay_ns=5, queue_limit_rows=6, queue_limit_bytes=7, max_running=3)
    assert limits_of(settings(), options) == {
        "delay_ns": 5, "queue_limit_rows": 6, "queue_limit_bytes": 7, "weight": 1, "default_level": 0,
        "policies": [(0, 0, False, False)]}
    assert limits_of(settings(max_queue_delay_us=0), options)["delay_ns"] == 0
    on_cpu = [("CPUExecutionProvider", {})]
    assert shape_limits(settings(max_batch_size=0), options, on_cpu) == {
        "batched": False, "max_rows": 1, "gather_rows": 1, "max_running": 3, "levels": 0}
    batched = settings(max_batch_size=8, preferred_batch_sizes=(2, 4))
    assert shape_limits(batched, options, [("CUDAExecutionProvider", {})]) == {
        "batched": True, "max_rows": 8, "gather_rows": 4, "max_running": 1, "levels": 0}
    # Batches are not gathered, but a request may bring rows.
    alone = settings(max_batch_size=8, instances=7)
    assert shape_limits(alone, options, on_cpu) == {
        "batched": True, "max_rows": 8, "gather_rows": 1, "max_running": 7, "levels": 0}


def test_each_level_has_its_own_policy_or_the_models() -> None:
    common, own = QueuePolicy(3, 20, "delay"), QueuePolicy(0, 2**64 - 1, "reject", True)
    asked = settings(priority_levels=3, default_priority=2, queue=common, priority_queues={2: own})
    limits = limits_of(asked, LoadOptions())
    assert limits["default_level"] == 2
    assert limits["policies"] == [
        (3, 20_000, True, False), (0, LONGEST_TIMEOUT_US * 1000, False, True), (3, 20_000, True, False)]
    assert shape_limits(asked, LoadOptions(), [("CPUExecutionProvider", {})])["levels"] == 3
    assert queue_policies(settings(queue=common)) == [(3, 20_000, True, False)]
    assert queue_policies(settings(priority_levels=2)) == [(0, 0, False, False)] * 2


def test_sizes_that_are_written_stand_where_the_model_leaves_them_free() -> None:
    declared = [TensorInfo("x", 1, (-1, -1, 3), ("n", "c", "")), TensorInfo("s", 1, ()), TensorInfo("u", 1, None)]
    written = [TensorSetting("x", "FP32", (5, -1)), TensorSetting("s", "FP32", (1,)), TensorSetting("u", "FP32", (2,))]
    batched = served_tensors(declared, written, True, optional=True)
    assert [tensor.shape for tensor in batched] == [(-1, 5, 3), (), None]
    assert batched[0].symbols == ("n", "c", "")
    whole = served_tensors(declared[:1], [TensorSetting("x", "FP32", (4, 5, -1))], False, optional=True)
    assert whole[0].shape == (4, 5, 3)


def test_only_outputs_that_are_listed_are_served() -> None:
    declared = [TensorInfo("y", 1, (-1,)), TensorInfo("z", 1, (-1,)), TensorInfo("map", 0, None, datatype="MAP")]
    written = [TensorSetting("z", "FP32", ())]
    outputs = served_tensors(declared, written, True, optional=False)
    assert [(tensor.name, tensor.served) for tensor in outputs] == [("y", False), ("z", True), ("map", False)]
    inputs = served_tensors(declared[:2], written, True, optional=True)
    assert [tensor.served for tensor in inputs] == [True, True]


def test_a_reshape_is_served_in_the_shape_that_is_written() -> None:
    declared = [TensorInfo("x", 1, (-1, 2, -1), ("b", "", "n")), TensorInfo("s", 1, (-1,), ("b",)),
                TensorInfo("same", 1, (-1, 4))]
    written = [TensorSetting("x", "FP32", (-1, 2, 3), reshape=(-1, 6)), TensorSetting("s", "FP32", (1,), reshape=()),
               TensorSetting("same", "FP32", (4,), reshape=(4,))]
    served = served_tensors(declared, written, True, optional=True)
    # What the model fixes is fixed in requests as well, at the place that stands for it.
    assert [each.shape for each in served] == [(-1, 2, 2, 3), (-1, 1), (-1, 4)]
    assert [each.reshape for each in served] == [(-1, 2, 6), (-1,), None]
    assert [each.shape for each in as_model_has(served)] == [(-1, 2, 6), (-1,), (-1, 4)]
    assert [each.reshape for each in as_model_has(served)] == [None, None, None]
    whole = served_tensors([TensorInfo("x", 1, (2, 6))], [TensorSetting("x", "FP32", (12,), reshape=(2, 6))], False,
                           optional=True)
    assert [(each.shape, each.reshape) for each in whole] == [((12,), (2, 6))]


def test_free_sizes_stand_for_each_other_in_their_order() -> None:
    assert map_sizes((7, 2, 3, 9), (-1, 2, 3, -1), (-1, 6, -1)) == (7, 6, 9)
    assert map_sizes((5,), (-1,), (-1, 1)) == (5, 1)
    assert map_sizes((), (), (1, 1)) == (1, 1)


def test_an_edit_changes_what_needs_no_reload() -> None:
    old = settings(max_batch_size=4, instances=1, max_queue_delay_us=1)
    new = settings(max_batch_size=9, instances=2, max_queue_delay_us=2, labels={"a": 1}, origin="x:1")
    both = applied(old, new)
    assert (both.max_batch_size, both.instances, both.origin) == (4, 1, "x:1")
    assert changed_fields(new, both) & LIVE_FIELDS == set()
