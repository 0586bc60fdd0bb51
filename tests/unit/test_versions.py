"""Versions as the libraries say them."""

import re

import pytest

from infer import versions


def test_nghttp2_says_its_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(-DEV)?", versions.nghttp2_version())


def test_a_protection_is_missing_where_its_function_is(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"nghttp2_version": "there", "nghttp2_of_tomorrow": "limit on tomorrow"}
    monkeypatch.setattr(versions, "_PROTECTIONS", known)
    assert versions.missing_protections() == ["limit on tomorrow"]


def test_the_onnxruntime_version_is_its_library_name() -> None:
    assert re.match(r"\d+\.\d+", versions.onnxruntime_version())
