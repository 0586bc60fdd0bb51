"""Settings written as a ModelConfig and read again are the same settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from infer.models.config_pbtxt import parse_config
from infer.models.settings import (
    HISTOGRAMS,
    ModelSettings,
    QueuePolicy,
    TensorSetting,
    VersionPolicy,
    Warmup,
    WarmupInput,
)
from infer.services.model_config import config_of
from tests.support.cold_server import FakeSession, FakeVersion
from tests.support.models import ELEMENT_TYPES

NAMES = st.text("abcxyz._-/ '\"\\é\n", min_size=1, max_size=6)
DATATYPES = st.sampled_from(sorted(ELEMENT_TYPES))
SIZES = st.integers(1, 1 << 40)
DIMS = st.lists(st.just(-1) | SIZES, min_size=1, max_size=4).map(tuple)


@st.composite
def tensors(draw: st.DrawFn, *, optional: bool) -> tuple[TensorSetting, ...]:
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    found = []
    for name in names:
        dims = draw(DIMS)
        # Another order of sizes with the same product between free ones: the same with a 1 in front.
        reshape = draw(st.sampled_from([None, (1, *dims)]))
        found.append(TensorSetting(name, draw(DATATYPES), dims, reshape, optional and draw(st.booleans())))
    return tuple(found)


QUEUES = st.builds(QueuePolicy, st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1),
                   st.sampled_from(["reject", "delay"]), st.booleans())
POLICIES = st.one_of(
    st.builds(VersionPolicy, st.just("latest"), st.integers(1, (1 << 32) - 1)), st.just(VersionPolicy("all")),
    st.lists(st.integers(1, 10**18 - 1), min_size=1, max_size=3, unique=True).map(
        lambda versions: VersionPolicy("specific", versions=tuple(versions))))
FILLS = st.builds(WarmupInput, NAMES, DATATYPES, st.lists(SIZES, max_size=3).map(tuple),
                  st.sampled_from(["zero", "random"])) | st.builds(
    WarmupInput, NAMES, DATATYPES, st.lists(SIZES, max_size=3).map(tuple), st.just("file"), st.just("data"))
WARMUPS = st.builds(Warmup, NAMES, st.integers(1, 9), st.integers(1, 9), st.lists(
    FILLS, max_size=2, unique_by=lambda each: each.name).map(lambda fills: tuple(sorted(fills, key=lambda f: f.name))))
BUCKETS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=4, unique=True).map(lambda each: tuple(sorted(each)))


@st.composite
def settings_with_batching(draw: st.DrawFn) -> ModelSettings:
    rows = draw(st.integers(0, 1 << 20))
    plain = ModelSettings(
        "m", filename=draw(st.sampled_from(["model.onnx", "net.onnx"])), max_batch_size=rows,
        inputs=draw(tensors(optional=True)), outputs=draw(tensors(optional=False)), policy=draw(POLICIES),
        warmups=draw(st.lists(WARMUPS, max_size=2).map(tuple)), response_cache=draw(st.none() | st.booleans()),
        graph_optimization=draw(st.sampled_from([None, "off", "basic", "extended"])),
        providers=draw(st.sampled_from([(), (("tensorrt", {"trt_fp16_enable": "1"}), ("openvino", {}))])),
        parameters=draw(st.dictionaries(NAMES, NAMES, max_size=2)),
        histogram_buckets=draw(st.dictionaries(st.sampled_from(HISTOGRAMS), BUCKETS, max_size=2)),
        instances=draw(st.integers(1, 1024)), dynamic_batching=False)
    if rows == 0 or draw(st.booleans()):
        return plain
    levels = draw(st.integers(0, 64))
    return replace(
        plain, dynamic_batching=True, max_queue_delay_us=draw(st.integers(0, 10_000_000)), priority_levels=levels,
        preferred_batch_sizes=tuple(sorted(draw(st.sets(st.integers(1, rows), max_size=3)))),
        queue=draw(st.none() | QUEUES), default_priority=draw(st.integers(1, levels)) if levels else 0,
        priority_queues=draw(st.dictionaries(st.integers(1, levels), QUEUES, max_size=2)) if levels else {})


def gpus_of(settings: ModelSettings) -> Any:
    session = FakeSession((("CUDAExecutionProvider", {"device_id": "3"}),))
    return config_of(FakeVersion(b"m", session=session, settings=settings)).instance_group[0].gpus


@given(settings_with_batching())
def test_written_and_read_again(settings: ModelSettings) -> None:
    config = config_of(FakeVersion(b"m", settings=settings, max_running=settings.instances or 0))
    read, problems = parse_config(text_format.MessageToString(config), "c", "m")
    assert [str(problem) for problem in problems if problem.is_error] == []
    # What stays a default is not written; what runs is always said.
    assert read is not None
    assert replace(read, dynamic_batching=bool(read.dynamic_batching), max_batch_size=read.max_batch_size or 0,
                   max_queue_delay_us=read.max_queue_delay_us or 0) == replace(
        settings, kind="cpu", origin="c:1", max_queue_delay_us=settings.max_queue_delay_us or 0)


@pytest.mark.parametrize("asked", [{"queue": QueuePolicy(3)}, {"priority_levels": 2, "default_priority": 1}])
def test_queues_of_a_model_that_does_not_batch(asked: dict[str, Any]) -> None:
    settings = ModelSettings("m", max_batch_size=0, dynamic_batching=False, **asked)
    said = config_of(FakeVersion(b"m", settings=settings)).dynamic_batching
    assert (said.default_queue_policy.max_queue_size, said.priority_levels) == (
        (3, 0) if "queue" in asked else (0, 2))
    plain = ModelSettings("m", max_batch_size=0, dynamic_batching=False)
    assert not config_of(FakeVersion(b"m", settings=plain)).HasField("dynamic_batching")


@given(st.lists(st.integers(0, 7), max_size=3, unique=True).map(tuple))
def test_devices(gpus: tuple[int, ...]) -> None:
    assert list(gpus_of(ModelSettings("m", gpus=gpus))) == list(gpus or (3,))
