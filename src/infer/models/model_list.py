"""TensorFlow Serving's file of models: `model_config_list` in protobuf's text format. Reading touches the file alone.

The list is the whole of what is served: a model that it leaves out is unloaded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from infer.config import MODEL_NAME
from infer.models.config_fields import VERSION_MAX, policy_of
from infer.models.config_pbtxt import parse_typed, read_text
from infer.models.labels import LABEL
from infer.models.platforms import PLATFORMS, is_served, platform_advice
from infer.models.problems import Problem
from infer.models.settings import ModelSettings
from infer.models.typed import Typed
from infer.proto import message

# What people write first.
_NAMES = ("onnx", "onnxruntime", *(name for name in PLATFORMS if name not in ("onnx", "onnxruntime")))
_REMOTE = re.compile(r"([a-z][a-z0-9+.-]*)://")


class ModelList(NamedTuple):
    """The models that can be served, in the order of the file, and everything that is wrong."""

    models: tuple[ModelSettings, ...]
    problems: tuple[Problem, ...]


def read_model_list(path: Path) -> ModelList:
    text = read_text(path)
    return ModelList((), (text,)) if isinstance(text, Problem) else parse_model_list(text, path)


def parse_model_list(text: str, path: Path) -> ModelList:
    """The models of a file's text. A relative base_path is below the file's directory. A model with an error is left
    out, the others stand."""
    config = parse_typed(text, message("tensorflow.serving.ModelServerConfig")(), str(path))
    if isinstance(config, Problem):
        return ModelList((), (config,))
    if not config.is_given("model_config_list"):
        config.refuse("model_config_list", "E106", cause="is missing",
                      fix="write model_config_list { config { name: ... base_path: ... } }")
    models: dict[str, ModelSettings] = {}
    for index, content in enumerate(config.content.model_config_list.config):
        at = f"model_config_list.config[{index}]"
        settings = _model(config, content, at, path.parent)
        if settings.name in models:
            config.refuse(at, "E111", cause=f"model {settings.name!r} is configured twice, first at "
                          f"{models[settings.name].origin}", fix="rename one of them")
        if not any(problem.is_error and (problem.field == at or problem.field.startswith(f"{at}."))
                   for problem in config.problems):
            models[settings.name] = settings
    return ModelList(tuple(models.values()), tuple(config.problems))


def _model(config: Typed, content: Any, at: str, directory: Path) -> ModelSettings:
    if not MODEL_NAME.fullmatch(content.name):
        config.refuse(f"{at}.name", "E103" if content.name else "E106",
                      expected="a name of 1 to 128 of A-Z a-z 0-9 _ . -", got=repr(content.name))
    remote = _REMOTE.match(content.base_path)
    if not content.base_path:
        config.refuse(f"{at}.base_path", "E106", cause="is missing", fix="write the directory that holds 1/, 2/, ...")
    elif remote and remote[1] != "file":
        config.refuse(f"{at}.base_path", "E103", expected="a directory of this machine", got=repr(content.base_path),
                      fix="copy or mount it, and write the directory")
    platform = content.model_platform
    if not platform or not is_served(platform, _NAMES):
        config.refuse(f"{at}.model_platform", "E107" if platform else "E106", expected=repr(_NAMES[0]),
                      got=repr(platform) if platform else "", cause="" if platform else "is missing",
                      fix=platform_advice(platform, _NAMES) if platform else "")
    for label, version in sorted(content.version_labels.items()):
        if not 1 <= version <= VERSION_MAX:
            config.refuse(f"{at}.version_labels[{label}]", "E103", expected="a version's number from 1",
                          got=str(version))
        if not LABEL.fullmatch(label):
            config.refuse(f"{at}.version_labels[{label}]", "E103",
                          expected="a label of A-Z a-z 0-9 _ . - that is no number", got=repr(label))
    places = {made: config.place_of(f"{at}.{field}")
              for field, made in (("base_path", "base"), ("model_version_policy", "policy"),
                                  ("version_labels", "labels")) if config.is_given(f"{at}.{field}")}
    line, _, _ = config.place_of(at).rpartition(":")
    return ModelSettings(
        content.name, directory / content.base_path.removeprefix("file://"), line,
        policy=policy_of(config, content.model_version_policy, f"{at}.model_version_policy"),
        labels=dict(sorted(content.version_labels.items())), places=places)
