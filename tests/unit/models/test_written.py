"""What is written for models outside of their directories, and the source under it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer.models.config_pbtxt import read_config
from infer.models.settings import ModelSettings, VersionPolicy
from infer.models.source import Source
from infer.models.written import read_written
from infer.quotas import NONE
from tests.support import models
from tests.support.model_repositories import TF_SERVING_VERSIONS, tf_serving_models, triton_repository
from tests.support.models import write_version


def test_tables_stand_over_the_file_of_models(tmp_path: Path) -> None:
    file = tf_serving_models(tmp_path)
    toml = tmp_path / "infer.toml"
    toml.write_text("[models.my_second_model]\nversion_policy = { latest = 1 }\nkeep_versions = 2\nwrong = 1\n"
                    "[models.my_third_model]\nlabels = { stable = 1 }\n[models.other]\n")
    written, problems, _ = read_written(file, toml)
    assert [each.code for each in problems] == ["E102"]
    assert list(written) == [*TF_SERVING_VERSIONS, "other"]
    third = written["my_third_model"]
    assert (third.base, third.policy, third.labels) == (tmp_path / "my_third_model", VersionPolicy("all"),
                                                        {"stable": 1})
    assert written["my_second_model"].policy == VersionPolicy("specific", versions=(1, 2))
    assert read_written(None, None) == ({}, [], NONE)


def test_a_file_of_models_is_what_the_source_sees(tmp_path: Path) -> None:
    written = read_written(tf_serving_models(tmp_path), None).models
    source = Source([], parse=read_config, written=written, settle_ns=0)
    seen = source.observe(0)
    assert seen.problems == ()
    assert {name: tuple(model.versions) for name, model in seen.models.items()} == TF_SERVING_VERSIONS
    assert seen.models["my_second_model"].settings.labels == {"canary": 2, "stable": 1}
    # A list is the whole of what is served: what it leaves out goes.
    del written["my_first_model"]
    source.set_written(written)
    assert set(source.observe(1).models) == {"my_second_model", "my_third_model"}
    assert source.observe(2) is source.observe(3)


def test_a_triton_repository_is_what_the_source_sees(tmp_path: Path) -> None:
    over = ModelSettings("scale_all", origin="infer.toml:1", max_batch_size=4, places={"max_batch_size": "t:2:1"})
    seen = Source([triton_repository(tmp_path)], parse=read_config, written={"scale_all": over}, settle_ns=0).observe(0)
    assert seen.problems == ()
    settings = seen.models["scale_all"].settings
    assert (settings.max_batch_size, settings.policy) == (4, VersionPolicy("all"))
    assert settings.base == tmp_path / "scale_all"
    assert seen.models["tuned"].versions[1].path.name == "net.onnx"


def test_a_model_that_is_named_and_in_a_root_is_one(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.scale())
    base = ModelSettings("m", tmp_path / "m", labels={"stable": 1}, places={"base": "t:1:1", "labels": "t:2:1"})
    seen = Source([tmp_path], written={"m": base}, settle_ns=0).observe(0)
    assert seen.problems == ()
    assert seen.models["m"].settings.labels == {"stable": 1}


@pytest.mark.parametrize(("settings", "problem"), [
    (ModelSettings("n", origin="t:1"), "t:1: there is no model 'n'; copy it into the repository, or remove what is "
     "written for it [W103]"),
    (ModelSettings("n", Path("root"), "t:1", places={"base": "t:2:1"}),
     "t:2:1: base_path: expected exactly one model, got 2: k, m; serve one, or leave base_path out [E206]"),
    (ModelSettings("n", Path("none"), "t:1", places={"base": "t:2:1"}), "none: does not exist"),
])
def test_what_is_written_for_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: ModelSettings,
                                      problem: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("k", "m"):
        write_version(tmp_path / "root", name, 1, models.scale())
    seen = Source([tmp_path / "root"], written={"n": settings}, settle_ns=0).observe(0)
    assert set(seen.models) == {"k", "m"}
    (only,) = seen.problems
    assert str(only).startswith(problem)
