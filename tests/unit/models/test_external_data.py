"""External data: what a model file may name beside itself, and every way in which it may not (FAULTS 1c)."""

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from infer._core.external_data import external_entries
from infer.errors import ModelLoadError
from infer.models.external_data import check_external_data
from tests.support import models
from tests.support.engine import runtime, session


def located(location: str | None, *, offset: str = "0", length: str = "48", where: str = "initializer") -> bytes:
    """A model one of whose tensors lies at `location`, in any of the places where ONNX has tensors."""
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[4, 3], data_location=TensorProto.EXTERNAL)
    pairs = {"location": location, "offset": offset, "length": length}
    for key, value in pairs.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    constant = helper.make_node("Constant", [], ["weight"])
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    product = helper.make_node("MatMul", ["x", "weight"], ["y"])
    if where == "initializer":
        graph = helper.make_graph([product], "g", [x], [y], [tensor])
    elif where == "attribute":
        graph = helper.make_graph([constant, product], "g", [x], [y])
    elif where == "attributes":
        several = helper.make_node("Custom", [], ["weight"])
        several.attribute.add(name="values", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
        graph = helper.make_graph([several, product], "g", [x], [y])
    elif where == "subgraph":
        body = helper.make_graph([constant, product], "body", [], [y])
        branch = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
        graph = helper.make_graph([branch], "g", [x], [y])
    elif where in ("sparse values", "sparse indices"):
        sparse = onnx.SparseTensorProto(dims=[4, 3])
        (sparse.values if where == "sparse values" else sparse.indices).CopyFrom(tensor)
        graph = helper.make_graph([product], "g", [x], [y])
        graph.sparse_initializer.append(sparse)
    else:
        graph = helper.make_graph([product], "g", [x], [y])
    model = helper.make_model(graph, ir_version=8)
    if where == "function":
        model.functions.append(helper.make_function("d", "f", ["x"], ["y"], [constant, product], []))
    elif where == "training":
        model.training_info.add().algorithm.node.append(constant)
    encoded: bytes = model.SerializeToString()
    return encoded


PLACES = ["initializer", "attribute", "attributes", "subgraph", "sparse values", "sparse indices", "function",
          "training"]


def check(directory: Path, model: bytes) -> int:
    path = directory / "model.onnx"
    path.write_bytes(model)
    return check_external_data(path)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The model's directory, with a secret beside it."""
    (tmp_path / "secret").write_bytes(bytes(48))
    directory = tmp_path / "home"
    directory.mkdir()
    return directory


def test_model_without_external_data(home: Path) -> None:
    assert check(home, models.dense()) == 0


def test_data_beside_the_model_is_served(home: Path) -> None:
    path = models.write_external_data_model(home / "model.onnx")
    assert check_external_data(path) == (home / "model.onnx.data").stat().st_size
    assert [info.name for info in session(models.dense()).outputs] == ["y"]


@pytest.mark.parametrize("where", PLACES)
def test_every_place_of_a_tensor_is_looked_at(home: Path, where: str) -> None:
    with pytest.raises(ModelLoadError, match="leads out of the model's directory"):
        check(home, located("../secret", where=where))
    (home / "weights").write_bytes(bytes(48))
    assert check(home, located("weights", where=where)) == 48


@pytest.mark.parametrize("location", ["../secret", "x/../../secret", "..", "x/..", "./../secret"])
def test_parent_directories_are_refused(home: Path, location: str) -> None:
    (home / "x").mkdir()
    with pytest.raises(ModelLoadError, match="refused: the path leads out"):
        check(home, located(location))


@pytest.mark.parametrize("location", ["/etc/passwd", "//etc/passwd", "C:\\secret", "\\\\host\\secret", "..\\secret"])
def test_absolute_and_foreign_paths_are_refused(home: Path, location: str) -> None:
    with pytest.raises(ModelLoadError, match="refused: the path is not relative"):
        check(home, located(location))


def link_file(home: Path) -> None:
    (home / "weights").symlink_to(home.parent / "secret")


def link_relative(home: Path) -> None:
    (home / "weights").symlink_to("../secret")


def link_directory(home: Path) -> None:
    (home / "weights").symlink_to(home.parent)


def link_twice(home: Path) -> None:
    (home / "between").symlink_to(home.parent / "secret")
    (home / "weights").symlink_to("between")


@pytest.mark.parametrize(("link", "location"), [
    (link_file, "weights"), (link_relative, "weights"), (link_directory, "weights/secret"), (link_twice, "weights")])
def test_symbolic_links_that_lead_out_are_refused(home: Path, link: Callable[[Path], None], location: str) -> None:
    link(home)
    with pytest.raises(ModelLoadError, match="refused: a symbolic link leads out"):
        check(home, located(location))


def test_symbolic_links_within_the_directory_are_followed(home: Path) -> None:
    (home / "blobs").mkdir()
    (home / "blobs" / "b").write_bytes(bytes(48))
    (home / "weights").symlink_to("blobs/b")
    assert check(home, located("weights")) == 48


def test_hard_links_are_refused(home: Path) -> None:
    os.link(home.parent / "secret", home / "weights")
    with pytest.raises(ModelLoadError, match="refused: the file has 2 names"):
        check(home, located("weights"))


def test_loops_of_links_are_an_error(home: Path) -> None:
    (home / "weights").symlink_to("weights")
    with pytest.raises(ModelLoadError, match=r"weights.*cannot be read"):
        check(home, located("weights"))


@pytest.mark.parametrize("location", ["*/_ORT_MEM_ADDR_/*", "_ORT_MEM_ADDR_", "", "a\0b"])
def test_what_is_no_file_name_is_refused(home: Path, location: str) -> None:
    (home / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (home / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(bytes(48))
    with pytest.raises(ModelLoadError, match="refused: it is not a file name"):
        check(home, located(location))


def test_directories_and_devices_are_refused(home: Path) -> None:
    (home / "weights").mkdir()
    with pytest.raises(ModelLoadError, match="not a regular file"):
        check(home, located("weights"))
    os.mkfifo(home / "pipe")
    with pytest.raises(ModelLoadError, match="not a regular file"):
        check(home, located("pipe"))


def test_missing_data_says_so(home: Path) -> None:
    with pytest.raises(ModelLoadError, match="external data 'weights' is missing; copy it beside the model"):
        check(home, located("weights"))


@pytest.mark.parametrize(("offset", "length", "said"), [
    ("0", "49", "has 48 bytes, the model needs bytes 0 to 49"), ("1", "48", "needs bytes 1 to 49"),
    ("-1", "4", "needs bytes -1 to 3"), ("0", "-4", "needs bytes 0 to -4"), ("x", "48", "not a number"),
    ("99999999999999999999999999", "1", "needs bytes")])
def test_ranges_past_the_file(home: Path, offset: str, length: str, said: str) -> None:
    (home / "weights").write_bytes(bytes(48))
    with pytest.raises(ModelLoadError, match=said):
        check(home, located("weights", offset=offset, length=length))


def test_tensor_that_does_not_say_where(home: Path) -> None:
    with pytest.raises(ModelLoadError, match="does not say in which file"):
        check(home, located(None))


def test_several_locations_of_one_tensor_are_all_checked(home: Path) -> None:
    (home / "weights").write_bytes(bytes(48))
    model = onnx.load_from_string(located("../secret"))
    model.graph.initializer[0].external_data.add(key="location", value="weights")
    with pytest.raises(ModelLoadError, match="leads out"):
        check(home, model.SerializeToString())


def test_tensor_split_over_two_occurrences_of_its_field_is_seen(home: Path) -> None:
    """Protobuf merges a message that comes twice; so must the check."""
    (home / "weights").write_bytes(bytes(48))
    with pytest.raises(ModelLoadError, match="leads out"):
        check(home, located("weights") + located("../secret"))


def test_messages_name_no_directory_of_ours(home: Path) -> None:
    link_file(home)
    for location in ("weights", "missing", "../secret"):
        with pytest.raises(ModelLoadError) as caught:
            check(home, located(location))
        assert str(home.parent) not in caught.value.message


@pytest.mark.parametrize("model", [models.dense()[:-1], models.dense()[:50], b"\xff" * 20, b"not a model"])
def test_cut_files_are_refused(home: Path, model: bytes) -> None:
    with pytest.raises(ModelLoadError, match="is not an ONNX model"):
        check(home, model)


def test_subgraphs_deeper_than_the_bound_are_refused() -> None:
    def nested(body: bytes, tag: int) -> bytes:
        length, prefix = len(body), b""
        while length > 0x7F:
            prefix += bytes([length & 0x7F | 0x80])
            length >>= 7
        return bytes([tag]) + prefix + bytes([length]) + body

    graph = b""
    for _ in range(31):
        graph = nested(nested(nested(graph, 6 << 3 | 2), 5 << 3 | 2), 1 << 3 | 2)   # g of attribute of node
    assert external_entries(nested(graph, 7 << 3 | 2)) == []
    for _ in range(10_000):
        graph = nested(nested(nested(graph, 6 << 3 | 2), 5 << 3 | 2), 1 << 3 | 2)
    assert external_entries(nested(graph, 7 << 3 | 2)) is None


def test_runtime_agrees_on_the_checked_model(home: Path) -> None:
    from infer._core.ort_session import OrtSession

    path = models.write_external_data_model(home / "model.onnx")
    check_external_data(path)
    assert OrtSession(runtime(), path).run([("FP32", (1, 4), bytes(16))]) == session(models.dense()).run(
        [("FP32", (1, 4), bytes(16))])
