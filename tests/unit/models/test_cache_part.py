"""What a version gets of the cache, and which versions have their rows looked up one by one."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from infer._core.model_version import TensorInfo, VersionEntry
from infer.models.cache_part import cache_part, not_by_rows
from infer.models.effective import LoadOptions
from infer.models.settings import ModelSettings

FP32, BYTES = 1, 8


def tensor(name: str, *dims: int | str, data_type: int = FP32, **said: Any) -> TensorInfo:
    return TensorInfo(name, data_type, tuple(each if isinstance(each, int) else -1 for each in dims),
                      tuple("" if isinstance(each, int) else each for each in dims), **said)


def entry_of(inputs: list[TensorInfo], outputs: list[TensorInfo], *, batched: bool = True) -> VersionEntry:
    return VersionEntry("m", "1", None, inputs, outputs, batched=batched, max_rows=8, gather_rows=8, delay_ns=0,
                        queue_limit_rows=8, max_running=1, properties={})


X = tensor("x", "batch", 4)
TOKENS = tensor("tokens", "batch", "length")


@pytest.mark.parametrize(("inputs", "outputs"), [
    ([X], [tensor("y", "batch", 4)]),
    ([X, TOKENS], [tensor("y", "batch", "length", 768), tensor("z", "batch")]),
    ([X], [tensor("y", "batch", 4), tensor("words", "batch", 1, data_type=BYTES, served=False)]),
    ([X], [tensor("y", "batch", 2, 2, reshape=(-1, 4))]),
    ([TensorInfo("x", FP32, None)], [tensor("y", "batch", 4)]),
])
def test_those_whose_outputs_have_the_shape_that_their_inputs_give_them(
        inputs: list[TensorInfo], outputs: list[TensorInfo]) -> None:
    assert not_by_rows(entry_of(inputs, outputs)) == ""


@pytest.mark.parametrize(("inputs", "outputs", "why"), [
    ([tensor("x", "batch", 1, data_type=BYTES)], [tensor("y", "batch", 4)], "the rows of input 'x' are BYTES"),
    ([X], [tensor("y", "batch", 1, data_type=BYTES)], "the rows of output 'y' are BYTES"),
    ([X], [tensor("y", "batch", "count")], "output 'y' has a size that is no input's"),
    ([TOKENS], [tensor("y", "batch", "batch")], "output 'y' has a size that is no input's"),
    ([tensor("x", "batch", -1)], [tensor("y", "batch", -1)], "output 'y' has a size that is no input's"),
    ([tensor("x", "batch", "length", reshape=(-1, 1, -1))], [tensor("y", "batch", "length")],
     "output 'y' has a size that is no input's"),
    ([TOKENS], [tensor("y", "batch", "length", reshape=(-1, 1, -1))], "output 'y' has a size that is no input's"),
    ([X], [TensorInfo("y", FP32, None)], "output 'y' has a size that is no input's"),
])
def test_those_whose_rows_may_be_of_any_shape(inputs: list[TensorInfo], outputs: list[TensorInfo], why: str) -> None:
    assert not_by_rows(entry_of(inputs, outputs)).startswith(why)


def test_one_that_does_not_batch() -> None:
    assert not_by_rows(entry_of([X], [X], batched=False)) == "it does not batch"


@pytest.mark.parametrize(("own", "server", "batched", "level"), [
    (True, False, True, None), (True, False, False, "WARNING"), (None, True, False, "INFO"),
    (False, True, False, None)])
def test_a_version_that_cannot_is_cached_as_others_and_said(
        own: bool | None, server: bool, batched: bool, level: str | None, caplog: pytest.LogCaptureFixture) -> None:
    entry = entry_of([X], [X], batched=batched)
    entry.settings = ModelSettings("m", response_cache=True, cache_rows=own)
    with caplog.at_level(logging.INFO, "infer.models"):
        part = cache_part(entry, LoadOptions(cache_rows=server, cache_bytes=5))
    assert part == {"ttl_ns": 0, "model_bytes": 5, "rows": batched and own is not False}
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == ([] if level is None else [(
        level, "the rows of model 'm' version 1 are not looked up one by one (cache_rows): it does not batch")])


def test_one_that_is_not_cached() -> None:
    entry: Any = SimpleNamespace(settings=ModelSettings("m", response_cache=False, cache_rows=True))
    assert cache_part(entry, LoadOptions()) is None
