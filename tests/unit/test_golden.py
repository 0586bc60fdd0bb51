"""Golden outputs: files that are none, or say what no version can answer, are reasons against it and no errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from infer import golden
from infer.golden import failure_of

ROW = np.float32([[1, 2]])


class Session:
    """y = x."""

    inputs = (SimpleNamespace(name="x", datatype="FP32", optional=False),)
    outputs = (SimpleNamespace(name="y", datatype="FP32"),)

    def run(self, inputs: list[Any]) -> list[Any]:
        return inputs


def failure(path: Path) -> str:
    session: Any = Session()
    return failure_of(session, path)


def saved(path: Path, output: Any, row: Any = ROW) -> None:
    np.savez(path, **{"input.x": row, "output.y": output})


def damaged(path: Path) -> None:
    saved(path, ROW)
    content = bytearray(path.read_bytes())
    content[content.index(ROW.tobytes())] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(("write", "told"), [
    (lambda path: path.write_bytes(b""), "not a zip file"),
    (lambda path: path.write_bytes(b"PK\x03\x04 and so on"), "not a zip file"),
    (lambda path: path.write_bytes(b"hello"), "not a zip file"),
    (damaged, "Bad CRC-32"),
    (lambda path: saved(path, np.array([["a", "b"]])), "output 'y': expected numbers, got <U1"),
    (lambda path: saved(path, ROW, np.array([["a", "b"]])), "could not convert"),
    (lambda path: saved(path, np.array([[None, 1]], object)), "allow_pickle"),
    (lambda path: saved(path, ROW, np.zeros((1, 2), [("a", "f4"), ("b", "f4")])), "golden.npz: "),
    (lambda path: saved(path, 2 * ROW), "2 of 2 values of output 'y' differ"),
    (lambda path: saved(path, ROW), None),
])
def test_what_speaks_against_a_version(write: Callable[[Path], object], told: str | None, tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    write(path)
    found = failure(path)
    if told is None:
        assert found == ""
    else:
        assert found.startswith(f"{path}: ")
        assert told in found


def test_a_file_that_is_small_until_it_is_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "MOST_BYTES", 1 << 20)
    path = tmp_path / "golden.npz"
    np.savez_compressed(path, **{"input.x": np.zeros((1, 1 << 20), np.float32), "output.y": ROW})
    assert path.stat().st_size < 1 << 16
    assert "expected at most 1048576, such as those of fewer rows" in failure(path)
