"""Sketches of outputs against numpy: the order of the bins, how wide they are, and where values are taken from."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core._testing_sketch import BINS, Sketch, bin_of

# By ONNX's number.
TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_,
         10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64, 16: ml_dtypes.bfloat16}
FLOATS = st.floats(width=32, allow_nan=False)


@given(FLOATS, FLOATS)
def test_bins_are_in_the_order_of_values(a: float, b: float) -> None:
    assert 0 <= bin_of(a) < BINS - 1
    if a < b:
        assert bin_of(a) <= bin_of(b)
    if 0 < a * 1.04 < b and a > 1e-30:
        assert bin_of(a) < bin_of(b)


def test_what_is_no_number_has_a_bin_of_its_own() -> None:
    assert bin_of(math.nan) == BINS - 1
    assert bin_of(math.inf) < BINS - 1
    assert bin_of(-math.inf) == bin_of(-1e300) >= 0


@given(st.sampled_from(sorted(TYPES)), st.lists(st.integers(0, 100), min_size=1, max_size=9))
def test_every_type_is_read_as_what_it_says(data_type: int, values: list[int]) -> None:
    array = np.array(values).astype(TYPES[data_type])
    sketch = Sketch()
    for _ in range(50):
        sketch.tensor(data_type, array.tobytes())
    assert sketch.count == 50
    assert set(sketch.counts()) <= {bin_of(float(each)) for each in array}
    # Every place has its turns.
    assert len(sketch.counts()) == len({bin_of(float(each)) for each in array})


@pytest.mark.parametrize("data_type", [1, 10, 16, 11])
def test_fractions(data_type: int) -> None:
    for value in (0.1, -2.5, 1e-3, 3e4):
        array = np.array([value]).astype(TYPES[data_type])
        sketch = Sketch()
        sketch.tensor(data_type, array.tobytes())
        assert sketch.counts() == {bin_of(float(array[0])): 1}


def test_infinities_and_nothing() -> None:
    sketch = Sketch()
    assert (sketch.count, sketch.counts()) == (0, {})
    sketch.tensor(10, np.array([np.inf], np.float16).tobytes())
    assert sketch.counts() == {bin_of(math.inf): 1}
    sketch.tensor(1, b"")
    sketch.tensor(8, b"\x01\x00\x00\x00x")
    sketch.tensor(1, b"\x00\x00")
    assert sketch.count == 1


@given(st.lists(FLOATS, max_size=30))
def test_counts(values: list[float]) -> None:
    sketch = Sketch()
    expected: dict[int, int] = {}
    for value in values:
        sketch.add(value)
        expected[bin_of(value)] = expected.get(bin_of(value), 0) + 1
    assert sketch.counts() == expected
    assert sketch.count == len(values)
