"""What is read of a model file is what the `onnx` package reads of it; a part of a file is told from a whole one."""

import onnx
import pytest
from onnx import helper

from infer._core.onnx_facts import onnx_facts
from tests.support import models

MODELS = {"identity": models.identity(), "every": models.every_identity(), "dense": models.dense(),
          "zipmap": models.zipmap(), "sequence": models.sequence(), "fixed": models.fixed_rows(),
          "unranked": models.identity(dims=None), "scalar": models.scalar(), "unnamed": models.identity(dims=(None, 4))}


def dims_of(info: onnx.ValueInfoProto) -> tuple[int | str | None, ...] | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim)


@pytest.mark.parametrize("name", MODELS)
def test_as_the_onnx_package_reads_it(name: str) -> None:
    content = MODELS[name]
    parsed = onnx.load_model_from_string(content)
    facts = onnx_facts(content)
    assert facts is not None
    assert facts["ir_version"] == parsed.ir_version
    assert facts["producer"] == parsed.producer_name
    assert facts["opsets"] == {each.domain: each.version for each in parsed.opset_import}
    for kind, infos in (("inputs", parsed.graph.input), ("outputs", parsed.graph.output)):
        expected = [(each.name, each.type.WhichOneof("value").removesuffix("_type"), each.type.tensor_type.elem_type,
                     dims_of(each)) for each in infos]
        assert facts[kind] == expected      # type: ignore[literal-required]
    assert facts["zipmap"] == (name == "zipmap")


def test_what_the_exporter_said() -> None:
    parsed = onnx.load_model_from_string(models.dense())
    parsed.producer_version, parsed.domain, parsed.model_version = "2.3", "com.example", 7
    helper.set_model_props(parsed, {"author": "Ä", "empty": ""})
    facts = onnx_facts(parsed.SerializeToString())
    assert facts is not None
    assert (facts["producer"], facts["producer_version"], facts["domain"]) == ("tests", "2.3", "com.example")
    assert facts["model_version"] == 7
    assert facts["metadata"] == {"author": "Ä", "empty": ""}
    assert facts["weight_bytes"] >= 15 * 4


def test_an_initializer_is_no_input() -> None:
    parsed = onnx.load_model_from_string(models.dense())
    parsed.graph.input.append(helper.make_tensor_value_info("weight", onnx.TensorProto.FLOAT, (4, 3)))
    facts = onnx_facts(parsed.SerializeToString())
    assert facts is not None
    assert [each[0] for each in facts["inputs"]] == ["x"]


@pytest.mark.parametrize("name", MODELS)
def test_a_part_of_a_file_is_none(name: str) -> None:
    parsed = onnx.load_model_from_string(MODELS[name])
    del parsed.opset_import[1:]
    content = parsed.SerializeToString()
    assert onnx_facts(content) is not None
    assert [size for size in range(len(content)) if onnx_facts(content[:size]) is not None] == []


@pytest.mark.parametrize("content", [b"", b"\0", b"model", b"\x08\x08", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_is_no_model(content: bytes) -> None:
    assert onnx_facts(content) is None


def test_damage_inside_is_survived() -> None:
    """Whatever a byte is replaced by, the answer is facts or None."""
    content = models.zipmap()
    for at in range(len(content)):
        for value in (0, 0x7F, 0xFF):
            onnx_facts(content[:at] + bytes([value]) + content[at + 1:])
