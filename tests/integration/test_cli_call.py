"""`infer call` against a server: what it sends, what it prints, and what it says when something is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from infer.cli.samples import load_sample
from infer.proto import message
from tests.support import models
from tests.support.command import EXAMPLES, Serving, run

FAILED, USAGE = 1, 2


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("repository")
    for name, model in {"dense": models.dense(), "add_sub": models.add_sub(), "string_join": models.string_join(),
                        "brain": models.identity("BF16"), "gather": models.gather(), "scalar": models.scalar()}.items():
        models.write_version(folder, name, 1, model)
    with Serving(folder, EXAMPLES) as serving:
        yield serving.address
        assert serving.stop() == 0, serving.output


def outputs(address: str, *arguments: object) -> dict[str, list[object]]:
    """Data by output, of a call that has to succeed."""
    done = run("call", *arguments, "--address", address, "--json")
    assert done.returncode == 0, done.stderr
    return {output["name"]: output["data"] for output in json.loads(done.stdout)["outputs"]}


@pytest.mark.parametrize(("model", "rows"), [("digits", 8), ("trees", 8)])
def test_sample(address: str, model: str, rows: int) -> None:
    done = run("call", model, "--address", address)
    assert done.returncode == 0, done.stderr
    sample = load_sample(model)
    assert sample is not None
    assert re.match(rf"{model} version 1, \d+\.\d ms\n", done.stdout)
    assert f"label INT64 [{rows}]\n  {sample.expected['label'][:rows]}\n" in done.stdout
    assert done.stdout.endswith(f"truth, from the held-out sample\n  {sample.truth[:rows]}\n")


def test_random_where_there_is_no_sample(address: str) -> None:
    done = run("call", "dense", "--address", address)
    assert done.returncode == 0, done.stderr
    assert "sent x [1, 4]\ny FP32 [1, 3]\n" in done.stdout
    assert "truth" not in done.stdout
    assert len(outputs(address, "dense", "x=random")["y"]) == 3


def test_json(address: str) -> None:
    x = np.array([[1, 2, 3, 4]], np.float32)
    rows, columns = np.indices((4, 3))
    expected = x @ ((rows - columns) / 8) + np.arange(3)
    assert outputs(address, "dense", "x=[[1, 2, 3, 4]]")["y"] == expected.ravel().tolist()
    assert outputs(address, "add_sub", "z=[[1, 1, 1, 1]]", f"x=[[1, 2, 3, {2**62}]]") == {
        "y": [2, 3, 4, 2**62 + 1], "w": [0, 1, 2, 2**62 - 1]}
    assert outputs(address, "scalar", "x=1.5") == {"y": [2.5]}


def test_text(address: str) -> None:
    assert outputs(address, "string_join", r'x=[["", "\u00e9\u0000"]]')["y"] == ["", "\u00e9\0", "", "\u00e9\0"]
    done = run("call", "string_join", 'x=[["a", "b"]]', "--address", address)
    assert "y BYTES [1, 4]\n  [['a' 'b' 'a' 'b']]\n" in done.stdout


def test_bf16(address: str) -> None:
    assert outputs(address, "brain", "x=[[1, -2.5, 0.5, 3]]")["y"] == [1, -2.5, 0.5, 3]


def test_file(address: str, tmp_path: Path) -> None:
    x = np.arange(8, dtype=np.int64).reshape(2, 4)
    np.save(tmp_path / "x.npy", x)
    assert outputs(address, "add_sub", f"x=@{tmp_path / 'x.npy'}", f"z={np.ones((2, 4), int).tolist()}")["y"] == (
        (x + 1).ravel().tolist())


def test_print_request(address: str) -> None:
    from google.protobuf import json_format

    done = run("call", "dense", "x=[[1, 2, 3, 4]]", "--address", address, "--print-request")
    request = json_format.Parse(done.stdout, message("inference.ModelInferRequest")())
    assert (request.model_name, list(request.raw_input_contents)) == (
        "dense", [np.array([1, 2, 3, 4], np.float32).tobytes()])


@pytest.mark.parametrize(("arguments", "told"), [
    (["nobody"], "NOT_FOUND: unknown model 'nobody'; check the name"),
    (["dense", "--version", "7"], "NOT_FOUND: model 'dense' has no version '7'; served: 1"),
    (["dense", "x=[[1, 2]]"], r"INVALID_ARGUMENT: input 'x' of model 'dense': expected FP32 \[-1,4\], got FP32 \[1,2"),
    (["add_sub", "x=random"], "INVALID_ARGUMENT: model 'add_sub': expected input 'z', got none; send every input"),
    (["gather", "x=[[99]]"], "INVALID_ARGUMENT: model 'gather' version 1 failed on this request"),
])
def test_what_the_server_refuses(address: str, arguments: list[str], told: str) -> None:
    done = run("call", *arguments, "--address", address)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert re.match(f"infer call: {told}", done.stderr), done.stderr


@pytest.mark.parametrize(("arguments", "told"), [
    (["dense", "q=random"], r"dense has no input 'q'; its inputs are x FP32 \[-1, 4\]"),
    (["dense", "x"], r"'x': expected NAME=@FILE\.npy, NAME=random or NAME=JSON"),
    (["dense", "x=[[1, 2"], r"input 'x': expected @file\.npy, random or JSON of FP32, got '\[\[1, 2'"),
    (["dense", "x=@nowhere.npy"], r"input 'x': nowhere\.npy cannot be read: No such file"),
    (["dense", "x=@notes.txt"], r"input 'x': notes\.txt is not an array that numpy\.save wrote"),
    (["dense", "x=@doubles.npy"], r"input 'x': doubles\.npy holds float64, expected FP32; convert it with \.astype"),
    (["add_sub", "x=[[1.5]]"], r"input 'x': \[\[1\.5\]\] does not fit into INT64"),
])
def test_what_is_wrong_with_the_command(address: str, tmp_path: Path, arguments: list[str], told: str) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    np.save(tmp_path / "doubles.npy", np.zeros((1, 4)))
    done = run("call", *arguments, "--address", address, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert re.search(told, " ".join(done.stderr.split())), done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_answers() -> None:
    done = run("call", "dense", "--address", "127.0.0.1:1", "--timeout", "5")
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert done.stderr.startswith("infer call: UNAVAILABLE: no server answers at 127.0.0.1:1; start one with infer")


def test_bench(address: str) -> None:
    done = run("bench", "digits", "--address", address, "--duration", "0.3", "--warmup", "0", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["ok"] == figures["sent"] > 0
