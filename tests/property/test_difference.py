"""How far two outputs are apart, against numpy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from infer._core.difference import Comparison

KINDS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BOOL": np.bool_, "INT8": np.int8,
         "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8, "UINT16": np.uint16,
         "UINT32": np.uint32, "UINT64": np.uint64}
REALS = ("FP16", "FP32", "FP64")


def tensor(array: NDArray[np.generic]) -> tuple[str, tuple[int, ...], bytes]:
    name = next(name for name, kind in KINDS.items() if np.dtype(kind) == array.dtype)
    return name, array.shape, array.tobytes()


@st.composite
def pairs(draw: st.DrawFn) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Two arrays of one type and shape, of which about half of the elements are the same."""
    name = draw(st.sampled_from(sorted(KINDS)))
    shape = draw(st.sampled_from([(0,), (1,), (5,), (2, 3), (3, 1), (2, 2, 4)]))
    if name in REALS:
        values = st.floats(-1000, 1000, width=16) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0])
    elif name == "BOOL":
        values = st.booleans()
    else:
        low = 0 if name.startswith("U") else -100
        values = st.integers(low, 100)
    count = math.prod(shape)
    one = draw(st.lists(values, min_size=count, max_size=count))
    other = [draw(values) if draw(st.booleans()) else value for value in one]
    return np.array(one, KINDS[name]).reshape(shape), np.array(other, KINDS[name]).reshape(shape)


@given(pairs(), st.sampled_from([0.0, 1e-5, 0.1]), st.sampled_from([0.0, 1e-3, 10.0]))
def test_numbers_are_compared_as_numpy_does(arrays: tuple[NDArray[np.generic], NDArray[np.generic]], rtol: float,
                                            atol: float) -> None:
    comparison = Comparison(rtol, atol)
    bad = comparison.add(*map(tensor, arrays))
    found = comparison.result()
    a, b = (each.astype(np.float64).ravel() for each in arrays)
    with np.errstate(all="ignore"):
        # numpy takes the tolerance from its second argument.
        close = np.isclose(b, a, rtol=rtol, atol=atol, equal_nan=True)
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
    apart[~np.isfinite(apart)] = math.inf
    assert found["elements"] == a.size
    assert found["unequal"] == np.count_nonzero(~close)
    assert found["differing"] == (found["unequal"] > 0)
    assert found["compared"] == 1
    assert found["max_abs"] == pytest.approx(apart.max(initial=0))
    most = np.maximum(np.abs(a), np.abs(b))
    relative = np.divide(apart, most, out=np.zeros_like(a), where=np.isfinite(apart) & (apart > 0))
    relative[np.isinf(apart)] = math.inf
    assert found["max_rel"] == pytest.approx(relative.max(initial=0))
    assert (bad > 0) == (found["unequal"] > 0)


@given(pairs())
def test_top_1_and_cosine(arrays: tuple[NDArray[np.generic], NDArray[np.generic]]) -> None:
    comparison = Comparison(0, 0)
    comparison.add(*map(tensor, arrays))
    found = comparison.result()
    a, b = (each.astype(np.float64) for each in arrays)
    ranked = arrays[0].dtype.kind == "f" and a.shape[-1] >= 2
    vectors = a.size // a.shape[-1] if ranked else 0
    assert found["top1"] == vectors
    if vectors and not (np.isnan(a).any() or np.isnan(b).any()):
        assert found["top1_same"] == np.count_nonzero(a.argmax(-1) == b.argmax(-1))
    left, right = np.linalg.norm(a), np.linalg.norm(b)
    known = left > 0 and right > 0 and np.isfinite(left) and np.isfinite(right)
    assert found["cosine_distance"]["count"] == known
    if known:
        distance = 1 - float(np.vdot(a, b) / (left * right))
        assert found["cosine_distance"]["p50"] == pytest.approx(distance, rel=0.13, abs=2e-9)


texts = st.lists(st.binary(max_size=5), max_size=5)


@given(texts, texts)
def test_texts_are_the_same_or_not(one: list[bytes], other: list[bytes]) -> None:
    comparison = Comparison(1.0, 1.0)

    def raw(elements: list[bytes]) -> tuple[str, tuple[int], bytes]:
        return "BYTES", (5,), b"".join(len(each).to_bytes(4, "little") + each for each in elements)

    bad = comparison.add(raw(one), raw(other))
    found = comparison.result()
    paired = sum(a == b for a, b in zip(one, other, strict=False))
    assert found["elements"] == max(len(one), len(other))
    assert found["unequal"] == found["elements"] - paired
    assert (bad == 0) == (one == other)


@pytest.mark.parametrize("other", [
    ("FP32", (2,), bytes(8)), ("FP32", (1, 1), bytes(4)), ("INT32", (1,), bytes(4)), None])
def test_what_is_of_another_kind_cannot_be_compared(other: tuple[str, tuple[int, ...], bytes] | None) -> None:
    comparison = Comparison(1.0, 1.0)
    assert comparison.add(("FP32", (1,), bytes(4)), other) == math.inf
    found = comparison.result()
    assert (found["compared"], found["incomparable"], found["differing"], found["elements"]) == (1, 1, 0, 0)


def test_bytes_that_end_early_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"a tensor FP32 \[2\] has 4 bytes"):
        Comparison(0, 0).add(("FP32", (2,), bytes(4)), ("FP32", (2,), bytes(8)))
    with pytest.raises(ValueError, match="no such tensor: FP31"):
        Comparison(0, 0).add(("FP31", (2,), bytes(4)), ("FP32", (2,), bytes(8)))


def test_histograms_count_each_pair_once() -> None:
    comparison = Comparison(0, 0)
    for power in range(-8, 3):
        comparison.add(("FP64", (1,), np.float64(1).tobytes()), ("FP64", (1,), np.float64(1 + 10.0 ** power).tobytes()))
    found = comparison.result()
    assert found["absolute"]["count"] == 11
    assert found["absolute"]["up_to"][-1] == 11
    assert found["absolute"]["up_to"] == sorted(found["absolute"]["up_to"])
    assert found["absolute"]["p50"] == pytest.approx(1e-3, rel=0.15)
    assert found["max_abs"] == 100
