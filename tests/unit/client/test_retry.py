"""When a call is tried again; the clock stands and is stepped."""

from __future__ import annotations

import pytest

from infer.client.retry import Attempts, RetryPolicy

INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE = 3, 4, 8, 14
POLICY = RetryPolicy(attempts=5, first_backoff=0.1, backoff_factor=2.0, longest_backoff=0.3, jitter=0.2)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def attempts(timeout: float | None = None, policy: RetryPolicy = POLICY, jitter: float = 1.0,
             clock: Clock | None = None) -> Attempts:
    return Attempts(policy, timeout, clock=clock or Clock(), uniform=lambda low, high: low + (high - low) * jitter)


def test_backoff_grows_to_its_bound_and_ends() -> None:
    call = attempts(jitter=0.5)
    waits = [call.wait_after(UNAVAILABLE, None) for _ in range(5)]
    assert waits[:4] == pytest.approx([0.1, 0.2, 0.3, 0.3])
    assert waits[4] is None


@pytest.mark.parametrize(("jitter", "wait"), [(0.0, 0.08), (1.0, 0.12)])
def test_backoff_is_jittered(jitter: float, wait: float) -> None:
    assert attempts(jitter=jitter).wait_after(UNAVAILABLE, None) == pytest.approx(wait)


@pytest.mark.parametrize("code", [UNAVAILABLE, RESOURCE_EXHAUSTED])
@pytest.mark.parametrize(("pushback", "wait"), [
    ("0", 0.0), ("250", 0.25), ("-1", None), ("-250", None), ("", None), ("soon", None), ("1.5", None),
    ("\u0661", None), ("99999999", 99_999.999), ("9" * 9, None), ("9" * 400, None), ("9" * 5000, None)])
def test_pushback_is_obeyed(code: int, pushback: str, wait: float | None) -> None:
    assert attempts().wait_after(code, pushback) == wait


def test_after_pushback_the_backoff_starts_again() -> None:
    call = attempts(jitter=0.5)
    assert call.wait_after(UNAVAILABLE, None) == pytest.approx(0.1)
    assert call.wait_after(UNAVAILABLE, "7") == 0.007
    assert call.wait_after(UNAVAILABLE, None) == pytest.approx(0.1)


def test_resource_exhausted_without_pushback_is_final() -> None:
    assert attempts().wait_after(RESOURCE_EXHAUSTED, None) is None


@pytest.mark.parametrize("code", [INVALID_ARGUMENT, DEADLINE_EXCEEDED, 1, 2, 5, 9, 12, 13, 16])
@pytest.mark.parametrize("pushback", [None, "5"])
def test_other_codes_are_final(code: int, pushback: str | None) -> None:
    assert attempts().wait_after(code, pushback) is None


def test_one_attempt_is_final() -> None:
    assert attempts(policy=RetryPolicy(attempts=1)).wait_after(UNAVAILABLE, "0") is None


def test_no_wait_outlasts_the_deadline() -> None:
    clock = Clock()
    call = attempts(1.0, clock=clock)
    assert call.time_left() == 1.0
    assert call.wait_after(UNAVAILABLE, "999") == 0.999
    clock.now += 0.9
    assert call.time_left() == pytest.approx(0.1)
    assert call.wait_after(UNAVAILABLE, "101") is None
    assert call.wait_after(UNAVAILABLE, "50") == 0.05
    clock.now += 5
    assert call.time_left() == 0.0
    assert call.wait_after(UNAVAILABLE, "0") is None
    assert attempts().time_left() is None
