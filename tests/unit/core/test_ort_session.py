"""Sessions: what loading finds and refuses, and single runs, against what NumPy or the model's own description says."""

import contextlib
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from infer._core import arena
from infer._core._testing_engine import Bench, Call
from infer._core._testing_memory import set_limit
from infer._core.ort_provider import cuda_devices
from infer._core.ort_runtime import Runtime, find_library
from infer._core.ort_session import OrtSession
from infer.errors import ConfigError, Internal, InvalidArgument, ModelLoadError, ResourceExhausted
from tests.support import models
from tests.support.engine import ELEMENT_BYTES, array, runtime, session, strings, tensor, version


def model_of(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> bytes:
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    encoded: bytes = made.SerializeToString()
    return encoded


CONSTANT_OF_SHAPE = model_of([helper.make_node("ConstantOfShape", ["x"], ["y"])],
                             [helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])],
                             [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])


def test_loading_imports_neither_the_runtime_s_package_nor_numpy() -> None:
    code = ("import sys, infer.models.loader; from infer._core.ort_runtime import Runtime; Runtime();"
            "print([name for name in ('onnxruntime', 'onnx', 'numpy') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert runtime().library_path == find_library()


@pytest.mark.parametrize("datatype", models.ELEMENT_TYPES)
@pytest.mark.parametrize("dims", [("batch", 4), (), ("batch", 0), ("batch", "length"), None])
def test_identity_of_every_datatype_and_shape(datatype: str, dims: tuple[int | str, ...] | None) -> None:
    loaded = session(models.identity(datatype, dims))
    info = loaded.inputs[0]
    assert (info.name, info.datatype, info.served) == ("x", datatype, True)
    assert info.shape == (None if dims is None else tuple(dim if isinstance(dim, int) else -1 for dim in dims))
    assert info.symbols == tuple(dim if isinstance(dim, str) else "" for dim in dims or ())
    shape = tuple(3 if isinstance(dim, str) else dim for dim in dims) if dims is not None else (2, 2)
    elements = int(np.prod(shape))
    raw = (strings(*[bytes([i, 0, 255]) * i for i in range(elements)]) if datatype == "BYTES"
           else bytes(i % 2 for i in range(elements * ELEMENT_BYTES[datatype])))
    assert loaded.run([(datatype, shape, raw)]) == [(datatype, shape, raw)]


def test_metadata() -> None:
    made = onnx.load_from_string(models.dense())
    made.producer_name, made.domain, made.doc_string, made.model_version = "me", "example.org", "what it does", 7
    made.metadata_props.add(key="accuracy", value="0.97")
    made.metadata_props.add(key="empty", value="")
    assert session(made.SerializeToString()).metadata == {
        "producer": "me", "graph": made.graph.name, "domain": "example.org", "description": "what it does",
        "version": 7, "custom": {"accuracy": "0.97", "empty": ""}}
    assert session(models.dense()).metadata["version"] == 0


def test_outputs_that_are_no_tensors_are_listed_and_not_served() -> None:
    loaded = session(models.zipmap())
    assert [(info.name, info.datatype, info.served) for info in loaded.outputs] == [
        ("label", "INT64", True), ("probabilities", "FP32", True), ("scores", "SEQUENCE", False)]
    results = loaded.run([tensor(np.array([[1, 5, 2]], np.float32))])
    assert array(results[0]).tolist() == [1]
    assert len(results) == 2


def test_model_without_a_tensor_output_is_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"none of the model's outputs is a tensor: y \(SEQUENCE\).*zipmap"):
        session(models.sequence_only())


@pytest.mark.parametrize(("model", "said"), [
    (b"", "No graph"), (b"garbage", "Protobuf parsing failed"), (models.dense()[:-40], "Protobuf parsing failed"),
    (models.unknown_operator(), "No Op registered for NoSuchOperator")])
def test_file_that_is_no_model_is_refused_without_its_path(model: bytes, said: str) -> None:
    with pytest.raises(ModelLoadError, match=said) as caught:
        session(model)
    assert "/" not in caught.value.message


def test_a_path_need_not_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"m\xff.onnx")
    path.write_bytes(models.dense())
    assert OrtSession(runtime(), path).inputs[0].name == "x"


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="cannot load it"):
        OrtSession(runtime(), tmp_path / "none.onnx")


@pytest.mark.parametrize(("kind", "said"), [
    (helper.make_tensor_type_proto(TensorProto.COMPLEX64, ["b"]), "COMPLEX64"),
    (helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["b"])), "SEQUENCE")])
def test_input_that_cannot_be_sent_is_refused(kind: onnx.TypeProto, said: str) -> None:
    output = helper.make_value_info("y", kind)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b"])
    extra = helper.make_tensor_value_info("w", TensorProto.FLOAT, ["b"])
    model = model_of([helper.make_node("Identity", ["z"], ["y"]), helper.make_node("Identity", ["x"], ["w"])],
                     [helper.make_value_info("z", kind), x], [output, extra])
    with pytest.raises(ModelLoadError, match=rf"input 'z' is of type {said}, which cannot be sent|cannot load it"):
        session(model)


def test_more_than_256_outputs_are_refused() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b"])
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["b"]) for i in range(257)]
    nodes = [helper.make_node("Identity", ["x"], [output.name]) for output in outputs]
    with pytest.raises(ModelLoadError, match="257 outputs, at most 256"):
        session(model_of(nodes, [x], outputs))
    assert len(session(model_of(nodes[:256], [x], outputs[:256])).run([("FP32", (1,), bytes(4))])) == 256


def test_tensor_of_more_than_12_dimensions_is_refused() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1] * 13)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1] * 13)
    with pytest.raises(ModelLoadError, match="13 dimensions, at most 12"):
        session(model_of([helper.make_node("Identity", ["x"], ["y"])], [x], [y]))


def test_optional_input_may_be_left_out() -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["b", 4]))
    model = model_of([helper.make_node("OptionalHasElement", ["x"], ["y"])], [helper.make_value_info("x", kind)],
                     [helper.make_tensor_value_info("y", TensorProto.BOOL, [])])
    loaded = session(model)
    assert loaded.inputs[0].optional
    assert loaded.run([None]) == [("BOOL", (), b"\0")]
    assert loaded.run([("FP32", (1, 4), bytes(16))]) == [("BOOL", (), b"\1")]


def test_bytes_may_hold_nul_and_anything_else() -> None:
    loaded = session(models.string_join())
    row = [b"a\0b", b""], [b"\xff\xfe", b"x" * 70_000]
    raw = strings(*row[0], *row[1])
    assert loaded.run([("BYTES", (2, 2), raw)]) == [("BYTES", (2, 4), strings(*row[0], *row[0], *row[1], *row[1]))]
    assert loaded.run([("BYTES", (0, 2), b"")]) == [("BYTES", (0, 4), b"")]


@pytest.mark.parametrize("raw", [b"", b"\1", strings(b"a"), strings(b"a", b"b", b"c"), struct.pack("<I", 9) + b"a",
                                 strings(b"a", b"b") + b"\0"])
def test_bytes_that_do_not_fit_their_shape_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidArgument, match="BYTES"):
        session(models.identity("BYTES", ("batch",))).run([("BYTES", (2,), raw)])


def test_codes_of_failed_runs() -> None:
    loaded = session(models.gather())
    with pytest.raises(InvalidArgument, match="out of data bounds"):
        loaded.run([tensor(np.array([[99]], np.int64))])
    with pytest.raises(InvalidArgument, match="bytes are not"):
        loaded.run([("INT64", (1, 1), bytes(7))])
    with pytest.raises(InvalidArgument, match="1 inputs, got 0"):
        loaded.run([])
    with pytest.raises(Internal):
        session(CONSTANT_OF_SHAPE).run([tensor(np.array([-1]))])


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer ends the process instead")
def test_f23_memory_that_cannot_be_had_is_resource_exhausted() -> None:
    with pytest.raises(ResourceExhausted, match="allocate"):
        session(CONSTANT_OF_SHAPE).run([tensor(np.array([1 << 44]))])


def test_arena_at_its_limit_is_resource_exhausted_and_leaks_nothing() -> None:
    loaded = session(models.identity("FP32", ("batch", 4)))
    before = arena.stats()["live_bytes"]
    limit = set_limit(before)
    try:
        with pytest.raises(ResourceExhausted):
            loaded.run([("FP32", (1, 4), bytes(16))])
    finally:
        set_limit(limit)
    assert arena.stats()["live_bytes"] == before


def test_outputs_bound_and_unbound_agree() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    z = np.array([[1, -1], [0, 2], [-3, -4]], np.float32)
    entry = version(models.two_in_three_out())
    each = Call(entry, [tensor(x), tensor(z)], rows=3)
    Bench().run([each])
    assert each.outcome == (0, dict(enumerate(session(models.two_in_three_out()).run([tensor(x), tensor(z)]))))


def test_f24_output_of_another_shape_than_declared_is_served_as_it_is() -> None:
    reshaped = model_of([helper.make_node("Reshape", ["x", "s"], ["y"])],
                        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
                         helper.make_tensor_value_info("s", TensorProto.INT64, [2])],
                        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])])
    entry = version(reshaped, batched=False)
    x = np.arange(6, dtype=np.float32)
    calls = [Call(entry, [tensor(x), tensor(np.array(shape))]) for shape in ([2, 3], [3, 2], [2, 3])]
    Bench().run(calls)
    assert [each.outcome[1][0][1] for each in calls] == [(2, 3), (3, 2), (2, 3)]
    assert all(np.array_equal(array(each.outcome[1][0]).ravel(), x) for each in calls)


def test_output_that_is_an_input_is_answered_with_the_input() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    entry = version(model_of([helper.make_node("Identity", ["x"], ["y"])], [x], [y, x]))
    sent = tensor(np.arange(4, dtype=np.float32).reshape(1, 4))
    each = Call(entry, [sent])
    Bench().run([each])
    assert each.outcome == (0, {0: sent, 1: sent})


def test_session_with_threads_of_its_own() -> None:
    loaded = session(models.dense(), intra_op=2)
    assert array(loaded.run([tensor(np.zeros((1, 4), np.float32))])[0]).tolist() == [[0, 1, 2]]


class TestProviders:
    def test_cpu_is_always_there(self) -> None:
        for wanted in ("auto", [], [("cpu", {})], [("CPUExecutionProvider", {})]):
            if not cuda_devices():
                assert session(models.dense(), providers=wanted).providers == [("CPUExecutionProvider", {})]

    @pytest.mark.parametrize("name", ["cuda", "tensorrt", "openvino", "nonsense"])
    def test_one_that_is_not_in_the_library_is_named_with_those_that_are(self, name: str) -> None:
        if any(each.lower().startswith(name) for each in runtime().providers):
            pytest.skip(f"this library has {name}")
        with pytest.raises(ModelLoadError, match=rf"provider {name} is not in the installed.*CPU; install"):
            session(models.dense(), providers=[(name, {})])

    @pytest.mark.parametrize(("wanted", "said"), [
        ([("cpu", {"threads": "1"})], "CPU takes no options, got: threads"),
        ([("cpu", {}), ("CPU", {})], "named twice"),
        ([("cpu", {}), ("azure", {})], "Azure comes after CPU"),
    ])
    def test_lists_that_make_no_sense(self, wanted: list[tuple[str, dict[str, str]]], said: str) -> None:
        with pytest.raises(ModelLoadError, match=said):
            session(models.dense(), providers=wanted)


class TestLibrary:
    def test_other_path_than_loaded(self, tmp_path: Path) -> None:
        runtime()
        with pytest.raises(ConfigError, match="already loaded"):
            Runtime(tmp_path / "libonnxruntime.so")

    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        capi = tmp_path / "onnxruntime" / "capi"
        capi.mkdir(parents=True)
        (capi.parent / "__init__.py").write_text("raise AssertionError('imported')")
        for name in names:
            (capi / name).write_text(name)
        # Another test may have imported the real one, whose spec would be found first.
        monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
        monkeypatch.syspath_prepend(tmp_path)

    def test_none_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.package(tmp_path, monkeypatch)
        with pytest.raises(ConfigError, match=r"holds no libonnxruntime.so; reinstall"):
            find_library()

    def test_several_installed_are_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.package(tmp_path, monkeypatch, "libonnxruntime.so.1.31.1", "libonnxruntime.so.1.32.0",
                     "libonnxruntime_providers_shared.so")
        with pytest.raises(ConfigError, match=r"(?s)2 ONNX Runtime libraries.*1\.31\.1.*1\.32\.0.*--onnxruntime-"):
            find_library()

    def test_links_to_one_library_count_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.package(tmp_path, monkeypatch, "libonnxruntime.so.1.32.0")
        capi = tmp_path / "onnxruntime" / "capi"
        (capi / "libonnxruntime.so.1").symlink_to("libonnxruntime.so.1.32.0")
        assert Path(find_library()).resolve() == capi / "libonnxruntime.so.1.32.0"


def test_cold_runs_take_only_the_time_that_nobody_else_wants() -> None:
    loaded = session(models.slow(), providers=[("cpu", {})])
    running = threading.Thread(target=loaded.run, args=([("INT64", (1, 1), struct.pack("<q", 20_000))],))
    before = {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()}
    assert os.SCHED_IDLE not in before
    running.start()
    seen: set[int] = set()
    while running.is_alive() and os.SCHED_IDLE not in seen:
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):      # it has ended since
                seen.add(os.sched_getscheduler(int(task.name)))
    assert os.SCHED_IDLE in seen
    running.join()
    after = {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()}
    assert os.SCHED_IDLE not in after


def test_threads_of_a_session_s_own_keep_the_ordinary_priority() -> None:
    loaded = session(models.dense(), providers=[("cpu", {})], intra_op=2, inter_op=2, parallel=True)
    assert loaded.run([tensor(np.ones((1, 4), np.float32))])
    assert os.SCHED_IDLE not in {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()}


@pytest.mark.parametrize("level", ["off", "basic", "extended", "all"])
def test_levels_of_optimisation_answer_alike(level: str) -> None:
    x = tensor(np.arange(8, dtype=np.float32).reshape(2, 4))
    assert session(models.dense(), graph_optimization=level).run([x]) == session(models.dense()).run([x])


def test_a_closed_session_runs_nothing() -> None:
    loaded = session(models.dense())
    loaded.close()
    loaded.close()
    with pytest.raises(InvalidArgument, match="the session is closed"):
        loaded.run([tensor(np.ones((1, 4), np.float32))])
