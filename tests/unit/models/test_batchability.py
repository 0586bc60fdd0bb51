"""The decision on batching, for every model of the suite and for what the decision is made of."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core.model_version import TensorInfo
from infer._core.self_check import all_close, made_up
from infer.errors import InferError
from infer.models.batchability import FILLS, Fill, decide, sample, shape_objection
from tests.support import models
from tests.support.engine import NUMPY, session

BATCHED = "rows run alone and together agree"


@pytest.mark.parametrize("model", ["identity", "every_identity", "scale", "dense", "add_sub", "add_sub_int32",
                                   "two_in_three_out", "string_join", "embedding", "gather", "slow", "empty_columns",
                                   "zipmap", "sequence"])
def test_models_whose_rows_stand_alone_are_batched(model: str) -> None:
    decision = decide(session(getattr(models, model)()))
    assert (decision.batchable, decision.reason) == (True, BATCHED)
    assert decision.fill is not None


@pytest.mark.parametrize(("model", "reason"), [
    ("batch_mean_subtracted", "output 'y' of a row changes with the rows beside it"),
    ("row_numbers", "output 'y' of a row changes with the rows beside it"),
    ("two_first_dims", "the first dimensions differ: batch in input 'x' and rows in input 'z'"),
    ("mixed_first_dims", "the first dimension of input 'z' is fixed at 1"),
    ("fixed_rows", "the first dimension of input 'x' is fixed at 2"),
    ("doubled_rows", "output 'y' of 1 rows has shape [2, 4]"),
    ("summed_rows", "the first dimension of output 'y' is fixed at 1"),
    ("positive_rows", "output 'y' of"),
    ("nonzero", "the first dimension of output 'y' is fixed at 2"),
    ("reshape", "output 'y' has no declared shape"),
    ("scalar", "input 'x' has no dimensions"),
])
def test_others_are_not(model: str, reason: str) -> None:
    decision = decide(session(getattr(models, model)()))
    assert not decision.batchable
    assert decision.reason.startswith(reason)


@pytest.mark.parametrize("datatype", models.ELEMENT_TYPES)
@pytest.mark.parametrize("dims", [("batch", 4), ("batch",), (None, 4), ("batch", "length"), ("batch", 0)])
def test_every_datatype(datatype: str, dims: tuple[Any, ...]) -> None:
    assert decide(session(models.identity(datatype, dims))).batchable


def info(name: str, shape: tuple[int, ...] | None, *symbols: str, **more: bool) -> TensorInfo:
    return TensorInfo(name, 1, shape, symbols, **more)


@pytest.mark.parametrize(("inputs", "outputs", "said"), [
    ([info("x", (-1, 2), "n", "")], [info("y", (-1,), "n")], None),
    ([info("x", (-1, 2))], [info("y", (-1,))], None),
    ([info("x", (-1,), "n"), info("z", (-1,), "n")], [info("y", (-1,), "m")], "n in input 'x' and m in output 'y'"),
    ([info("x", (-1,), "n")], [info("y", (-1,))], "n in input 'x' and without a name in output 'y'"),
    ([info("x", (-1,))], [info("y", (-1,), "n")], "without a name in input 'x' and n in output 'y'"),
    ([info("x", (-1,), "n")], [info("y", None)], "output 'y' has no declared shape"),
    ([info("x", (-1,), "n")], [info("y", ())], "output 'y' has no dimensions"),
    ([info("x", (-1,), "n"), info("z", (-1,), "n", optional=True)], [info("y", (-1,), "n")], "input 'z' is optional"),
    ([], [info("y", (1,))], "the model has no inputs"),
])
def test_shapes(inputs: list[TensorInfo], outputs: list[TensorInfo], said: str | None) -> None:
    objection = shape_objection(inputs, outputs)
    if said is None:
        assert objection is None
    else:
        assert objection is not None
        assert said in objection


class Scripted:
    """A session that runs a function instead of a model."""

    def __init__(self, run: Any, shape: tuple[int, ...] = (-1, 2)) -> None:
        self.inputs = [info("x", shape, "n", *[""] * (len(shape) - 1))]
        self.outputs = [info("y", shape, "n", *[""] * (len(shape) - 1))]
        self._run = run

    def run(self, inputs: list[Any]) -> list[Any]:
        _, shape, data = inputs[0]
        result: np.ndarray[Any, Any] = np.asarray(
            self._run(np.frombuffer(data, np.float32).reshape(shape)), np.float32)
        return [("FP32", result.shape, result.tobytes())]


def decided(run: Any, shape: tuple[int, ...] = (-1, 2)) -> tuple[bool, str]:
    decision = decide(Scripted(run, shape))  # type: ignore[arg-type]
    return decision.batchable, decision.reason


def test_agreement_is_within_a_tolerance() -> None:
    def slightly(by: float) -> Any:
        return lambda x: x + (0.5 + np.abs(x)) * by * (len(x) == 6)

    assert decided(slightly(1e-6)) == (True, BATCHED)
    assert decided(slightly(1e-3))[0] is False


def test_a_failure_of_the_samples_together_is_a_reason() -> None:
    def fail(x: Any) -> Any:
        if len(x) == 6:
            raise InferError("words of the runtime")
        return x

    decision = decide(Scripted(fail))  # type: ignore[arg-type]
    assert (decision.batchable, decision.reason) == (False, "three samples run alone but not together")
    assert decision.detail == "words of the runtime"


def test_sizes_are_tried_until_the_model_runs() -> None:
    def picture(x: Any) -> Any:
        if x.shape[1:] != (3, 224, 224):
            raise InferError("too small")
        return x[:, :, 0, 0]

    decision = decide(Scripted(picture, (-1, 3, -1, -1)))  # type: ignore[arg-type]
    assert decision.fill is not None
    assert decision.fill.size == 224


def test_a_model_that_never_runs_is_not_batched() -> None:
    def fail(x: Any) -> Any:
        raise InferError("words of the runtime")

    decision = decide(Scripted(fail))  # type: ignore[arg-type]
    assert decision.reason == "the self-check found no input that the model runs with"
    assert (decision.fill, decision.detail) == (None, "words of the runtime")


def test_samples_are_bounded() -> None:
    with pytest.raises(InferError, match="elements"):
        sample([info("x", (-1, -1, -1, -1))], Fill(512, 0.0, 1.0, 1), 1, 0)
    assert all(fill.below >= 1 for fill in FILLS)


class TestMadeUp:
    @pytest.mark.parametrize("datatype", NUMPY)
    def test_values_lie_in_their_range_and_vary(self, datatype: str) -> None:
        data = made_up(datatype, 1000, 7, -1.0, 1.0, 5)
        values = np.frombuffer(data, NUMPY[datatype])
        assert data == made_up(datatype, 1000, 7, -1.0, 1.0, 5)
        assert data != made_up(datatype, 1000, 8, -1.0, 1.0, 5)
        if datatype.startswith("FP"):
            assert values.min() >= -1.0
            assert values.max() <= 1.0
            assert values.std() > 0.5
        else:
            assert set(values.tolist()) == ({False, True} if datatype == "BOOL" else {0, 1, 2, 3, 4})

    def test_bytes_are_digits(self) -> None:
        data = made_up("BYTES", 100, 1, 0.0, 1.0, 3)
        assert {data[i:i + 5] for i in range(0, 500, 5)} == {b"\1\0\0\0" + digit for digit in (b"0", b"1", b"2")}

    def test_unknown_datatype(self) -> None:
        with pytest.raises(ValueError, match="FP8"):
            made_up("FP8", 1, 0, 0.0, 1.0, 1)


class TestAllClose:
    @given(st.sampled_from(["FP16", "FP32", "FP64"]), st.lists(st.floats(width=16), min_size=1, max_size=20),
           st.lists(st.sampled_from([0.0, 1e-9, 1e-4, 1e-3, 0.1, 1.0]), min_size=20, max_size=20))
    def test_agrees_with_numpy(self, datatype: str, values: list[float], shifts: list[float]) -> None:
        b = np.array(values, NUMPY[datatype])
        with np.errstate(over="ignore", invalid="ignore"):
            a = (b + np.array(shifts[:len(values)], np.float64)).astype(NUMPY[datatype])
            finite = np.abs(b[np.isfinite(b)]).astype(np.float64)
            atol = 1e-3 * finite.max(initial=0.0)
            expected = np.allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-2, atol=atol, equal_nan=True)
        assert all_close(a.tobytes(), b.tobytes(), datatype, 1e-2, 1e-3) == expected

    def test_bf16(self) -> None:
        def bf16(*values: float) -> bytes:
            return (np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()

        assert all_close(bf16(1.0, -2.0), bf16(1.0, -2.0), "BF16", 0, 0)
        assert all_close(bf16(1.01), bf16(1.0), "BF16", 0.05, 0)
        assert not all_close(bf16(1.1), bf16(1.0), "BF16", 0.05, 0)

    @pytest.mark.parametrize("datatype", sorted(set(models.ELEMENT_TYPES) - {"FP16", "BF16", "FP32", "FP64"}))
    def test_everything_else_is_exact(self, datatype: str) -> None:
        assert all_close(b"\1\0\0\0abcd", b"\1\0\0\0abcd", datatype, 1.0, 1.0)
        assert not all_close(b"\1\0\0\0abcd", b"\1\0\0\0abce", datatype, 1.0, 1.0)

    def test_other_lengths_never_agree(self) -> None:
        assert not all_close(bytes(8), bytes(4), "FP32", 1.0, 1.0)
        assert all_close(b"", b"", "FP32", 0, 0)
