"""config.pbtxt: what is honoured becomes settings, everything else is said, with its place and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer.config_values import PROVIDERS
from infer.models.config_pbtxt import CONFIG_BYTES_MAX, Configured, parse_config, read_config
from infer.models.settings import (
    HISTOGRAMS,
    ModelSettings,
    QueuePolicy,
    TensorSetting,
    VersionPolicy,
    Warmup,
    WarmupInput,
)
from infer.observe import version_metrics

FULL = """
name: "m"
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size: 16
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 4 ] },
  { name: "words" data_type: TYPE_STRING dims: [ 1 ] reshape { shape: [ ] } optional: true }
]
output { name: "y" data_type: TYPE_INT64 dims: [ -1, 6 ] reshape { shape: [ -1, 2, 3 ] } }
version_policy { specific { versions: [ 3, 1, 3 ] } }
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] }, { count: 1 kind: KIND_GPU gpus: [ 1 ] } ]
dynamic_batching {
  preferred_batch_size: [ 8, 4 ]
  max_queue_delay_microseconds: 100
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy { max_queue_size: 10 default_timeout_microseconds: 5 timeout_action: DELAY }
  priority_queue_policy { key: 1 value { allow_timeout_override: true } }
}
model_warmup {
  name: "w" batch_size: 4
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 4 ] random_data: true } }
  inputs { key: "words" value { data_type: TYPE_STRING dims: [ 1 ] input_data_file: "words" } }
}
response_cache { enable: true }
optimization {
  graph { level: 1 }
  execution_accelerators {
    gpu_execution_accelerator { name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } }
    cpu_execution_accelerator { name: "openvino" }
  }
}
parameters { key: "intra_op_thread_count" value { string_value: "3" } }
default_model_filename: "net.onnx"
model_metrics { metric_control {
  metric_identifier { family: "infer_batch_rows" } histogram_options { buckets: [ 1, 2, 4 ] }
} }
"""


def parse(text: str, name: str = "m") -> Configured:
    return parse_config(text, "config.pbtxt", name)


def said(text: str, name: str = "m") -> list[str]:
    return [str(problem) for problem in parse(text, name).problems]


def test_every_honoured_field() -> None:
    settings, problems = parse(FULL)
    assert problems == []
    assert settings == ModelSettings(
        "m", filename="net.onnx", max_batch_size=16,
        inputs=(TensorSetting("x", "FP32", (4,)), TensorSetting("words", "BYTES", (1,), (), True)),
        outputs=(TensorSetting("y", "INT64", (-1, 6), (-1, 2, 3)),), policy=VersionPolicy("specific", versions=(3, 1)),
        instances=3, kind="gpu", gpus=(0, 1), dynamic_batching=True, preferred_batch_sizes=(4, 8),
        max_queue_delay_us=100, queue=QueuePolicy(10, 5, "delay"), priority_levels=2, default_priority=2,
        priority_queues={1: QueuePolicy(allow_timeout_override=True)},
        warmups=(Warmup("w", 4, 1, (WarmupInput("words", "BYTES", (1,), "file", "words"),
                                    WarmupInput("x", "FP32", (4,), "random"))),),
        response_cache=True, graph_optimization="extended",
        providers=(("tensorrt", {"trt_fp16_enable": "1"}), ("openvino", {})),
        parameters={"intra_op_thread_count": "3"}, histogram_buckets={"infer_batch_rows": (1.0, 2.0, 4.0)},
        origin="config.pbtxt:1")
    assert {name for name, _ in settings.providers} <= set(PROVIDERS)
    assert settings.intra_op == 3
    assert settings.place_of("max_batch_size") == "config.pbtxt:5:1"
    assert settings.place_of("inputs.words.dims") == "config.pbtxt:8:50"
    assert settings.place_of("queue") == "config.pbtxt:18:3"
    assert settings.place_of("labels") == "config.pbtxt:1"


def test_nothing_written_says_nothing() -> None:
    settings, problems = parse("")
    assert (settings, problems) == (ModelSettings("m", origin="config.pbtxt:1"), [])
    assert settings is not None
    assert settings.places == {}


def test_zero_that_was_written_is_told_from_nothing() -> None:
    settings = parse("max_batch_size: 0").settings
    assert settings is not None
    assert settings.max_batch_size == 0


@pytest.mark.parametrize(("text", "policy"), [
    ("", VersionPolicy()), ("version_policy { }", VersionPolicy()), ("version_policy { latest { } }", VersionPolicy()),
    ("version_policy { latest { num_versions: 3 } }", VersionPolicy("latest", 3)),
    ("version_policy: { all: { } }", VersionPolicy("all")),
    ("version_policy < specific < versions: 2 versions: 1 > >", VersionPolicy("specific", versions=(2, 1))),
])
def test_version_policies(text: str, policy: VersionPolicy) -> None:
    settings = parse(text).settings
    assert settings is not None
    assert settings.policy == policy


@pytest.mark.parametrize(("text", "problem"), [
    ('max_bach_size: 8', "1:1: max_bach_size: is no field of ModelConfig; did you mean 'max_batch_size'? [E102]"),
    ('input { nmae: "x" name: "x" data_type: TYPE_FP32 dims: 1 }',
     "1:9: input[0].nmae: is no field of ModelInput; did you mean 'name'? [E102]"),
    ('max_batch_size: -1', "1:1: max_batch_size: expected rows from 1 to 1048576, or 0 for no batching, got -1; "
     "correct the value [E103]"),
    ('max_batch_size: "8"', "1:1: max_batch_size: expected a whole number from -2147483648 to 2147483647, got \"8\"; "
     "leave the quotes out [E103]"),
    ('name: m', '1:1: name: expected text in quotes, got m; write "m" [E103]'),
    ('name: "n"', "1:1: name: expected 'm', as the model's directory is called, got 'n'; rename one of them, or leave "
     "the field out [E108]"),
    ('name: "m"\nname: "m"', "2:1: name: is given twice; leave one of them [E105]"),
    ('version_policy { all { } latest { } }',
     "1:26: version_policy.latest: is given beside 'all'; leave one of them [E105]"),
    ('version_policy { specific { } }', "1:18: version_policy.specific: names no version; write versions: [1] [E106]"),
    ('version_policy { specific { versions: [1, 0] } }',
     "1:43: version_policy.specific.versions[1]: expected a version's number from 1, got 0; correct the value [E103]"),
    ('version_policy { latest { num_versions: 0 } }',
     "1:27: version_policy.latest.num_versions: expected a whole number from 1, got 0; correct the value [E103]"),
    ('platform: "tensorflow_savedmodel"',
     "1:1: platform: expected 'onnxruntime_onnx', got 'tensorflow_savedmodel'; convert it: python -m tf2onnx.convert "
     "--saved-model DIRECTORY --output model.onnx; then write 'onnxruntime_onnx' [E107]"),
    ('platform: "onnxruntime_onx"', "1:1: platform: expected 'onnxruntime_onnx', got 'onnxruntime_onx'; did you mean "
     "'onnxruntime_onnx'? [E107]"),
    ('backend: "python"', "1:1: backend: expected 'onnxruntime', got 'python'; export what it computes to ONNX; then "
     "write 'onnxruntime' [E107]"),
    ('backend: "mine"', "1:1: backend: expected 'onnxruntime', got 'mine'; export the model to ONNX and write "
     "'onnxruntime' [E107]"),
    ('default_model_filename: "../net.onnx"', "1:1: default_model_filename: expected a file's name, got "
     "'../net.onnx'; write the name that the file has in every version directory [E103]"),
    ('sequence_batching { }', "1:1: sequence_batching: the state of a sequence is not kept; serve the model without "
     "it and send its state as inputs [E110]"),
    ('max_batch_size 8', "1:16: expected ':' or '{' after 'max_batch_size', got '8'; write max_batch_size: VALUE "
     "[E101]"),
    ('parameters { key: "intra_op_thread_count" value { string_value: "many" } }',
     "1:1: parameters[intra_op_thread_count]: expected a whole number from 0 in quotes, got 'many'; "
     "correct the value [E103]"),
    ('optimization { graph { level: 3 } }', "1:24: optimization.graph.level: expected -1 (basic), 0 (all), 1 "
     "(extended) or 2 (none), got 3; correct the value [E103]"),
    ('response_cache: true', "1:1: response_cache: expected a message: { ... }, got true; correct the value [E103]"),
    ('max_batch_size { }', "1:1: max_batch_size: expected a whole number from -2147483648 to 2147483647, got a "
     "message; write max_batch_size: VALUE [E103]"),
])
def test_one_error(text: str, problem: str) -> None:
    found = parse(text)
    assert [str(each) for each in found.problems] == [f"config.pbtxt:{problem}"]
    assert found.settings is None


@pytest.mark.parametrize(("written", "meant"), [
    ("FP32", "TYPE_FP32"), ("TYPE_FLOAT32", "TYPE_FP32"), ("float", "TYPE_FP32"), ("double", "TYPE_FP64"),
    ("TYPE_BYTES", "TYPE_STRING"), ("int64", "TYPE_INT64"), ("DT_FLOAT", "TYPE_FP32"), ("half", "TYPE_FP16"),
    ("TYPE_UINT_8", "TYPE_UINT8"),
])
def test_a_wrong_datatype_is_named_with_the_right_one(written: str, meant: str) -> None:
    assert said(f'input {{ name: "x" data_type: {written} dims: 4 }}') == [
        f"config.pbtxt:1:19: input[0].data_type: expected {meant}, got {written}; write {meant} [E104]"]


def test_a_quoted_datatype_and_one_that_means_nothing() -> None:
    assert said('input { name: "x" data_type: "TYPE_FP32" dims: 4 }') == [
        'config.pbtxt:1:19: input[0].data_type: expected TYPE_FP32, got "TYPE_FP32"; write TYPE_FP32 without quotes '
        '[E104]']
    (text,) = said('input { name: "x" data_type: ZZ dims: 4 }')
    assert "TYPE_BOOL, TYPE_UINT8" in text
    assert "TYPE_INVALID" not in text


@pytest.mark.parametrize(("text", "problem"), [
    ('', "1:1: input[0].name: is missing; name the model's tensor [E106]"),
    ('name: "x" dims: 4', "1:1: input[0].data_type: is missing; write data_type: TYPE_FP32, or the model's own [E106]"),
    ('name: "x" data_type: TYPE_FP32', "1:1: input[0].dims: is missing; write the shape without the batch dimension; "
     "of one value a row: dims: [1] with reshape { shape: [] } [E106]"),
    ('name: "x" data_type: TYPE_FP32 dims: [4, 0]',
     "1:50: input[0].dims[1]: expected a size from 1, or -1 for any, got 0; correct the value [E103]"),
    ('name: "x" data_type: TYPE_FP32 dims: 4 reshape { shape: 5 }',
     "1:58: input[0].reshape.shape: expected as many elements as dims [4] has, dims of any size at the same places, "
     "got [5]; write another order of sizes with the same product [E109]"),
])
def test_a_tensor_with_an_error(text: str, problem: str) -> None:
    assert f"config.pbtxt:{problem}" in said(f"input {{ {text} }}")


def test_a_tensor_twice() -> None:
    tensor = 'input { name: "x" data_type: TYPE_FP32 dims: 4 }\n'
    assert said(tensor * 2) == ["config.pbtxt:2:1: input[1]: input 'x' is given twice; leave one of them [E105]"]


@pytest.mark.parametrize(("text", "problem"), [
    ("preferred_batch_size: [4, 9]", "[1]: expected rows from 1 to max_batch_size, 8, got 9; correct the value [E103]"),
    ("max_queue_delay_microseconds: 10000001", "microseconds up to 10000000, got 10000001; correct the value [E103]"),
    ("priority_levels: 3", "default_priority_level: expected a level from 1 to 3, got 0; write which level a request "
     "without one has [E109]"),
    ("default_priority_level: 1", "there are no priority levels; write priority_levels too [E109]"),
    ("priority_levels: 65 default_priority_level: 1", "expected at most 64, got 65; correct the value [E103]"),
    ("priority_queue_policy { key: 1 }", "expected priority_levels beside it, got 1; change one of them [E109]"),
    ("priority_levels: 1 default_priority_level: 1 priority_queue_policy { key: 2 }",
     "expected a level from 1 to 1, got 2; change one of them [E109]"),
])
def test_scheduling_with_an_error(text: str, problem: str) -> None:
    (only,) = said(f"max_batch_size: 8 dynamic_batching {{ {text} }}")
    assert problem in only


def test_batching_of_a_model_that_does_not_batch_is_said() -> None:
    assert said("max_batch_size: 0 dynamic_batching { }") == [
        "config.pbtxt:1:19: dynamic_batching: gathers nothing with max_batch_size: 0, though its queue policies and "
        "priorities count; write a max_batch_size from 1, or leave the rest out [W102]"]


@pytest.mark.parametrize(("text", "problem"), [
    ("count: 0", "instance_group[0].count: expected a whole number from 1 to 1024, got 0; correct the value [E103]"),
    ("kind: KIND_CPU gpus: 0", "names GPUs for instances that run on none"),
    ("kind: KIND_GPU gpus: -1", "expected a device's number from 0, got -1"),
    ("kind: GPU", "expected KIND_GPU, got GPU; write KIND_GPU [E104]"),
    ("kind: KIND_MODEL", "taken as KIND_AUTO [W102]"),
    ("kind: KIND_CPU } instance_group { kind: KIND_GPU", "a model runs on devices of one kind"),
])
def test_instance_groups(text: str, problem: str) -> None:
    (only,) = said(f"instance_group {{ {text} }}")
    assert problem in only


@pytest.mark.parametrize(("text", "problem"), [
    ("name: \"w\" batch_size: 0", ".batch_size: expected a whole number from 1, got 0; correct the value [E103]"),
    ('inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 } }', "says no data"),
    ('inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 zero_data: false } }', "says no data"),
    ('inputs { key: "x" value { data_type: TYPE_FP32 dims: -1 zero_data: true } }', "expected a size from 1, got -1"),
    ('inputs { key: "x" value { dims: 1 zero_data: true } }', "data_type: is missing"),
    ('inputs { key: "x" value { data_type: TYPE_FP32 input_data_file: "../x" } }',
     "expected a file in the model's `warmup` directory, got '../x'"),
])
def test_warm_ups_with_an_error(text: str, problem: str) -> None:
    (only,) = said(f"model_warmup {{ {text} }}")
    assert problem in only


@pytest.mark.parametrize(("buckets", "problem"), [
    ("", "expected 1 to 64 upper bounds, got 0"), ("2, 1", "expected rising upper bounds above 0"),
    ("0, 1", "expected rising upper bounds above 0"), ("1, inf", "expected rising upper bounds above 0"),
])
def test_buckets_with_an_error(buckets: str, problem: str) -> None:
    (only,) = said('model_metrics { metric_control { metric_identifier { family: "infer_batch_rows" } '
                   f'histogram_options {{ buckets: [{buckets}] }} }} }}')
    assert problem in only


def test_buckets_of_triton_and_of_nothing() -> None:
    text = ('model_metrics {{ metric_control {{ metric_identifier {{ family: "{}" }} '
            "histogram_options {{ buckets: 5 }} }} }}")
    settings, problems = parse(text.format("nv_inference_first_response_histogram_ms"))
    assert settings is not None
    assert (settings.histogram_buckets, problems) == ({"infer_request_seconds": (0.005,)}, [])
    (only,) = said(text.format("nv_other"))
    assert "there is no histogram 'nv_other'" in only
    assert tuple(each.name for each in version_metrics._HISTOGRAMS) == HISTOGRAMS


@pytest.mark.parametrize(("text", "problem"), [
    ('metric_tags { key: "a" value: "b" }', "1:1: metric_tags[a]: is not honoured: metrics have the labels model and "
     "version [W101]"),
    ("optimization { input_pinned_memory { enable: true } }", "1:16: optimization.input_pinned_memory: is not "
     "honoured: the execution provider decides which memory is pinned [W101]"),
    ("dynamic_batching { preserve_ordering: true }", "1:20: dynamic_batching.preserve_ordering: is not honoured: "
     "replies go out as their batches finish [W101]"),
    ("model_transaction_policy { decoupled: true }", "1:1: model_transaction_policy: is not honoured: an ONNX model "
     "has one reply to a request [W101]"),
    ("instance_group { count: 1 rate_limiter { } }", "1:27: instance_group[0].rate_limiter: is not honoured [W101]"),
    ("model_repository_agents { }", "1:1: model_repository_agents: is not honoured [W101]"),
    ('runtime: "r"', "1:1: runtime: is not honoured [W101]"),
    ('parameters { key: "mine" value { string_value: "1" } }', "1:1: parameters[mine]: is answered by ModelConfig and "
     "otherwise not honoured [W101]"),
    ('optimization { execution_accelerators { cpu_execution_accelerator { name: "xnnpack" } } }',
     "1:69: optimization.execution_accelerators.cpu_execution_accelerator[0].name: accelerator 'xnnpack' is not "
     "honoured; write one of cuda, tensorrt, openvino [W101]"),
    ('parameters { key: "a.b]" value { } } parameters { key: "a.b]" value { string_value: "1" } }',
     "1:38: parameters[a.b]]: is given twice, the last one counts; leave one of them [W102]"),
])
def test_a_field_that_is_not_honoured(text: str, problem: str) -> None:
    found = parse(text)
    assert str(found.problems[0]) == f"config.pbtxt:{problem}"
    assert found.settings is not None


def test_what_is_written_as_it_is_anyway_gets_no_warning() -> None:
    assert said("dynamic_batching { preserve_ordering: false } model_transaction_policy { decoupled: false }"
                "input { name: 'x' data_type: TYPE_FP32 dims: 1 format: FORMAT_NONE allow_ragged_batch: false }"
                'parameters { key: "execution_mode" value { string_value: "0" } }') == []


def test_all_problems_come_in_one_pass() -> None:
    text = 'name: "n"\nplatfrm: ""\ninput { name: "x" data_type: FP32 dims: 0 }\nmetric_tags { key: "a" }\n'
    assert [(each.code, each.place) for each in parse(text).problems] == [
        ("E102", "config.pbtxt:2:1"), ("E104", "config.pbtxt:3:19"), ("E108", "config.pbtxt:1:1"),
        ("E103", "config.pbtxt:3:35"), ("W101", "config.pbtxt:4:1")]


def test_reading(tmp_path: Path) -> None:
    file = tmp_path / "config.pbtxt"
    file.write_text("max_batch_size: 4")
    settings = read_config(file, "m").settings
    assert settings is not None
    assert (settings.max_batch_size, settings.base, settings.origin) == (4, tmp_path, f"{file}:1")
    file.write_bytes(b"\xff")
    assert [str(each) for each in read_config(file, "m").problems] == [
        f"{file}: expected UTF-8 text, got other bytes; write the file in UTF-8 [E101]"]
    file.write_bytes(b"#" * (CONFIG_BYTES_MAX + 1))
    assert read_config(file, "m").problems[0].code == "E100"
    file.write_bytes(b"#" * CONFIG_BYTES_MAX)
    assert read_config(file, "m").problems == []
    file.unlink()
    file.symlink_to("nothing")
    assert "No such file" in str(read_config(file, "m").problems[0])
