"""Gates of a rollout: what may be written, runs beside a budget, and captured calls beside what was captured."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from infer._core.model_version import TensorInfo
from infer.capture_file import CapturedCall, CaptureWriter
from infer.errors import InferError, Internal, InvalidArgument
from infer.gate_plan import GatePlan, parse_gates
from infer.gates import RUNS, WARM_UP_RUNS, Gates
from infer.proto import message
from infer.replayed import MOST_CALLS, answer, replayed
from infer.rollouts import RolloutSettings, parse_rollout

FP32 = 1


def test_what_may_be_written() -> None:
    assert parse_gates(()) == GatePlan()
    assert parse_gates(("latency=800us",)) == GatePlan(0.8)
    assert parse_gates(("latency=1.5s", "replay=a/monday", "differs=0.01", "apart=0.1")) == GatePlan(
        1500.0, "a/monday", 0.01, 0.1)
    settings = parse_rollout({"gates": {"latency": "5ms", "replay": "monday.capture", "differs": 0.01}})
    assert settings.gates == GatePlan(5.0, "monday.capture", 0.01)
    assert RolloutSettings.from_record(settings.to_record()) == settings
    before = {name: value for name, value in settings.to_record().items() if name != "gates"}
    assert RolloutSettings.from_record(before).gates == GatePlan()
    with pytest.raises(ValueError, match="gates: expected limits by kind"):
        parse_rollout({"gates": "latency"})


@pytest.mark.parametrize("wrong", [
    ("speed=1",), ("latency",), ("latency=5",), ("latency=1h",), ("latency=-1ms",), ("latency=1001s",), ("replay=",),
    ("replay=/etc/passwd",), ("replay=../x",), ("replay=a/../../x",), ("replay=.x",), ("differs=0.1",), ("apart=1",),
    ("replay=x", "differs=2"), ("replay=x", "differs=nan"), ("replay=x", "apart=inf"), ("replay=x", "apart=far"),
    ("latency=1ms", "latency=2ms")])
def test_what_is_no_gate(wrong: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match="gate"):
        parse_gates(wrong)


class Session:
    """y = factor * x; a run takes what `seconds` says, on `clock`."""

    def __init__(self, factor: float = 2.0, seconds: Iterator[float] | None = None) -> None:
        self.inputs, self.outputs = [TensorInfo("x", FP32, (-1, 2))], [TensorInfo("y", FP32, (-1, 2))]
        self._factor, self._seconds = factor, seconds
        self.clock, self.runs = 0.0, 0

    def run(self, inputs: list[Any]) -> list[Any]:
        self.runs += 1
        if self._seconds is not None:
            self.clock += next(self._seconds)
        datatype, shape, data = inputs[0]
        rows = np.frombuffer(data, "<f4")
        if (rows == -1).any():
            raise Internal("minus one")
        return [(datatype, shape, (self._factor * rows).astype("<f4").tobytes())]


def entry_of(session: Session, **fields: Any) -> Any:
    return SimpleNamespace(session=session, batched=True, name=b"m", **{
        "inputs": session.inputs, "outputs": session.outputs, **fields})


def lengths(*ms: float) -> Iterator[float]:
    """Warm-up runs, which are of no matter, and those that count."""
    yield from [9.0] * (WARM_UP_RUNS + 1)
    yield from (each / 1e3 for each in ms)


@pytest.mark.parametrize(("ms", "runs", "failure", "told"), [
    ([1.0] * 95 + [50.0] * 5, 100, "", "latency: 95% of the runs within 1 ms"),
    ([50.0] * 5 + [1.0] * 94 + [4.0], 100, "", "latency: 95% of the runs within 4 ms"),
    # It is clear before all of them have run.
    ([1.0] * 10 + [50.0] * 5 + [6.0], 16,
     "latency: more than 5% of 100 runs took longer than 5 ms, one of them 6 ms", "")])
def test_a_budget_of_latency(ms: list[float], runs: int, failure: str, told: str) -> None:
    session = Session(seconds=lengths(*ms))
    found = Gates(RolloutSettings(gates=GatePlan(5.0))).checked(entry_of(session), threading.Event(),
                                                               lambda: session.clock)
    assert found == (failure, told)
    # One is what finds values that the version runs with.
    assert session.runs == 1 + WARM_UP_RUNS + runs
    assert runs <= RUNS


def test_the_golden_inputs_are_what_is_timed(tmp_path: Path) -> None:
    row = np.ones((3, 2), np.float32)
    np.savez(tmp_path / "golden.npz", **{"input.x": row, "output.y": 2 * row})
    session = Session(seconds=iter([0.001] * 200))
    shapes: list[Any] = []
    run = session.run
    session.run = lambda inputs: shapes.append(inputs[0][1]) or run(inputs)     # type: ignore[func-returns-value]
    found = Gates(RolloutSettings(gates=GatePlan(5.0)), tmp_path / "golden.npz").checked(
        entry_of(session), threading.Event(), lambda: session.clock)
    assert found == ("", "golden outputs are as they were; latency: 95% of the runs within 1 ms")
    assert set(shapes) == {(3, 2)}
    wrong = Gates(RolloutSettings(gates=GatePlan(5.0)), tmp_path / "golden.npz").checked(
        entry_of(Session(3.0)), threading.Event())
    assert "values of output 'y' differ" in wrong[0]


def test_checks_that_are_told_to_stop_and_versions_that_run_with_nothing() -> None:
    stopped = threading.Event()
    stopped.set()
    gates = Gates(RolloutSettings(gates=GatePlan(5.0)))
    assert gates.checked(entry_of(Session()), stopped) == ("the rollout has ended meanwhile", "")
    session = Session()
    session.run = lambda inputs: (_ for _ in ()).throw(Internal("no"))      # type: ignore[method-assign]
    assert "put golden.npz beside it" in gates.checked(entry_of(session), threading.Event())[0]


# Captured calls.

def request(values: list[float], *, raw: bool = True, name: str = "x") -> Any:
    made = message("inference.ModelInferRequest")(model_name="m")
    tensor = made.inputs.add(name=name, datatype="FP32", shape=[len(values) // 2, 2])
    if raw:
        made.raw_input_contents.append(np.array(values, "<f4").tobytes())
    else:
        tensor.contents.fp32_contents.extend(values)
    return made


def reply(values: list[float], name: str = "y") -> bytes:
    made = message("inference.ModelInferResponse")(model_name="m")
    made.outputs.add(name=name, datatype="FP32", shape=[len(values) // 2, 2])
    made.raw_output_contents.append(np.array(values, "<f4").tobytes())
    content: bytes = made.SerializeToString()
    return content


def captured(path: Path, calls: list[tuple[bytes, bytes]], *, model: str = "m", redacted: tuple[str, ...] = ()) -> Path:
    writer = CaptureWriter(path, {"format": 1, "model": model, "redacted": list(redacted)})
    for sent, answered in calls:
        writer.add(CapturedCall(0, model, "1", sent, answered))
    writer.close()
    return path


def pairs(*values: float, factor: float = 2.0) -> list[tuple[bytes, bytes]]:
    return [(request([value, value], raw=place % 2 == 0).SerializeToString(), reply([factor * value] * 2))
            for place, value in enumerate(values)]


@pytest.mark.parametrize(("factor", "plan", "failure", "told"), [
    (2.0, GatePlan(replay="x"), "", "0 of 4 captured calls are answered otherwise"),
    (2.02, GatePlan(replay="x"), "4 of 4 captured calls are answered otherwise; at most 0 of them may be, within rtol "
                                 "0.001 and atol 1e-05", ""),
    (2.02, GatePlan(replay="x", differs=1.0), "", "4 of 4 captured calls are answered otherwise"),
    (2.02, GatePlan(replay="x", differs=1.0, apart=0.011), "", "4 of 4 captured calls are answered otherwise"),
    (2.02, GatePlan(replay="x", differs=1.0, apart=0.009), "4 of 4 captured calls are answered otherwise, by up to "
                                                           "0.009901; at most 0.009 is allowed", "")])
def test_calls_are_held_against_what_was_captured(tmp_path: Path, factor: float, plan: GatePlan, failure: str, told: str
                                                  ) -> None:
    path = captured(tmp_path / "x", pairs(1, 2, 3, 4))
    found = replayed(entry_of(Session(factor)), path, plan, rtol=1e-3, atol=1e-5, stopped=lambda: False)
    assert (found.failure, found.told) == (failure, told)


def test_what_a_version_does_not_answer_differs(tmp_path: Path) -> None:
    path = captured(tmp_path / "x", pairs(1, -1, 2, 3))

    def found(differs: float) -> Any:
        return replayed(entry_of(Session()), path, GatePlan(replay="x", differs=differs), rtol=0, atol=0,
                        stopped=lambda: False)

    assert found(0.2).failure.startswith("1 of 4 captured calls are answered otherwise, 1 of them not at all: minus")
    assert found(0.25).failure == ""
    other = captured(tmp_path / "y", [(request([1, 1], name="z").SerializeToString(), reply([2, 2]))])
    assert "it has no input 'z'" in replayed(entry_of(Session()), other, GatePlan(), rtol=0, atol=0,
                                             stopped=lambda: False).failure
    # An output that there is no more cannot be compared.
    gone = captured(tmp_path / "z", [(request([1, 1]).SerializeToString(), reply([2, 2], "w"))])
    far = replayed(entry_of(Session()), gone, GatePlan(replay="z", differs=1, apart=1e9), rtol=0, atol=0,
                   stopped=lambda: False)
    assert "by up to inf" in far.failure


def test_calls_that_cannot_be_read(tmp_path: Path) -> None:
    calls = [(b"\xff", reply([2, 2])), (request([1, 1]).SerializeToString(), b"\xff"), *pairs(1, 2)]
    found = replayed(entry_of(Session()), captured(tmp_path / "x", calls), GatePlan(replay="x"), rtol=0, atol=0,
                     stopped=lambda: False)
    assert found.failure.startswith("2 of 4 captured calls are answered otherwise, 2 of them not at all: call 1 cannot")


def test_files_that_are_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failure(path: Path, *, stopped: bool = False) -> str:
        return replayed(entry_of(Session()), path, GatePlan(), rtol=0, atol=0, stopped=lambda: stopped).failure

    assert failure(captured(tmp_path / "none", [])).endswith("has no calls")
    assert failure(captured(tmp_path / "other", pairs(1), model="n")).endswith("has calls of model 'n'")
    assert "has no contents of x" in failure(captured(tmp_path / "hidden", pairs(1), redacted=("x",)))
    assert failure(captured(tmp_path / "id", pairs(1), redacted=("id",))) == ""
    # What was redacted of the outputs is not compared.
    assert failure(captured(tmp_path / "output", pairs(1, factor=9.0), redacted=("y",))) == ""
    assert failure(captured(tmp_path / "ended", pairs(1)), stopped=True) == "the rollout has ended meanwhile"
    (tmp_path / "no").write_bytes(b"no file of captures")
    with pytest.raises(InferError, match="is no file of captures"):
        failure(tmp_path / "no")
    assert MOST_CALLS == 10_000
    monkeypatch.setattr("infer.replayed.MOST_CALLS", 2)
    assert replayed(entry_of(Session()), captured(tmp_path / "more", pairs(1, 2, 3)), GatePlan(), rtol=0, atol=0,
                    stopped=lambda: False).told.startswith("0 of 2 ")


def test_shapes_that_are_served_are_those_of_the_model_by_its_reshape() -> None:
    session = Session()
    inputs, outputs = [TensorInfo("x", FP32, (-1, 2, 1), reshape=(-1, 2))], [
        TensorInfo("y", FP32, (-1, 1, 2), reshape=(-1, 2))]
    made = request([1, 2, 3, 4])
    made.inputs[0].shape[:] = [2, 2, 1]
    [(_, shape, data)] = answer(entry_of(session, inputs=inputs, outputs=outputs), made.SerializeToString()).values()
    assert shape == (2, 1, 2)
    assert np.frombuffer(data, "<f4").tolist() == [2, 4, 6, 8]
    made.inputs[0].shape[:] = [2, 2]
    with pytest.raises(InvalidArgument, match="a tensor of the shape"):
        answer(entry_of(session, inputs=inputs, outputs=outputs), made.SerializeToString())


@pytest.mark.parametrize(("datatype", "field", "values", "raw"), [
    ("BOOL", "bool_contents", [True, False], b"\1\0"), ("INT8", "int_contents", [-1, 2], b"\xff\2"),
    ("UINT16", "uint_contents", [1, 2], b"\1\0\2\0"), ("INT64", "int64_contents", [-1], b"\xff" * 8),
    ("FP64", "fp64_contents", [math.pi], np.float64(math.pi).tobytes()),
    ("BYTES", "bytes_contents", [b"ab", b""], b"\2\0\0\0ab\0\0\0\0")])
def test_contents_that_are_not_raw(datatype: str, field: str, values: list[Any], raw: bytes) -> None:
    made = message("inference.ModelInferRequest")(model_name="m")
    getattr(made.inputs.add(name="x", datatype=datatype, shape=[len(values)]).contents, field).extend(values)
    seen: list[Any] = []
    session = Session()
    session.run = lambda inputs: seen.extend(inputs) or [("FP32", (0,), b"")]   # type: ignore[func-returns-value]
    answer(entry_of(session), made.SerializeToString())
    assert seen == [(datatype, (len(values),), raw)]


def test_requests_that_cannot_be_run() -> None:
    made = request([1, 1])
    made.raw_input_contents.append(b"")
    with pytest.raises(InvalidArgument, match="1 inputs with the contents of 2"):
        answer(entry_of(Session()), made.SerializeToString())
    made = message("inference.ModelInferRequest")(model_name="m")
    made.inputs.add(name="x", datatype="FP16", shape=[1])
    with pytest.raises(InvalidArgument, match="of FP16 has no contents"):
        answer(entry_of(Session()), made.SerializeToString())
