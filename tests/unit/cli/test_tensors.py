"""Tensors of our clients: to the wire and back, and what a command line may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infer.cli.tensors import DTYPES, decode, encode, random_tensor, read_argument
from infer.errors import InvalidArgument


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 4)])
def test_round_trip(datatype: str, shape: tuple[int, ...]) -> None:
    array = random_tensor(datatype, shape, np.random.default_rng(1))
    back = decode(encode(array, datatype), datatype, shape)
    assert back.dtype == np.dtype(DTYPES[datatype])
    np.testing.assert_array_equal(back, array)


def test_bytes() -> None:
    array = np.array([[b"a\0", "\u00e9"], [b"", b"xyz"]], np.object_)
    content = encode(array, "BYTES")
    assert content == b"\2\0\0\0a\0\2\0\0\0\xc3\xa9\0\0\0\0\3\0\0\0xyz"
    assert decode(content, "BYTES", (2, 2)).tolist() == [[b"a\0", b"\xc3\xa9"], [b"", b"xyz"]]


@pytest.mark.parametrize(("value", "bits", "back"), [
    (1.0, 0x3F80, 1.0), (-2.5, 0xC020, -2.5), (1 + 2**-9, 0x3F80, 1.0), (1 + 3 * 2**-8, 0x3F82, 1 + 2**-6),
    (float("inf"), 0x7F80, float("inf")), (float("nan"), 0x7FC0, float("nan"))])
def test_bf16_rounds_to_the_nearest(value: float, bits: int, back: float) -> None:
    content = encode(np.array([value], np.float32), "BF16")
    assert int.from_bytes(content, "little") == bits
    decoded = decode(content, "BF16", (1,))
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, [back])


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
