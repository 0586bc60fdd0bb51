"""Versions as the server gets them, and the words with which a load fails."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infer._core import debug
from infer._core._testing_engine import Bench, Call
from infer.errors import ModelLoadError
from infer.models.effective import LoadOptions
from infer.models.loading import LoadSpec
from infer.models.settings import ModelSettings
from infer.models.snapshot import VersionFiles
from infer.models.version_load import load_version
from tests.support import models
from tests.support.engine import array, runtime, tensor

EXAMPLES = Path(__file__).parents[3] / "examples" / "models"


def spec_of(path: Path, name: str = "m", version: int = 3, **settings: Any) -> LoadSpec:
    files = VersionFiles(version, path, path.parent, "", alone=False)
    return LoadSpec(name, version, files, ModelSettings(name, **settings), 1)


def source(directory: Path, model: bytes, **settings: Any) -> LoadSpec:
    return spec_of(models.write_model(directory / "model.onnx", model), **settings)


def test_a_batched_version(tmp_path: Path) -> None:
    entry = load_version(source(tmp_path, models.dense()), runtime(), LoadOptions(
        max_rows=100, gather_rows=32, delay_ns=5, queue_limit_rows=7, max_running=3))
    assert (entry.name, entry.version, entry.batched) == (b"m", "3", True)
    assert (entry.max_rows, entry.gather_rows, entry.max_running) == (100, 32, 3)
    assert entry.properties["batching"] == "up to 32 rows"
    assert entry.properties["file"] == "model.onnx"
    assert entry.properties["providers"] == "CPU"
    assert [part.split()[0] for part in entry.properties["load_ms"].split(", ")] == [
        "read", "session", "self-check", "warm-up"]
    each = Call(entry, [tensor(np.zeros((2, 4), np.float32))], rows=2)
    bench = Bench()
    bench.run([each])
    bench.close()
    assert array(each.outcome[1][0]).tolist() == [[0, 1, 2]] * 2


def test_an_unbatched_version(tmp_path: Path) -> None:
    entry = load_version(source(tmp_path, models.batch_mean_subtracted()), runtime(), LoadOptions())
    assert (entry.batched, entry.max_rows, entry.gather_rows) == (False, 1, 1)
    assert entry.properties["batching"] == "no: output 'y' of a row changes with the rows beside it"


@pytest.mark.parametrize("name", ["digits", "trees"])
def test_the_example_models_are_batched(name: str) -> None:
    entry = load_version(spec_of(EXAMPLES / name / "1" / "model.onnx"), runtime(), LoadOptions())
    assert entry.batched


def test_loading_leaves_no_memory_behind(tmp_path: Path) -> None:
    before = debug.live()
    entry = load_version(source(tmp_path, models.two_in_three_out()), runtime(), LoadOptions())
    assert debug.live() == before
    assert entry.session is not None


@pytest.mark.parametrize(("model", "said"), [
    (b"no model", "is not an ONNX model"), (models.unknown_operator(), "No Op registered"),
    (models.sequence_only(), "none of the model's outputs is a tensor")])
def test_f26_failures_name_the_version_and_no_path(tmp_path: Path, model: bytes, said: str) -> None:
    with pytest.raises(ModelLoadError, match=said) as caught:
        load_version(source(tmp_path, model), runtime(), LoadOptions())
    assert caught.value.message.startswith("model 'm' version 3 is not served: ")
    assert str(tmp_path) not in caught.value.message
    assert caught.value.code == 9


def test_f33_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"model 'm' version 3 is not served: .*gone\.onnx.*[Nn]o such file"):
        load_version(spec_of(tmp_path / "gone.onnx"), runtime(), LoadOptions())


def test_external_data_is_checked_before_the_runtime_sees_it(tmp_path: Path) -> None:
    path = models.write_external_data_model(tmp_path / "m" / "model.onnx")
    assert load_version(spec_of(path), runtime(), LoadOptions()).batched
    data = path.parent / "model.onnx.data"
    data.rename(tmp_path / "elsewhere")
    data.hardlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelLoadError, match="2 names"):
        load_version(spec_of(path), runtime(), LoadOptions())


def test_a_missing_provider_is_a_load_error(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="model 'm' version 3 is not served: provider nonsense is not in"):
        load_version(source(tmp_path, models.dense()), runtime(), LoadOptions(providers=[("nonsense", {})]))
