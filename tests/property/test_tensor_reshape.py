"""Requests and replies in other shapes than the model's: the elements stay, and the plain rule says which shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer._core.model_version import TensorInfo
from infer.models.config_tensors import same_elements
from infer.models.effective import map_sizes
from tests.support.models import identity
from tests.support.puppets import Bench, make_entry
from tests.support.requests import add_raw, infer_request

FP32 = 1
INVALID_ARGUMENT = 3


@st.composite
def factors(draw: st.DrawFn, product: int) -> list[int]:
    """Sizes with that product, ones among them."""
    sizes = []
    while product > 1 and len(sizes) < 2 and draw(st.booleans()):
        size = draw(st.sampled_from([each for each in range(1, product + 1) if product % each == 0]))
        sizes.append(size)
        product //= size
    return [*sizes, product] if product > 1 or draw(st.booleans()) else sizes


@st.composite
def patterns(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Dims of requests and of the model; sizes between those that are free have the same product in both."""
    pair: tuple[list[int], list[int]] = [], []
    for part in range(draw(st.integers(1, 3))):
        product = draw(st.sampled_from([1, 2, 4, 6, 12]))
        for dims in pair:
            dims.extend([-1] * (part > 0) + draw(factors(product)))
    return pair


def request_of(shape: tuple[int, ...], first: float) -> tuple[bytes, bytes]:
    data = (np.arange(math.prod(shape), dtype=np.float32) + np.float32(first)).tobytes()
    message = infer_request()
    add_raw(message, "x", "FP32", list(shape), data)
    return message.SerializeToString(), data


@settings(deadline=None, max_examples=60)
@given(data=st.data(), dims=patterns(), batched=st.booleans(), out=st.booleans())
def test_every_request_comes_back_in_the_shape_that_is_written(
        data: st.DataObject, dims: tuple[list[int], list[int]], batched: bool, out: bool) -> None:
    carried, own = dims
    lead = [-1] if batched else []
    assert same_elements(carried, own)
    model = identity("FP32", (*(["batch"] if batched else []), *(f"d{k}" for k in range(len(own)))))
    x = TensorInfo("x", FP32, [*lead, *carried], reshape=[*lead, *own])
    y = TensorInfo("y", FP32, [*lead, *carried], reshape=[*lead, *own]) if out else TensorInfo("y", FP32, [*lead, *own])
    shapes = []
    for _ in range(data.draw(st.integers(1, 3))):
        rows = (data.draw(st.integers(1, 3)),) if batched else ()
        shapes.append((*rows, *(data.draw(st.integers(0, 3)) if size < 0 else size for size in carried)))
    # Nothing is drawn from here on: an example that is given up would leave its calls.
    bench = Bench(make_entry(model, batched=batched, inputs=[x], outputs=[y]))
    asked = []
    for number, shape in enumerate(shapes):
        message, content = request_of(shape, number * 1000.0)
        asked.append((bench.call(message), shape, content))
    bench.run_all()
    for call, shape, content in asked:
        reply = bench.reply(call)
        wanted = shape if out else map_sizes(shape, [*lead, *carried], [*lead, *own])
        assert (tuple(reply.outputs[0].shape), reply.raw_output_contents[0]) == (wanted, content)
    bench.close()


def test_the_models_own_shape_is_refused_and_the_written_one_is_named() -> None:
    inputs = [TensorInfo("x", FP32, (-1, 2, 3), reshape=(-1, 6))]
    bench = Bench(make_entry(identity("FP32", ("batch", 6)), inputs=inputs))
    call = bench.call(request_of((1, 6), 0.0)[0])
    outcome = bench.outcome(call)
    assert outcome.code == INVALID_ARGUMENT
    assert "expected FP32 [-1,2,3], got FP32 [1,6]" in outcome.message
    bench.close()


def test_an_output_of_another_shape_than_is_written_is_answered_as_it_is() -> None:
    outputs = [TensorInfo("y", FP32, (-1, 2, 2), reshape=(-1, 4))]
    bench = Bench(make_entry(identity("FP32", ("batch", "n")), outputs=outputs))
    fits, other = (bench.call(request_of(shape, 0.0)[0]) for shape in ((1, 4), (1, 6)))
    bench.run_all()
    assert [list(bench.reply(call).outputs[0].shape) for call in (fits, other)] == [[1, 2, 2], [1, 6]]
    bench.close()


def test_a_reshape_of_too_many_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="a reshape of more than 12 dimensions"):
        make_entry(identity(), inputs=[TensorInfo("x", FP32, (-1, 4), reshape=(-1, *[1] * 12))])
