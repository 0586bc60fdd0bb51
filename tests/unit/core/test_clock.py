from collections.abc import Iterator

import pytest

from infer._core import _testing_time, clock


@pytest.fixture(autouse=True)
def real_clock_again() -> Iterator[None]:
    yield
    clock.restore()


def test_default_is_the_monotonic_clock_and_never_goes_back():
    import time

    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    readings = [clock.now() for _ in range(1000)]
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert [before, *readings, after] == sorted([before, *readings, after])


def test_fake_clock_moves_only_when_told():
    clock.set_fake(5_000)
    assert clock.now() == clock.now() == 5_000
    assert clock.advance(250) == 5_250
    assert clock.now() == 5_250
    clock.set_fake(-1)
    assert clock.now() == -1


def test_code_without_the_gil_sees_the_fake_clock_and_the_restored_one():
    clock.set_fake(77)
    assert _testing_time.nogil_now() == 77
    clock.advance(1)
    assert _testing_time.nogil_now() == 78
    clock.restore()
    before = clock.now()
    assert before <= _testing_time.nogil_now() <= clock.now()


def test_advance_needs_a_stopped_clock():
    with pytest.raises(RuntimeError, match="set_fake"):
        clock.advance(1)
