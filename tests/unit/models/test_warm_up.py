"""Which runs a version has before it is published, and how written ones fail."""

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core.model_version import TensorInfo
from infer.errors import InvalidArgument, ModelLoadError
from infer.models.batchability import Fill
from infer.models.settings import FillKind, Warmup, WarmupInput
from infer.models.warm_up import DIRECTORY, sizes, warm_sizes, warm_written

FILL = Fill(4, 0.0, 1.0, 2)
X = TensorInfo("x", 1, (-1, 2), ("batch", ""))
TEXT = TensorInfo("text", 8, (-1, 1), ("batch", ""))


class Session:
    """Keeps what it is run with; a run takes as many seconds as it has rows times `pace`."""

    def __init__(self, *inputs: TensorInfo, pace: float = 0.0, error: str = "") -> None:
        self.inputs, self.pace, self.error = list(inputs), pace, error
        self.runs: list[Any] = []
        self.time = 0.0

    def run(self, tensors: list[Any]) -> list[Any]:
        if self.error:
            raise InvalidArgument(self.error)
        self.runs.append(tensors)
        self.time += tensors[0][1][0] * self.pace
        return []

    def now(self) -> float:
        return self.time


def written(kind: FillKind, path: str | None = None, *, rows: int = 1, count: int = 1, datatype: str = "FP32",
            dims: tuple[int, ...] = (2,), name: str = "x") -> Warmup:
    return Warmup("w", rows, count, (WarmupInput(name, datatype, dims, kind, path),))


@given(st.integers(1, 5000), st.lists(st.integers(1, 6000)))
def test_sizes_are_one_row_the_whole_batch_and_what_is_between(gather: int, preferred: list[int]) -> None:
    found = sizes(gather, preferred)
    assert list(found) == sorted(set(found))
    assert (found[0], found[-1]) == (1, gather)
    assert {rows for rows in preferred if rows <= gather} <= set(found)
    assert all(larger <= 2 * smaller for smaller, larger in pairwise(found))


def test_every_size_is_run_smallest_first() -> None:
    session: Any = Session(X)
    assert warm_sizes(session, session.inputs, FILL, (1, 2, 5)) == [1, 2, 5]
    assert [[tensor[:2] for tensor in run] for run in session.runs] == [[("FP32", (rows, 2))] for rows in (1, 2, 5)]


@pytest.mark.parametrize(("seconds", "ran"), [(15.0, [1, 2, 4, 8]), (14.9, [1, 2, 4]), (0.5, [1]), (0.0, [1])])
def test_sizes_for_which_the_time_would_not_do_are_left(seconds: float, ran: list[int]) -> None:
    session: Any = Session(X, pace=1.0)
    assert warm_sizes(session, session.inputs, FILL, (1, 2, 4, 8), seconds=seconds, now=session.now) == ran


def test_written_requests_are_run_as_often_as_they_say(tmp_path: Path) -> None:
    session: Any = Session(X)
    requests = [written("zero", rows=3, count=2), written("random")]
    warm_written(session, session.inputs, requests, True, tmp_path, root=None)
    zero, again, [(datatype, shape, made_up)] = session.runs
    assert zero == again == [("FP32", (3, 2), bytes(3 * 8))]
    assert (datatype, shape, len(made_up)) == ("FP32", (1, 2), 8)
    assert made_up != bytes(8)


def test_a_model_that_is_not_batched_gets_the_dims_as_they_are(tmp_path: Path) -> None:
    session: Any = Session(TensorInfo("x", 1, (5, 2)))
    warm_written(session, session.inputs, [written("zero", rows=1, dims=(5, 2))], False, tmp_path, root=None)
    assert session.runs == [[("FP32", (5, 2), bytes(40))]]


def test_a_model_that_reshapes_gets_its_own_dims(tmp_path: Path) -> None:
    session: Any = Session(TensorInfo("x", 1, (-1, 6, -1)))
    served = [TensorInfo("x", 1, (-1, 2, 3, -1), reshape=(-1, 6, -1))]
    warm_written(session, served, [written("zero", rows=2, dims=(2, 3, 5))], True, tmp_path, root=None)
    whole = [TensorInfo("x", 1, (2, 3), reshape=(6,))]
    warm_written(session, whole, [written("zero", dims=(2, 3))], False, tmp_path, root=None)
    assert session.runs == [[("FP32", (2, 6, 5), bytes(2 * 30 * 4))], [("FP32", (6,), bytes(24))]]


def test_strings_of_no_length_and_inputs_that_are_left_out(tmp_path: Path) -> None:
    session: Any = Session(TEXT, X)
    text = written("zero", rows=2, datatype="BYTES", dims=(1,), name="text")
    warm_written(session, session.inputs, [text], True, tmp_path, root=None)
    assert session.runs == [[("BYTES", (2, 1), bytes(8)), None]]


def test_the_row_of_a_file_is_repeated(tmp_path: Path) -> None:
    row = struct.pack("<2f", 1.5, 2.5)
    (tmp_path / DIRECTORY).mkdir()
    (tmp_path / DIRECTORY / "row").write_bytes(row)
    session: Any = Session(X)
    warm_written(session, session.inputs, [written("file", "row", rows=2)], True, tmp_path, root=None)
    assert session.runs == [[("FP32", (2, 2), row * 2)]]


@pytest.mark.parametrize(("make", "said"), [
    (lambda path: None, "cannot be read: No such file"),
    (lambda path: path.write_bytes(bytes(7)), r"expected 8 bytes, one FP32 \[2\], got 7"),
    (lambda path: path.symlink_to("/etc/passwd"), "leads out"),
], ids=["missing", "too short", "elsewhere"])
def test_a_file_that_does_not_do_fails_the_load(tmp_path: Path, make: Any, said: str) -> None:
    (tmp_path / DIRECTORY).mkdir()
    make(tmp_path / DIRECTORY / "row")
    session: Any = Session(X)
    with pytest.raises(ModelLoadError, match=f"warm-up 'w', input 'x': {DIRECTORY}/row.*{said}"):
        warm_written(session, session.inputs, [written("file", "row")], True, tmp_path, root=None)
    assert session.runs == []


def test_a_written_request_that_the_model_refuses_fails_the_load(tmp_path: Path) -> None:
    session: Any = Session(X, error="indices out of range")
    with pytest.raises(ModelLoadError, match="warm-up 'w' failed: indices out of range; correct model_warmup"):
        warm_written(session, session.inputs, [written("zero")], True, tmp_path, root=None)
