"""What a setting may be written as."""

from __future__ import annotations

from typing import Any

import pytest

from infer.config_values import name_list, parse_count, parse_providers, parse_seconds, parse_size


@pytest.mark.parametrize("value", [True, 1.5, None, "x", "1.5", "-", "1e3", "1kb", ""])
def test_count_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match="whole number"):
        parse_count(value)


@pytest.mark.parametrize(("value", "count"), [(7, 7), ("7", 7), ("1k", 1000), ("1.5K", 1500), ("2Ki", 2048),
                                              ("-3", -3)])
def test_count(value: Any, count: int) -> None:
    assert parse_count(value) == count


@pytest.mark.parametrize(("value", "size"), [
    (65536, 65536), ("65536", 65536), ("64MiB", 64 << 20), ("1k", 1000), ("1KB", 1000), ("1KiB", 1024),
    ("0.5 GiB", 1 << 29), ("100b", 100), ("9007199254740993k", 9007199254740993000)])
def test_size(value: Any, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize(("value", "seconds"), [(3, 3.0), (0.5, 0.5), ("30", 30.0), ("1.5s", 1.5), ("500ms", 0.5),
                                                ("2m", 120.0), ("250us", 0.00025), ("1h", 3600.0)])
def test_seconds(value: Any, seconds: float) -> None:
    assert parse_seconds(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [True, "nan", "inf", "-1", "1d", None])
def test_seconds_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a time"):
        parse_seconds(value)


@pytest.mark.parametrize(("text", "providers"), [
    ("auto", ()), ("cpu", (("cpu", {}),)),
    ("cuda:device_id=0,arena_extend_strategy=kSameAsRequested", (
        ("cuda", {"device_id": "0", "arena_extend_strategy": "kSameAsRequested"}),)),
    ("cuda:device_id=1;cpu", (("cuda", {"device_id": "1"}), ("cpu", {}))),
    (["tensorrt:a=b=c", "cpu"], (("tensorrt", {"a": "b=c"}), ("cpu", {}))),
])
def test_providers(text: Any, providers: Any) -> None:
    assert parse_providers(text) == providers


@pytest.mark.parametrize(("text", "message"), [
    ("cudo", "did you mean 'cuda'"), ("cpu;auto", "auto only by itself"), ("cuda:device", "is not key=value"),
    ("cuda:a=1,a=2", "given twice"), ("cpu;cpu", "named twice"), ("", "unknown execution provider"),
    (3, "expected auto"),
])
def test_providers_refuse(text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_providers(text)


def test_names() -> None:
    assert name_list(" a, b,,c ") == ["a", "b", "c"]
    assert name_list(("a,b",)) == ("a,b",)
