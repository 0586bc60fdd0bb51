"""Tensors as a command line gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infer.cli.tensors import random_tensor, read_argument
from infer.client.tensors import DTYPES, encode
from infer.errors import InvalidArgument


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("shape", [(2, -1, 3), (), (0, 4)])
def test_random(datatype: str, shape: tuple[int, ...]) -> None:
    array = random_tensor(datatype, shape, np.random.default_rng(1))
    assert array.dtype == np.dtype(DTYPES[datatype])
    assert array.shape == tuple(abs(size) for size in shape)


def read(text: str, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2)) -> Any:
    return read_argument("x", text, datatype, shape, np.random.default_rng(0))


def test_json_and_random() -> None:
    array = read("[[1, 2.5]]")
    assert (array.dtype, array.tolist()) == (np.float32, [[1.0, 2.5]])
    assert read("[true, false]", "BOOL").tolist() == [True, False]
    assert read('["a", "b"]', "BYTES").tolist() == ["a", "b"]
    assert read("[[9223372036854775807]]", "INT64").tolist() == [[2**63 - 1]]
    assert read("random").shape == (1, 2)
    assert read("random", "BYTES").tolist() == [[b"text", b"text"]]


@pytest.mark.parametrize(("text", "datatype"), [
    ("[1,", "FP32"), ("[[1], [2, 3]]", "FP32"), ("nonsense", "INT8"), ('{"a": 1}', "FP32"), ('["a"]', "INT32"),
    ("[300]", "UINT8"), ("[-1]", "UINT64"), ("[1.5]", "INT32"), ("@/nowhere.npy", "FP32")])
def test_what_is_refused(text: str, datatype: str) -> None:
    with pytest.raises(InvalidArgument, match="input 'x'"):
        read(text, datatype)


def test_files(tmp_path: Path) -> None:
    notes = tmp_path / "notes.npy"
    notes.write_text("notes")
    with pytest.raises(InvalidArgument, match=r"notes\.npy is not an array that numpy\.save wrote"):
        read(f"@{notes}")
    good, wrong, words = tmp_path / "good.npy", tmp_path / "wrong.npy", tmp_path / "words.npy"
    np.save(good, np.ones((1, 2), np.float32))
    np.save(wrong, np.ones((1, 2)))
    np.save(words, np.array(["a", "bc"]))
    assert read(f"@{good}").tolist() == [[1.0, 1.0]]
    assert encode(read(f"@{words}", "BYTES"), "BYTES") == b"\1\0\0\0a\2\0\0\0bc"
    with pytest.raises(InvalidArgument, match=r"holds float64, expected FP32; convert it with .astype\('float32'\)"):
        read(f"@{wrong}")
