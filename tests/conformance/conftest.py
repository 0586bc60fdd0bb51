"""Tests that take long run where they are asked for."""

import os

import pytest

ASKED = "INFER_LONG_TESTS"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get(ASKED):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason=f"takes long: run by `make conformance`, or with {ASKED}=1"))
