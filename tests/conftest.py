"""What all tests share: the process's arena and, in debug builds, the proof that a test left nothing alive."""

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings

from infer._core import arena, clock, debug
from tests.support import transports

settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci")

arena.open(reserved_bytes=1 << 40, limit_bytes=1 << 30)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        transports.mark(item)


@pytest.fixture
def stepped_clock() -> Iterator[None]:
    """The core's clock stands at 1,000 s and moves by `clock.advance` alone."""
    clock.set_fake(1_000_000_000_000)
    yield
    clock.restore()


@pytest.fixture(autouse=True, scope="module")
def no_garbage_of_others() -> None:
    """What tests of other files left in cycles does not go while those of this one count the arena's bytes."""
    gc.collect()


@pytest.fixture(autouse=True)
def nothing_left_alive() -> Iterator[None]:
    """Blocks, requests, streams, sessions and batches alive after a test are those alive before it."""
    if not debug.ENABLED:
        yield
        return
    before = debug.live()
    yield
    if debug.live() != before:
        gc.collect()
    assert debug.live() == before
