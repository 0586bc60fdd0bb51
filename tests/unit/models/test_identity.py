"""What a version is by its files, and that it is what SHA256SUMS says."""

import hashlib
import json
import subprocess
from pathlib import Path

import onnx
import pytest
from onnx import helper

from infer.errors import ModelLoadError
from infer.models.identity import CHECKSUMS, identify, parse_checksums
from infer.models.snapshot import VersionFiles
from infer.models.source import Source
from tests.support import models
from tests.support.models import write_external_data_model, write_model, write_version


def seen(path: Path, number: int = 1) -> VersionFiles:
    (model,) = Source([path], settle_ns=0).observe(0).models.values()
    return model.versions[number]


def sums(directory: Path, *names: str) -> None:
    done = subprocess.run(["sha256sum", *names], cwd=directory, check=True, capture_output=True)
    (directory / CHECKSUMS).write_bytes(done.stdout)


def test_files_and_facts(tmp_path: Path) -> None:
    parsed = onnx.load_model_from_string(models.dense())
    parsed.producer_version = "2.3"
    helper.set_model_props(parsed, {"author": "me"})
    file = write_version(tmp_path, "m", 1, parsed.SerializeToString())
    (tmp_path / "m/1/labels.txt").write_bytes(b"a\nb\n")
    (tmp_path / "m/1/_READY").touch()
    identity = identify(seen(tmp_path))
    digests = {path: hashlib.sha256((tmp_path / "m/1" / path).read_bytes()).hexdigest()
               for path in ("labels.txt", "model.onnx")}
    assert identity.files == {"labels.txt": (digests["labels.txt"], 4),
                              "model.onnx": (digests["model.onnx"], file.stat().st_size)}
    listed = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    assert identity.sha256 == hashlib.sha256(listed.encode()).hexdigest()
    assert identity.properties() == {
        "sha256": identity.sha256, "size_bytes": str(file.stat().st_size + 4), "checksums": "none",
        "opset": "ai.onnx 17, ai.onnx.ml 3", "ir_version": "8", "producer": "tests", "producer_version": "2.3",
        "metadata.author": "me"}
    assert json.loads(identity.to_json())["files"] == digests


def test_the_identity_is_that_of_the_content_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_version(tmp_path / name, "m", 1, models.dense())
    assert identify(seen(tmp_path / "a")).sha256 == identify(seen(tmp_path / "b")).sha256
    write_version(tmp_path / "b", "m", 1, models.scale())
    assert identify(seen(tmp_path / "a")).sha256 != identify(seen(tmp_path / "b")).sha256


def test_mlflow(tmp_path: Path) -> None:
    write_model(tmp_path / "m/1/net.onnx", models.dense())
    write_model(tmp_path / "m/1/older.onnx", models.dense())
    (tmp_path / "m/1/MLmodel").write_text(
        "flavors:\n  onnx:\n    data: net.onnx\nrun_id: r5\nsignature:\n  inputs: '[]'\n")
    version = seen(tmp_path)
    assert version.path.name == "net.onnx"
    properties = identify(version).properties()
    assert properties["mlflow.run_id"] == "r5"
    assert properties["mlflow.inputs"] == "[]"


def test_a_bare_file_is_its_data_and_nothing_beside(tmp_path: Path) -> None:
    write_external_data_model(tmp_path / "x.onnx")
    (tmp_path / "other").touch()
    assert sorted(identify(seen(tmp_path / "x.onnx")).files) == ["x.onnx", "x.onnx.data"]


def test_checksums_that_hold(tmp_path: Path) -> None:
    write_external_data_model(tmp_path / "m/1/model.onnx")
    (tmp_path / "m/1/labels.txt").touch()
    sums(tmp_path / "m/1", "model.onnx", "./model.onnx.data")
    identity = identify(seen(tmp_path), require_checksums=True)
    assert identity.verified
    assert CHECKSUMS not in identity.files


@pytest.mark.parametrize(("change", "said"), [
    ("model", "model.onnx: expected SHA-256 "), ("missing", "gone.txt: expected SHA-256 "),
    ("unlisted", "model.onnx.data: is not listed")])
def test_checksums_that_do_not_hold(tmp_path: Path, change: str, said: str) -> None:
    write_external_data_model(tmp_path / "m/1/model.onnx")
    (tmp_path / "m/1/gone.txt").touch()
    sums(tmp_path / "m/1", "model.onnx", "gone.txt", *(["model.onnx.data"] if change != "unlisted" else []))
    if change == "model":
        content = (tmp_path / "m/1/model.onnx").read_bytes()
        (tmp_path / "m/1/model.onnx").write_bytes(content.replace(b"tests", b"stets"))
    elif change == "missing":
        (tmp_path / "m/1/gone.txt").unlink()
    with pytest.raises(ModelLoadError) as caught:
        identify(seen(tmp_path))
    assert said in caught.value.message
    assert caught.value.message.startswith(f"{tmp_path / 'm/1' / CHECKSUMS}: the files are not those that it lists: ")


def test_checksums_that_are_asked_for(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.dense())
    with pytest.raises(ModelLoadError, match=r"there is no SHA256SUMS.*sha256sum model.onnx > SHA256SUMS"):
        identify(seen(tmp_path), require_checksums=True)


def test_checksums_beside_a_bare_file_count_where_they_name_it(tmp_path: Path) -> None:
    write_model(tmp_path / "x.onnx", models.dense())
    write_model(tmp_path / "y.onnx", models.scale())
    sums(tmp_path, "y.onnx")
    assert not identify(seen(tmp_path / "x.onnx")).verified
    sums(tmp_path, "x.onnx")
    assert identify(seen(tmp_path / "x.onnx")).verified
    (tmp_path / CHECKSUMS).write_text(f"{'0' * 64}  x.onnx\n")
    with pytest.raises(ModelLoadError, match="expected SHA-256 000"):
        identify(seen(tmp_path / "x.onnx"))


@pytest.mark.parametrize("line", ["no", "0" * 63 + "  x", "0" * 64 + " x", "0" * 64, "g" * 64 + "  x"])
def test_a_line_that_is_not_one(tmp_path: Path, line: str) -> None:
    path = tmp_path / CHECKSUMS
    path.write_text(f"# of this version\n\n{line}\n")
    with pytest.raises(ModelLoadError, match=rf"{CHECKSUMS}:3: expected a SHA-256 and a file name, got"):
        parse_checksums(path)


def test_both_ways_that_sha256sum_writes_a_line(tmp_path: Path) -> None:
    path = tmp_path / CHECKSUMS
    path.write_text(f"{'A' * 64} *a b\n{'0' * 64}  ./c\n")
    assert parse_checksums(path) == {"a b": "a" * 64, "c": "0" * 64}
