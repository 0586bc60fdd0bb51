"""An unmodified tritonclient, in an environment of its own, gets what onnxruntime gives when it is run directly."""

from __future__ import annotations

import ctypes
import json
import math
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest

from tests.conformance.cases import BATCHED_BURSTS, CASES, MAX_BATCH_SIZE, MODELS, Case
from tests.conformance.serving import MTLS, TLS, models, on_localhost, security
from tests.conformance.tools import python_environment
from tests.support.command import Serving, environment
from tests.support.models import write_version

pytestmark = pytest.mark.conformance

REQUIREMENTS = ("tritonclient[grpc]==2.73.*", "protobuf<7")
SCRIPT = Path(__file__).parent / "clients" / "triton_script.py"
CLIENTS = ("sync", "aio")
STREAMS = ("sync stream", "aio stream")
SECONDS = 120
BFLOAT16 = 16       # ONNX's number of the type
DELAY_US = 5_000    # a client in Python is slow: without a delay its calls would hardly ever meet

# What metadata cannot say otherwise: an empty shape would mean 0-d.
UNKNOWN_RANKS = {("unknown_rank", "x"), ("unknown_rank", "y"), ("reshape", "y")}

Array = Any


class Run(NamedTuple):
    """What the client got: arrays by "<client>/<case>/<output>", facts by "<client>/<case>"."""

    arrays: dict[str, Array]
    notes: dict[str, Any]
    metrics: str


@pytest.fixture(scope="module")
def triton_python() -> Path:
    return python_environment("tritonclient", REQUIREMENTS)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    for name, model in MODELS.items():
        write_version(folder, name, 1, model)
    return folder


@pytest.fixture(scope="module")
def server(triton_python: Path, repository: Path) -> Iterator[Serving]:
    with Serving(repository, "--max-batch-size", MAX_BATCH_SIZE, "--max-queue-delay-us", DELAY_US) as serving:
        yield serving
        assert serving.stop() == 0, serving.output


def run_cases(python: Path, address: str, folder: Path, tls: Sequence[Path] = ()) -> tuple[dict[str, Array], Any]:
    """All cases, sent by one run of the client's script: arrays and notes."""
    cases, arrays = folder / "cases.json", folder / "arrays.npz"
    replies, notes = folder / "replies.npz", folder / "notes.json"
    sent = {f"{number}/{name}": array for number, case in enumerate(CASES) for name, (_, array) in case.inputs.items()}
    np.savez(arrays, **sent)
    cases.write_text(json.dumps([{
        "kind": case.kind, "name": case.name, "model": case.model, "version": case.version, "outputs": case.outputs,
        "request_id": case.request_id, "parameters": case.parameters, "priority": case.priority,
        **({"timeout": case.timeout} if case.timeout else {}),
        "inputs": [[name, datatype, f"{number}/{name}"] for name, (datatype, _) in case.inputs.items()],
    } for number, case in enumerate(CASES)]))
    done = subprocess.run([python, "-I", SCRIPT, address, cases, arrays, replies, notes, *tls],
                          env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(replies, allow_pickle=True) as loaded:
        return dict(loaded), json.loads(notes.read_text())


@pytest.fixture(scope="module")
def result(triton_python: Path, server: Serving, tmp_path_factory: pytest.TempPathFactory) -> Run:
    arrays, notes = run_cases(triton_python, server.address, tmp_path_factory.mktemp("tritonclient"))
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as page:
        return Run(arrays, notes, page.read().decode())


@pytest.mark.parametrize("kind", [TLS, MTLS])
def test_the_same_over_tls(triton_python: Path, repository: Path, result: Run, kind: str, tmp_path: Path) -> None:
    secured = security(kind, tmp_path)
    with models(secured, repository, "--max-batch-size", MAX_BATCH_SIZE) as serving:
        arrays, notes = run_cases(triton_python, on_localhost(serving.address), tmp_path, secured.of_client)
    # Either end may be the first to say that the time is over.
    alone = {f"{client}/{case.name}" for case in CASES for client in (*CLIENTS, *STREAMS)
             if case.kind == "alone" and case.timeout is None}
    assert {key: note for key, note in notes.items() if key in alone} == {
        key: note for key, note in result.notes.items() if key in alone}
    assert arrays.keys() == result.arrays.keys()
    for key, array in arrays.items():
        assert key.rsplit("/", 1)[0] not in alone or same_bits(array, result.arrays[key]), key


def test_printed_lines(triton_python: Path, repository: Path, tmp_path: Path) -> None:
    """The Python lines that the server prints for a model with every type of input."""
    with Serving(repository / "every_identity") as serving:
        first = serving.stdout.index("Python (pip install 'tritonclient[grpc]'):") + 1
        last = next(n for n, line in enumerate(serving.stdout) if line.startswith("  print("))
        lines = "\n".join(line.removeprefix("  ") for line in serving.stdout[first:last + 1])
        done = subprocess.run([triton_python, "-I", "-c", lines], cwd=tmp_path, env=environment(), capture_output=True,
                              text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "[[False]]\n"
        assert serving.stop() == 0


@pytest.fixture(scope="module")
def sessions() -> dict[str, onnxruntime.InferenceSession]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    used = {case.model for case in CASES if case.error is None}
    return {name: onnxruntime.InferenceSession(MODELS[name], options, providers=["CPUExecutionProvider"])
            for name in used}


def directly(session: onnxruntime.InferenceSession, case: Case) -> dict[str, Array]:
    """The outputs that are tensors, by name: BF16 as bits, BYTES as bytes."""
    names = [output.name for output in session.get_outputs() if output.type.startswith("tensor(")]
    if any(datatype == "BF16" for datatype, _ in case.inputs.values()):
        values = {name: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, BFLOAT16)
                  for name, (_, array) in case.inputs.items()}
        return dict(zip(names, map(_bits, session.run_with_ort_values(names, values)), strict=True))
    arrays = {name: _mapped(array, bytes.decode) if datatype == "BYTES" else array
              for name, (datatype, array) in case.inputs.items()}
    return {name: _mapped(array, str.encode) if array.dtype == np.object_ else array
            for name, array in zip(names, session.run(names, arrays), strict=True)}


def _mapped(array: Array, function: Callable[[Any], Any]) -> Array:
    return np.frompyfunc(function, 1, 1)(array) if array.ndim else np.array(function(array.item()), np.object_)


def _bits(value: onnxruntime.OrtValue) -> Array:
    shape = tuple(value.shape())
    return np.frombuffer(ctypes.string_at(value.data_ptr(), 2 * math.prod(shape)), np.uint16).reshape(shape)


def same_bits(one: Array, other: Array) -> bool:
    if one.dtype == np.object_:
        return bool(one.tolist() == other.tolist())
    return one.tobytes() == other.tobytes()


def good(kind: str) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in CASES if case.error is None and case.kind == kind]


def check(result: Run, sessions: dict[str, onnxruntime.InferenceSession], case: Case, client: str) -> None:
    key = f"{client}/{case.name}"
    note = result.notes[key]
    assert "status" not in note, note
    expected = case.expected if case.expected is not None else directly(sessions[case.model], case)
    wanted = case.outputs if case.outputs is not None else list(expected)
    assert sorted(name for name, _, _ in note["outputs"]) == sorted(wanted)
    for name in wanted:
        got, right = result.arrays[f"{key}/{name}"], expected[name]
        assert (got.dtype, got.shape) == (right.dtype, right.shape), name
        if case.exact:
            assert same_bits(got, right), f"{name}: {got!r} is not {right!r}"
        else:
            np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-6)
    assert (note["model"], note["version"], note["id"]) == (case.model, "1", case.request_id)
    for field, value in case.reply.items():
        assert note[field] == value


@pytest.mark.parametrize("client", [*CLIENTS, *STREAMS])
@pytest.mark.parametrize("case", good("alone"))
def test_alone(result: Run, sessions: dict[str, onnxruntime.InferenceSession], case: Case, client: str) -> None:
    check(result, sessions, case, client)


@pytest.mark.parametrize("client", [*CLIENTS, *STREAMS])
@pytest.mark.parametrize("model", sorted({case.model for case in CASES if case.kind == "burst"}))
def test_under_way_together(result: Run, sessions: dict[str, onnxruntime.InferenceSession], model: str, client: str
                            ) -> None:
    bursts = [case for case in CASES if case.kind == "burst" and case.model == model]
    assert len(bursts) >= 20
    for case in bursts:
        check(result, sessions, case, client)


@pytest.mark.parametrize("model", BATCHED_BURSTS)
def test_rows_of_different_callers_met(result: Run, model: str) -> None:
    def count(family: str) -> float:
        match = re.search(rf'^{family}{{[^}}]*model="{model}"[^}}]*}} ([0-9.e+]+)$', result.metrics, re.M)
        assert match, family
        return float(match[1])

    calls = sum(case.model == model and case.error is None for case in CASES) * len([*CLIENTS, *STREAMS])
    assert 0 < count("infer_batches_total") < calls


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES if case.error])
def test_errors(result: Run, case: Case, client: str) -> None:
    assert case.error is not None
    note = result.notes[f"{client}/{case.name}"]
    status, pattern = case.error
    assert note.get("status") == status, note
    assert re.search(pattern, note["message"], re.S), note["message"]


@pytest.mark.parametrize("client", STREAMS)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES
                                  if case.error and case.timeout is None])
def test_errors_in_a_stream(result: Run, case: Case, client: str) -> None:
    """In its place among the answers, with the text alone."""
    assert case.error is not None
    note = result.notes[f"{client}/{case.name}"]
    assert re.search(case.error[1], note["message"], re.S), note["message"]


@pytest.mark.parametrize("client", CLIENTS)
def test_liveness_and_server_metadata(result: Run, client: str) -> None:
    from infer import __version__

    facts = result.notes[f"{client} facts"]
    assert facts["live"] is True
    assert facts["ready"] is True
    assert facts["unknown_ready"] is False
    assert (facts["server"]["name"], facts["server"]["version"]) == ("infer", __version__)


@pytest.mark.parametrize("model", MODELS)
def test_model_metadata(result: Run, sessions: dict[str, onnxruntime.InferenceSession], model: str) -> None:
    if model not in result.notes["sync facts"]:
        pytest.fail(f"no case calls {model}")
    facts = result.notes["sync facts"][model]
    assert (facts["ready"], facts["ready_1"], facts["ready_7"]) == (True, True, False)
    metadata = facts["metadata"]
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == (model, ["1"], "onnxruntime_onnx")
    if model not in sessions:
        return
    session = sessions[model]
    both = (session.get_inputs(), metadata["inputs"]), (session.get_outputs(), metadata["outputs"])
    for declared, described in both:
        tensors = [tensor for tensor in declared if tensor.type.startswith("tensor(")]
        assert [tensor.name for tensor in tensors] == [tensor["name"] for tensor in described]
        for tensor, seen in zip(tensors, described, strict=True):
            shape = [str(size) if isinstance(size, int) else "-1" for size in tensor.shape]
            assert seen.get("shape", []) == (["-1"] if (model, tensor.name) in UNKNOWN_RANKS else shape)
    if model.startswith("rows_"):
        assert metadata["inputs"][0]["datatype"] == model.removeprefix("rows_")


def test_metadata_of_an_unknown_model(result: Run) -> None:
    facts = result.notes["sync facts"]["nobody"]
    assert facts["status"] == "StatusCode.NOT_FOUND"
