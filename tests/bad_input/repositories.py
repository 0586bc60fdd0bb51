"""Broken repositories, a row each: how to build one, and what has to be said of it.

Every row builds a repository of its own, with a model `m` that is broken in one way; the caller puts a healthy model
beside it, and may rename `m`. `place` is where the problem is, below the repository; `said` are parts of the message:
field, cause, expected, got, fix. `served`: the model is served in spite of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from tests.support import models
from tests.support.models import write_external_data_model, write_model, write_version

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 9\n"
HTML = b"<!DOCTYPE html><html><body>404</body></html>"


@dataclass(frozen=True)
class Row:
    name: str
    build: Callable[[Path], object]
    code: str
    place: str
    said: tuple[str, ...]
    served: bool = False


def files(*paths: str) -> Callable[[Path], None]:
    """Each path with a healthy model in it, or a directory if it ends in /."""
    def build(root: Path) -> None:
        for path in paths:
            if path.endswith("/"):
                (root / path).mkdir(parents=True)
            else:
                write_model(root / path, models.scale())
    return build


def content(data: bytes, path: str = "m/1/model.onnx") -> Callable[[Path], object]:
    return lambda root: write_model(root / path, data)


def beside(*steps: Callable[[Path], object]) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for step in steps:
            step(root)
    return build


def external(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """A model with its data beside it, then changed; the change gets the version's directory."""
    def build(root: Path) -> None:
        write_external_data_model(root / "m/1/model.onnx")
        change(root / "m/1")
    return build


def located(**entries: str | None) -> bytes:
    """A model whose weights are where the entries say."""
    parsed = onnx.load_model_from_string(models.dense())
    weight = parsed.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        if value is not None:
            weight.external_data.add(key=key, value=value)
    return bytes(parsed.SerializeToString())


def link(path: str, target: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    return build


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    parsed = onnx.load_model_from_string(models.scale())
    change(parsed)
    return bytes(parsed.SerializeToString())


def two_symbols() -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["count", 4])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def many_files(directory: Path) -> None:
    for number in range(1001):
        (directory / f"{number}.txt").touch()


def sums(lines: str) -> Callable[[Path], object]:
    def build(root: Path) -> None:
        file = write_version(root, "m", 1, models.scale())
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        (root / "m/1/SHA256SUMS").write_text(lines.replace("GOOD", digest).replace("BAD", "0" * 64))
    return build


def config(text: str | bytes, model: bytes | None = None) -> Callable[[Path], object]:
    def build(root: Path) -> None:
        write_version(root, "m", 1, models.dense() if model is None else model)
        write_model(root / "m/config.pbtxt", text.encode() if isinstance(text, str) else text)
    return build


ONNX = 'backend: "onnxruntime"\n'
X, Y = "input { name: \"x\" data_type: TYPE_FP32 dims: 4 }\n", "output { name: \"y\" data_type: TYPE_FP32 dims: 3 }\n"

LAYOUT = [
    Row("version-v1", files("m/v1/model.onnx"), "E205", "m", ("version", "got v1", "rename v1 to 1")),
    Row("version-01", files("m/01/model.onnx"), "E205", "m", ("version", "got 01", "rename 01 to 1")),
    Row("version-1.0", files("m/1.0/model.onnx"), "E205", "m", ("version", "got 1.0", "rename 1.0 to 1")),
    Row("version-0", files("m/0/model.onnx"), "E205", "m", ("version", "a whole number from 1", "got 0")),
    Row("version-v2-beside-1", files("m/1/model.onnx", "m/v2/model.onnx"), "W201", "m/v2",
        ("left aside", "got v2", "rename it to 2"), served=True),
    Row("version-02-beside-1", files("m/1/model.onnx", "m/02/model.onnx"), "W201", "m/02",
        ("left aside", "got 02", "rename it to 2"), served=True),
    Row("version-of-19-digits", files("m/1000000000000000000/model.onnx"), "E205", "m", ("version", "got 100000")),
    Row("no-version-directory", files("m/model.onnx"), "E205", "m",
        ("model.onnx", "no version directory", "move it to")),
    Row("no-version-directory-other-name", files("m/net.onnx"), "E205", "m", ("net.onnx", "move it to")),
    Row("configuration-alone", content(b"", "m/config.pbtxt"), "E205", "m",
        ("expected a version directory", "got config.pbtxt alone", "put the model at")),
    Row("empty-version", files("m/1/"), "E201", "m/1",
        ("expected model.onnx in it", "got none", "put the model there")),
    Row("empty-newest-version", files("m/1/model.onnx", "m/2/"), "E201", "m/2",
        ("expected model.onnx in it", "got none"), served=True),
    Row("one-level-too-deep", files("m/1/export/model.onnx"), "E201", "m/1",
        ("lies one level deeper", "expected model.onnx in it", "move it up")),
    Row("two-files", files("m/1/a.onnx", "m/1/b.onnx"), "E204", "m/1",
        ("expected model.onnx", "got others, 2: a.onnx, b.onnx", "rename one to model.onnx")),
    Row("other-format", content(b"PK", "m/1/model.pt"), "E201", "m/1", ("expected model.onnx in it", "got none")),
    Row("empty-directory-for-the-file", files("m/1/model.onnx/"), "E204", "m/1/model.onnx",
        ("expected model.onnx in it", "got none", "put the model at")),
    Row("two-files-in-the-directory", files("m/1/model.onnx/a.onnx", "m/1/model.onnx/b.onnx"), "E204",
        "m/1/model.onnx", ("expected model.onnx in it", "got 2: a.onnx, b.onnx")),
    Row("name-with-a-space", files("my model/1/model.onnx"), "E206", "my model",
        ("name", "expected a name of 1 to 128", "got 'my model'", "rename the directory")),
    Row("name-too-long", files("m" * 129 + "/1/model.onnx"), "E206", "m" * 129, ("name", "1 to 128", "rename")),
    Row("file-beside-models", files("m.onnx"), "E204", "m.onnx",
        ("expected either one .onnx or version directories", "got m.onnx beside", "move the file into")),
    Row("too-many-files", beside(files("m/1/model.onnx"), lambda root: many_files(root / "m/1")), "E212", "m/1",
        ("more than 1000 files", "keep to the model's own files")),
    Row("too-deep-directories", files("m/1/model.onnx", "m/1/a/b/c/d/e/x.onnx"), "E212", "m/1",
        ("more than 4 deep", "keep to the model's own files")),
    Row("pipe-for-a-file", beside(files("m/1/"), lambda root: os.mkfifo(root / "m/1/model.onnx")), "E202",
        "m/1/model.onnx", ("is not a regular file",)),
]

LINKS = [
    Row("link-to-a-file-outside", beside(content(models.scale(), "../outside.onnx"),
                                         link("m/1/model.onnx", "../../../outside.onnx")), "E208", "m/1/model.onnx",
        ("is a symbolic link that leads out of",)),
    Row("link-to-a-version-outside", beside(files("../outside/1/model.onnx", "m/2/model.onnx"),
                                            link("m/3", "../../outside/1")), "E208", "m/3",
        ("version", "leads out of", "copy what it stands for"), served=True),
    Row("link-to-a-model-outside", beside(files("../elsewhere/1/model.onnx"), link("m", "../elsewhere")), "E208", "m",
        ("leads out of", "copy what it stands for into the repository")),
    Row("absolute-link-outside", beside(files("m/1/"), link("m/1/model.onnx", "/etc/hostname")), "E208",
        "m/1/model.onnx", ("leads out of",)),
    Row("link-to-nothing", link("m/1/model.onnx", "gone.onnx"), "E202", "m/1/model.onnx",
        ("is a symbolic link to nothing", "put the model's file there")),
    Row("links-in-a-circle", beside(link("m/1/model.onnx", "other.onnx"), link("m/1/other.onnx", "model.onnx")), "E202",
        "m/1/model.onnx", ("Too many levels of symbolic links",)),
    Row("hard-link", beside(content(models.scale(), "../kept.bin"), files("m/1/"),
                            lambda root: os.link(root / "../kept.bin", root / "m/1/model.onnx")), "E208",
        "m/1/model.onnx", ("has 2 names (hard links)", "cp FILE FILE.copy")),
]

CONTENT = [
    Row("empty", content(b""), "E209", "m/1/model.onnx", ("is empty", "write it again")),
    Row("cut-short", content(models.dense()[:-20]), "E209", "m/1/model.onnx",
        ("is not an ONNX model, or only a part of one", "copy or export the model again")),
    Row("cut-short-newest", beside(content(models.scale()), content(models.dense()[:50], "m/2/model.onnx")), "E209",
        "m/2/model.onnx", ("only a part of one",), served=True),
    Row("too-large", beside(content(b""), lambda root: os.truncate(root / "m/1/model.onnx", 1 << 31)), "E308",
        "m/1/model.onnx", ("has 2147483648 bytes", "at most 2147483647", "export its weights beside it")),
    Row("an-image", content(b"\x89PNG\r\n\x1a\n" + bytes(100)), "E209", "m/1/model.onnx", ("is not an ONNX model",)),
    Row("a-web-page", content(HTML), "E209", "m/1/model.onnx", ("is not an ONNX model",)),
    Row("lfs-pointer", content(LFS), "E203", "m/1/model.onnx", ("is a Git LFS pointer", "run: git lfs pull")),
    Row("lfs-pointer-for-data", beside(external(lambda at: (at / "model.onnx.data").write_bytes(LFS + bytes(100)))),
        "E203", "m/1/model.onnx", ("model.onnx.data", "is a Git LFS pointer", "run: git lfs pull")),
    Row("data-missing", external(lambda at: (at / "model.onnx.data").unlink()), "E210", "m/1/model.onnx",
        ("external data", "'model.onnx.data' is missing", "copy it beside the model")),
    Row("data-cut-short", external(lambda at: os.truncate(at / "model.onnx.data", 5)), "E210", "m/1/model.onnx",
        ("has 5 bytes, the model needs", "copy it again")),
    Row("data-outside", content(located(location="../../secret")), "E210", "m/1/model.onnx",
        ("'../../secret' is refused", "leads out", "put the file beside the model")),
    Row("data-by-an-absolute-path", content(located(location="/etc/hostname")), "E210", "m/1/model.onnx",
        ("'/etc/hostname' is refused", "is not relative")),
    Row("data-nowhere", content(located(offset="0")), "E210", "m/1/model.onnx", ("does not say in which file",)),
    Row("data-at-no-number", beside(content(located(location="w", offset="x")), content(b"x", "m/1/w")), "E210",
        "m/1/model.onnx", ("offset or length that is not a number", "export the model again")),
    Row("data-behind-a-link-outside", beside(content(b"secret" * 99, "../secret"), external(
        lambda at: ((at / "model.onnx.data").unlink(), (at / "model.onnx.data").symlink_to("../../../secret")))),
        "E210", "m/1/model.onnx", ("a symbolic link leads out of the model's directory", "copy the file there")),
    Row("data-of-another-version", external(lambda at: (
        shutil.copytree(at, at.parent / "2"), (at / "model.onnx.data").unlink(),
        (at / "model.onnx.data").symlink_to("../2/model.onnx.data"))), "E210", "m/1/model.onnx",
        ("a symbolic link leads out of the model's directory", "copy the file there"), served=True),
    Row("data-with-hard-links", external(lambda at: os.link(at / "model.onnx.data", at / "../../../other")), "E210",
        "m/1/model.onnx", ("has 2 names (hard links)", "cp FILE FILE.copy")),
    Row("checksum-differs", sums("BAD  model.onnx\n"), "E211", "m/1/model.onnx",
        ("SHA256SUMS", "expected SHA-256 000", "got ", "copy the version again")),
    Row("checksum-of-a-missing-file", sums("GOOD  model.onnx\nBAD  gone.txt\n"), "E211", "m/1/model.onnx",
        ("gone.txt: expected SHA-256", "got no such file")),
    Row("checksums-without-the-model", sums("# none\n"), "E211", "m/1/model.onnx", ("model.onnx: is not listed",)),
    Row("checksums-that-are-none", sums("GOOD model.onnx\n"), "E211", "m/1/model.onnx",
        ("SHA256SUMS:1", "expected a SHA-256 and a file name", "write it with sha256sum")),
    Row("mlflow-other-flavor", beside(content(models.scale()), content(
        b"flavors:\n  sklearn:\n    data: m.pkl\n", "m/1/MLmodel")), "E213", "m/1/MLmodel:1",
        ("flavors", "expected the flavor onnx", "got sklearn", "mlflow.onnx.log_model")),
    Row("mlflow-in-another-style", beside(content(models.scale()), content(
        b"flavors: {onnx: {data: model.onnx}}\n", "m/1/MLmodel")), "E213", "m/1/MLmodel:1",
        ("expected as MLflow writes it", "got {onnx", "log the model again")),
    Row("mlflow-names-no-file", beside(content(models.scale()), content(
        b"flavors:\n  onnx:\n    data: net.onnx\n", "m/1/MLmodel")), "E201", "m/1/MLmodel",
        ("flavors.onnx.data", "expected net.onnx in", "got MLmodel, model.onnx", "put the file there")),
    Row("mlflow-names-a-file-outside", beside(content(models.scale()), content(
        b"flavors:\n  onnx:\n    data: ../../../x.onnx\n", "m/1/MLmodel")), "E208", "m/1/MLmodel",
        ("flavors.onnx.data", "expected a file in the version's directory", "got '../../../x.onnx'", "name the file")),
]

RUNTIME = [
    Row("unknown-operator", content(models.unknown_operator()), "E306", "m/1/model.onnx",
        ("NoSuchOperator", "upgrade onnxruntime, or export the model again with operators and an opset")),
    Row("opset-too-new", content(changed(lambda parsed: setattr(parsed.opset_import[0], "version", 999))), "E306",
        "m/1/model.onnx", ("999", "upgrade onnxruntime, or export the model again")),
    Row("ir-version-too-new", content(changed(lambda parsed: setattr(parsed, "ir_version", 99))), "E306",
        "m/1/model.onnx", ("99", "upgrade onnxruntime")),
    Row("no-tensor-output", content(models.sequence_only()), "E309", "m/1/model.onnx",
        ("output", "none of the model's outputs is a tensor")),
    Row("a-node-without-its-input", content(changed(lambda parsed: parsed.graph.node[0].input.__setitem__(0, "gone"))),
        "E307", "m/1/model.onnx", ("cannot load it", "gone", "export the model again")),
    Row("types-that-do-not-fit", content(changed(lambda parsed: setattr(
        parsed.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT64))), "E307", "m/1/model.onnx",
        ("cannot load it", "export the model again")),
    Row("zipmap", content(models.zipmap()), "W301", "m/1/model.onnx",
        ("output 'scores'", "expected a tensor", "got a sequence made by ZipMap", "options={'zipmap': False}"),
        served=True),
    Row("sequence-output", content(models.sequence()), "W301", "m/1/model.onnx",
        ("output 'w'", "expected a tensor", "got a sequence", "export it with tensors alone"), served=True),
    Row("dims-without-a-shared-symbol", content(two_symbols()), "W302", "m/1/model.onnx",
        ("is not batched: the first dimensions differ", "'x'", "'y'", "one name for the first dimension"), served=True),
    Row("fixed-first-dim", content(models.fixed_rows()), "W302", "m/1/model.onnx",
        ("is not batched: the first dimension of input 'x' is fixed at 2", "export the model"), served=True),
    Row("no-dims", content(models.scalar()), "W302", "m/1/model.onnx", ("input 'x' has no dimensions",), served=True),
]

CONFIG = [
    Row("config-is-not-text-format", config("max_batch_size = 8\n"), "E101", "m/config.pbtxt:1", ("expected", "got")),
    Row("config-is-cut-short", config("dynamic_batching {\n"), "E101", "m/config.pbtxt:", ("expected", "got")),
    Row("config-is-not-utf-8", config(b"name: \"\xff\"\n"), "E101", "m/config.pbtxt", ("expected UTF-8 text",)),
    Row("config-is-a-directory", beside(files("m/1/model.onnx", "m/config.pbtxt/")), "E100", "m/config.pbtxt",
        ("is not a file", "put the file there")),
    Row("config-leads-out", beside(files("m/1/model.onnx"), content(b"", "../c.pbtxt"),
                                   link("m/config.pbtxt", "../../c.pbtxt")), "E100", "m/config.pbtxt",
        ("leads out of", "put the file there")),
    Row("unknown-key", config(ONNX + "max_batchsize: 8\n"), "E102", "m/config.pbtxt:2", ("max_batch_size",)),
    Row("unknown-inner-key", config(ONNX + "dynamic_batching {\n  max_queue_delay: 5 }\n"), "E102", "m/config.pbtxt:3",
        ("max_queue_delay_microseconds",)),
    Row("wrong-dtype-name", config(ONNX + 'input { name: "x" data_type: FP32 dims: 4 }\n'), "E104", "m/config.pbtxt:2",
        ("data_type", "TYPE_FP32", "got FP32")),
    Row("name-of-another-model", config('name: "other"\n'), "E108", "m/config.pbtxt:1", ("name", "m", "other")),
    Row("tensorflow", config('platform: "tensorflow_savedmodel"\n'), "E107", "m/config.pbtxt:1",
        ("platform", "tensorflow_savedmodel")),
    Row("negative-batch-size", config(ONNX + "max_batch_size: -1\n"), "E103", "m/config.pbtxt:2",
        ("max_batch_size", "-1")),
    Row("given-twice", config(ONNX + "max_batch_size: 8\nmax_batch_size: 4\n"), "E105", "m/config.pbtxt:3",
        ("max_batch_size",)),
    Row("dims-with-the-batch", config(ONNX + 'max_batch_size: 8\ninput { name: "x" data_type: TYPE_FP32 '
                                      "dims: [ -1, 4 ] }\n" + Y), "E305", "m/config.pbtxt:3",
        ("input.x.dims", "dims hold the batch dimension", "expected [4]", "got [-1, 4]", "write dims: [4]")),
    Row("batching-of-a-fixed-first-dim", config(ONNX + "max_batch_size: 8\n", models.fixed_rows()), "E304",
        "m/config.pbtxt:2", ("max_batch_size", "expected [-1, ...]", "got [2, 4]", "max_batch_size: 0")),
    Row("input-that-is-not-there", config(ONNX + 'max_batch_size: 8\ninput { name: "xx" data_type: TYPE_FP32 dims: 4 }'
                                          "\n" + Y), "E301", "m/config.pbtxt:3", ("input.xx", "did you mean 'x'?")),
    Row("input-that-is-missing", config(ONNX + 'input { name: "x" data_type: TYPE_INT64 dims: [ -1, 4 ] }\n',
                                        models.add_sub()), "E301", "m/config.pbtxt:2",
        ("the model's input 'z' is missing", 'add name: "z"')),
    Row("input-of-another-type", config(ONNX + 'max_batch_size: 8\ninput { name: "x" data_type: TYPE_INT32 dims: 4 }\n'
                                        + Y), "E302", "m/config.pbtxt:3",
        ("input.x.data_type", "expected TYPE_FP32", "got TYPE_INT32")),
    Row("dims-of-another-model", config(ONNX + "max_batch_size: 8\n" + X
                                        + 'output { name: "y" data_type: TYPE_FP32 dims: 7 }\n'), "E303",
        "m/config.pbtxt:4", ("output.y.dims", "expected [3]", "got [7]", "write dims: [3]")),
    Row("filename-that-is-not-there", config(ONNX + 'default_model_filename: "net.onnx"\n'), "E201",
        "m/config.pbtxt:2", ("default_model_filename", "expected net.onnx in", "got model.onnx")),
    Row("filename-that-leads-out", config(ONNX + 'default_model_filename: "../../../x.onnx"\n'), "E103",
        "m/config.pbtxt:2", ("default_model_filename", "expected a file's name", "got '../../../x.onnx'")),
]

ROOTS = [
    Row("root-missing", lambda root: shutil.rmtree(root, ignore_errors=True), "E200", "",
        ("does not exist", "expected a model.onnx, its directory or a repository", "correct the path")),
    Row("root-one-level-too-deep", files("repository/m/1/model.onnx"), "E201", "",
        ("the models lie one level deeper", "got repository/", "serve ")),
    Row("root-empty", files(), "E201", "", ("no .onnx file found", "got nothing", "put a model there")),
    Row("root-with-other-files", content(b"x", "notes.txt"), "E201", "", ("no .onnx file found", "got notes.txt")),
    Row("root-with-two-files", files("a.onnx", "b.onnx"), "E204", "", ("expected one .onnx", "got 2: a.onnx, b.onnx")),
]

# With a healthy model beside the broken one; of ROOTS nothing in the root can be served.
ROWS = [*LAYOUT, *LINKS, *CONTENT, *RUNTIME, *CONFIG]


@dataclass(frozen=True)
class WrittenRow:
    """A file of models, or infer.toml, beside a directory `m` with version 1 of a healthy model."""

    name: str
    text: str
    code: str
    line: int               # 0: the file as a whole
    said: tuple[str, ...]


def listed(fields: str) -> str:
    return f"model_config_list {{\n config {{\n{fields}\n }}\n}}\n"


LISTS = [
    WrittenRow("list-tensorflow", listed('name: "m" base_path: "m"\nmodel_platform: "tensorflow"'), "E107", 4,
               ("model_platform", "expected 'onnx'", "got 'tensorflow'", "tf2onnx.convert", "then write 'onnx'")),
    WrittenRow("list-without-a-platform", listed('name: "m" base_path: "m"'), "E106", 0,
               ("model_platform", "is missing", "expected 'onnx'")),
    WrittenRow("list-without-a-path", listed('name: "m" model_platform: "onnx"'), "E106", 0,
               ("base_path", "is missing", "write the directory that holds 1/, 2/")),
    WrittenRow("list-of-a-bucket", listed('name: "m" model_platform: "onnx"\nbase_path: "gs://bucket/m"'), "E103", 4,
               ("base_path", "expected a directory of this machine", "got 'gs://bucket/m'", "copy or mount it")),
    WrittenRow("list-of-a-path-that-is-not-there", listed('name: "m" model_platform: "onnx"\nbase_path: "gone"'),
               "E200", 0, ("does not exist", "correct the path")),
    WrittenRow("list-with-an-unknown-key", listed('name: "m" base_path: "m"\nmodel_platfrom: "onnx"'), "E102", 4,
               ("model_platfrom", "did you mean 'model_platform'?")),
    WrittenRow("list-with-a-name-twice", listed(
        'name: "m" base_path: "m" model_platform: "onnx" }\nconfig { name: "m" base_path: "m" model_platform: "onnx"'),
        "E111", 4, ("model 'm' is configured twice", "rename one of them")),
    WrittenRow("list-with-a-label-that-is-a-number", listed(
        'name: "m" base_path: "m" model_platform: "onnx"\nversion_labels { key: "7" value: 1 }'), "E103", 0,
        ("version_labels", "expected a label of", "got '7'")),
    WrittenRow("list-with-a-label-of-version-0", listed(
        'name: "m" base_path: "m" model_platform: "onnx"\nversion_labels { key: "stable" value: 0 }'), "E103", 0,
        ("version_labels", "expected a version's number from 1", "got 0")),
    WrittenRow("list-cut-short", "model_config_list {\n config {\n", "E101", 3, ("expected '}'", "got the end")),
    WrittenRow("list-of-nothing", "", "E106", 0, ("model_config_list", "is missing", "write model_config_list")),
]

TABLES = [
    WrittenRow("table-with-an-unknown-key", "[models.m]\nmax_batchsize = 8\n", "E102", 2, ("max_batch_size",)),
    WrittenRow("table-with-an-unknown-key-of-ours", "[models.m]\nkeep_version = 8\n", "E102", 2,
               ("keep_version", "did you mean 'keep_versions'?")),
    WrittenRow("table-with-a-wrong-value", '[models.m]\nmax_batch_size = "many"\n', "E103", 2,
               ("max_batch_size", "expected", "got")),
    WrittenRow("table-with-a-policy-that-is-none", "[models.m]\nversion_policy = { newest = 1 }\n", "E102", 2,
               ("newest",)),
    WrittenRow("table-of-a-name-that-is-none", '[models."a b"]\nmax_batch_size = 8\n', "E103", 1,
               ("expected a name of 1 to 128", "got 'a b'")),
    WrittenRow("table-of-a-model-that-is-not-there", "[models.other]\nmax_batch_size = 8\n", "W103", 1,
               ("there is no model 'other'", "copy it into the repository")),
    WrittenRow("table-that-the-model-contradicts", '[models.m]\ninput = [{ name = "xx", data_type = "TYPE_FP32", '
               "dims = [4] }]\n", "E301", 2, ("xx", "did you mean 'x'?")),
    WrittenRow("table-that-is-none", "models = 3\n", "E103", 1, ("expected tables of models: [models.NAME]", "got 3")),
]
