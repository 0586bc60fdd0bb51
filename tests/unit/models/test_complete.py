"""Completing a model's settings from the model: Triton's rules, and what disagrees, with its place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.models.complete import Completed, Defaults, complete, decides_batching, request_shape
from infer.models.config_pbtxt import parse_config
from infer.models.settings import ModelSettings, TensorSetting


@dataclass(frozen=True)
class Fake:
    """A declared tensor."""

    name: str
    datatype: str = "FP32"
    shape: tuple[int, ...] | None = (-1, 4)
    served: bool = True
    optional: bool = False


X, Y = Fake("x"), Fake("y", shape=(-1, 2))
DEFAULTS = Defaults(max_batch_size=1024, gather_rows=64)


def completed(text: str, inputs: list[Fake] | None = None, outputs: list[Fake] | None = None, *,
              batchable: bool = True, gpus: tuple[int, ...] = ()) -> Completed:
    settings, problems = parse_config(text, "c", "m")
    assert settings is not None, problems
    return complete(settings, [X] if inputs is None else inputs, [Y] if outputs is None else outputs,
                    batchable=batchable, defaults=replace(DEFAULTS, gpus=gpus))


def said(text: str, inputs: list[Fake] | None = None, outputs: list[Fake] | None = None) -> list[str]:
    return [str(problem) for problem in completed(text, inputs, outputs).problems]


BOTH = 'input { name: "x" data_type: TYPE_FP32 dims: 4 } output { name: "y" data_type: TYPE_FP32 dims: 2 } '
WHOLE = ('input { name: "x" data_type: TYPE_FP32 dims: [-1, 4] } output { name: "y" data_type: TYPE_FP32 '
         'dims: [-1, 2] } ')


@pytest.mark.parametrize(("text", "batchable", "rows", "dynamic", "preferred"), [
    ("", True, 1024, True, (64,)), ("", False, 0, False, ()), ("max_batch_size: 0", True, 0, False, ()),
    ("max_batch_size: 1", True, 1, False, ()), ("max_batch_size: 8", False, 8, True, (8,)),
    ("max_batch_size: 8 dynamic_batching { preferred_batch_size: [4, 2] }", True, 8, True, (2, 4)),
    ("dynamic_batching { }", True, 1024, True, (64,)), ("dynamic_batching { }", False, 0, False, ()),
    # Inputs and outputs are both given: nothing is completed.
    (WHOLE, True, 0, False, ()), (BOTH + "max_batch_size: 8", True, 8, False, ()),
    (BOTH + "max_batch_size: 8 dynamic_batching { }", True, 8, True, (8,)),
])
def test_batching(text: str, batchable: bool, rows: int, dynamic: bool, preferred: tuple[int, ...]) -> None:
    settings, problems = completed(text, batchable=batchable)
    assert problems == ()
    assert (settings.max_batch_size, settings.dynamic_batching, settings.preferred_batch_sizes) == (
        rows, dynamic, preferred)


@pytest.mark.parametrize("shape", [(1, 4), (), None])
def test_one_first_dimension_that_is_not_free_is_no_batching(shape: tuple[int, ...] | None) -> None:
    assert completed("", [X, Fake("z", shape=shape)]).settings.max_batch_size == 0
    assert completed("", outputs=[Y, Fake("w", shape=shape)]).settings.max_batch_size == 0
    assert completed("", outputs=[Y, Fake("w", "MAP", shape, served=False)]).settings.max_batch_size == 1024


def test_tensors() -> None:
    names = Fake("words", "BYTES", (-1,), optional=True)
    settings = completed("", [X, names], [Y, Fake("map", "MAP", None, served=False)]).settings
    assert settings.inputs == (TensorSetting("x", "FP32", (4,)), TensorSetting("words", "BYTES", (), optional=True))
    assert settings.outputs == (TensorSetting("y", "FP32", (2,)),)
    assert [request_shape(each, settings) for each in settings.inputs] == [(-1, 4), (-1,)]
    whole = completed("max_batch_size: 0", [X, names], [Fake("y", shape=None)]).settings
    assert [each.dims for each in (*whole.inputs, *whole.outputs)] == [(-1, 4), (-1,), (-1,)]
    assert [request_shape(each, whole) for each in whole.inputs] == [(-1, 4), (-1,)]


def test_one_side_that_is_given_is_kept_and_the_other_completed() -> None:
    text = 'max_batch_size: 2 input { name: "x" data_type: TYPE_FP32 dims: 2 dims: 2 reshape { shape: 4 } }'
    settings, problems = completed(text)
    assert problems == ()
    assert settings.inputs == (TensorSetting("x", "FP32", (2, 2), (4,)),)
    assert settings.outputs == (TensorSetting("y", "FP32", (2,)),)


@pytest.mark.parametrize(("shape", "got"), [((1, 4), "[1, 4]"), ((), "[]"), (None, "none declared")])
def test_batching_asked_of_a_fixed_first_dimension(shape: tuple[int, ...] | None, got: str) -> None:
    assert said("\nmax_batch_size: 8", [Fake("x", shape=shape)]) == [
        "c:2:1: max_batch_size: batching is asked for, and input 'x' of the model has no free first dimension, "
        f"expected [-1, ...], got {got}; write max_batch_size: 0, or export the model with a dynamic batch dimension "
        "[E304]"]
    # An output that a whole configuration leaves out is not served, so nothing is asked of it.
    assert said(BOTH + "max_batch_size: 8", outputs=[Y, Fake("w", shape=shape)]) == []
    assert len(said("max_batch_size: 8", outputs=[Y, Fake("w", shape=shape)])) == 1


@pytest.mark.parametrize(("text", "problem"), [
    ("max_batch_size: 8 input { name: \"x\" data_type: TYPE_FP32 dims: [-1, 4] }",
     "c:1:65: input.x.dims: dims hold the batch dimension, which max_batch_size > 0 adds, expected [4], got [-1, 4]; "
     "write dims: [4], or max_batch_size: 0 [E305]"),
    ("max_batch_size: 0 input { name: \"x\" data_type: TYPE_FP32 dims: 4 }",
     "c:1:58: input.x.dims: without max_batch_size dims are the whole shape, expected [-1, 4], got [4]; write dims: "
     "[-1, 4], or a max_batch_size from 1 [E303]"),
    ("max_batch_size: 8 input { name: \"x\" data_type: TYPE_FP32 dims: 5 }",
     "c:1:58: input.x.dims: expected [4], got [5]; write dims: [4] [E303]"),
    ("max_batch_size: 8 input { name: \"x\" data_type: TYPE_FP32 dims: 4 reshape { shape: [2, 2] } }",
     "input.x.reshape: expected [4], got [2, 2]; write dims: [4] [E303]"),
    ("max_batch_size: 8 input { name: \"x\" data_type: TYPE_INT32 dims: 4 }",
     "c:1:37: input.x.data_type: expected TYPE_FP32, got TYPE_INT32; write the model's own [E302]"),
    ("max_batch_size: 8 input { name: \"xx\" data_type: TYPE_FP32 dims: 4 }",
     "c:1:19: input.xx: the model has no input 'xx'; did you mean 'x'? [E301]"),
    ("max_batch_size: 8 output { name: \"z\" data_type: TYPE_FP32 dims: 4 }",
     "c:1:19: output.z: the model has no output 'z'; it has y [E301]"),
    ("max_batch_size: 8 input { name: \"x\" data_type: TYPE_FP32 dims: 4 optional: true }",
     "c:1:19: input.x.optional: the model has no default for it, so requests must carry it [W102]"),
    ("max_batch_size: 8 dynamic_batching { preferred_batch_size: 2 } model_warmup { name: \"w\" batch_size: 9 "
     "inputs { key: \"x\" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }",
     "c:1:64: model_warmup: expected a batch_size up to 8, got 9; lower the batch_size of 'w' [E109]"),
    ("model_warmup { name: \"w\" }",
     "c:1:1: model_warmup: 'w' has no data for x; add an entry of inputs for each [E106]"),
    ("dynamic_batching { preferred_batch_size: 2000 }",
     "c:1:20: dynamic_batching.preferred_batch_size: expected rows from 1 to max_batch_size, 1024, got 2000; "
     "correct the value [E103]"),
    ("instance_group { kind: KIND_GPU }", "c:1:1: instance_group.kind: expected a GPU that a provider of this server "
     "runs on, got none; write KIND_CPU or KIND_AUTO, or install onnxruntime-gpu [E109]"),
])
def test_a_disagreement(text: str, problem: str) -> None:
    (only,) = said(text)
    assert only.endswith(problem)


def test_an_input_that_is_missing() -> None:
    inputs = [X, Fake("z", "INT64", (-1,)), Fake("o", optional=True)]
    assert said('max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: 4 }', inputs) == [
        "c:1:19: input: the model's input 'z' is missing; add name: \"z\" data_type: TYPE_INT64 dims: [1] "
        "reshape { shape: [] } [E301]"]


def test_one_value_a_row_needs_a_reshape_as_in_triton() -> None:
    tensor = 'max_batch_size: 4 output { name: "y" data_type: TYPE_FP32 dims: 1 '
    assert said(tensor + "reshape { } }", outputs=[Fake("y", shape=(-1,))]) == []
    (both,) = said(tensor.replace("dims: 1", "dims: -1") + "}", outputs=[Fake("y", shape=(-1,))])
    assert both.endswith("write dims: [1] reshape { shape: [] }, or max_batch_size: 0 [E305]")
    (only,) = said(tensor + "}", outputs=[Fake("y", shape=(-1,))])
    assert only.endswith("the model has one value a row, expected [], got [1]; add reshape { shape: [] } [E303]")


def test_a_tensor_without_dimensions_is_written_with_one() -> None:
    assert said('max_batch_size: 0 output { name: "y" data_type: TYPE_FP32 dims: 1 }', outputs=[Fake("y", shape=())]
                ) == []


@pytest.mark.parametrize("shape", [(-1, -1), None])
def test_a_shape_that_the_model_leaves_open_takes_any_size(shape: tuple[int, ...] | None) -> None:
    settings, problems = completed(WHOLE, [Fake("x", shape=shape)])
    assert problems == ()
    assert settings.inputs[0].dims == (-1, 4)


def test_warm_up_requests_fit_the_model() -> None:
    def text(name: str, kind: str, dims: str) -> str:
        return (f'max_batch_size: 4 model_warmup {{ name: "w" inputs {{ key: "x" value {{ data_type: TYPE_FP32 '
                f'dims: 4 zero_data: true }} }} inputs {{ key: "{name}" value {{ data_type: {kind} dims: {dims} '
                "zero_data: true } } }")

    inputs = [X, Fake("z", "INT64", (-1, 3), optional=True)]
    assert said(text("z", "TYPE_INT64", "3"), inputs) == []
    assert "the model has no input 'q'" in said(text("q", "TYPE_INT64", "3"), inputs)[0]
    assert "expected TYPE_INT64, got TYPE_INT32" in said(text("z", "TYPE_INT32", "3"), inputs)[0]
    assert "expected [3], got [2]" in said(text("z", "TYPE_INT64", "2"), inputs)[0]


@pytest.mark.parametrize(("text", "available", "kind", "gpus"), [
    ("", (), "cpu", ()), ("", (0, 1), "gpu", (0, 1)), ("kind: KIND_CPU", (0,), "cpu", ()),
    ("kind: KIND_GPU gpus: 1", (0, 1), "gpu", (1,)), ("gpus: 1", (0, 1), "gpu", (1,)), ("gpus: 2", (0, 1), "cpu", ()),
])
def test_devices(text: str, available: tuple[int, ...], kind: str, gpus: tuple[int, ...]) -> None:
    settings, problems = completed(f"instance_group {{ count: 1 {text} }}", gpus=available)
    assert problems == ()
    assert (settings.kind, settings.gpus) == (kind, gpus)


def test_a_gpu_that_is_not_there() -> None:
    (only,) = completed("instance_group { kind: KIND_GPU gpus: [0, 7] }", gpus=(0,)).problems
    assert str(only) == "c:1:1: instance_group.gpus: expected some of 0, got 7; change one of them [E109]"


def test_who_decides_batching() -> None:
    plain = ModelSettings("m")
    tensors = (TensorSetting("x", "FP32", (4,)),)
    assert not decides_batching(plain)
    assert decides_batching(replace(plain, max_batch_size=0))
    assert not decides_batching(replace(plain, inputs=tensors))
    assert decides_batching(replace(plain, inputs=tensors, outputs=tensors))


SHAPES = st.none() | st.lists(st.sampled_from([-1, 1, 3]), max_size=3).map(tuple)
TENSORS = st.lists(SHAPES, min_size=1, max_size=3).map(
    lambda shapes: [Fake(f"t{index}", shape=shape) for index, shape in enumerate(shapes)])
ROWS = st.none() | st.integers(0, 8)


@given(TENSORS, TENSORS, ROWS, st.booleans())
def test_what_is_completed_is_whole_and_completing_it_again_changes_nothing(
        inputs: list[Fake], outputs: list[Fake], rows: int | None, batchable: bool) -> None:
    written = ModelSettings("m", max_batch_size=rows)
    settings, problems = complete(written, inputs, outputs, batchable=batchable, defaults=DEFAULTS)
    free = all(each.shape and each.shape[0] == -1 for each in (*inputs, *outputs))
    assert bool(problems) == (bool(rows) and not free)
    expected = rows if rows is not None else 1024 if free and batchable else 0
    assert (settings.max_batch_size, settings.dynamic_batching) == (expected, expected > 1)
    if not problems:
        again = complete(settings, inputs, outputs, batchable=not batchable, defaults=DEFAULTS)
        assert again == Completed(settings, ())
        assert [request_shape(each, settings) for each in settings.inputs] == [
            (-1,) if each.shape is None else each.shape for each in inputs]
