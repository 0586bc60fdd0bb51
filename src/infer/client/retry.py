"""When a failed call is tried again: gRPC's retry design (gRFC A6) as far as it serves one inference call. Pure.

UNAVAILABLE is tried again after a growing, jittered time, or after what the server asks for in
`grpc-retry-pushback-ms`. RESOURCE_EXHAUSTED is tried again only where the server says when: else more of the same load
would come back on top of it. A negative pushback, or one that is not a number, forbids both. No wait outlasts the
deadline.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from infer.errors import ResourceExhausted, Unavailable

PUSHBACK = "grpc-retry-pushback-ms"
# Longer ones are taken for a no: more than a day is not a time to wait.
PUSHBACK_DIGITS = 8


@dataclass(frozen=True)
class RetryPolicy:
    """Times in seconds. One attempt: never again."""

    attempts: int = 5
    first_backoff: float = 0.1
    backoff_factor: float = 2.0
    longest_backoff: float = 2.0
    jitter: float = 0.2             # of a backoff, either way


DEFAULT_RETRY = RetryPolicy()


class Attempts:
    """One call's attempts until its deadline, `timeout` seconds from now (None: it has none)."""

    def __init__(self, policy: RetryPolicy, timeout: float | None, *, clock: Callable[[], float] = time.monotonic,
                 uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._policy = policy
        self._clock = clock
        self._uniform = uniform
        self._deadline = None if timeout is None else clock() + timeout
        self._failed = 0
        self._backoff = policy.first_backoff

    def time_left(self) -> float | None:
        """Seconds to the deadline, 0 once it has passed."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    def wait_after(self, code: int, pushback: str | None) -> float | None:
        """Seconds to wait before the next attempt after one that failed with `code`, None where there is none."""
        self._failed += 1
        if self._failed >= self._policy.attempts or code not in (Unavailable.code, ResourceExhausted.code):
            return None
        if pushback is not None:
            if not (pushback.isascii() and pushback.isdigit() and len(pushback) <= PUSHBACK_DIGITS):
                return None
            wait = int(pushback) / 1000
            self._backoff = self._policy.first_backoff
        elif code == ResourceExhausted.code:
            return None
        else:
            wait = self._backoff * self._uniform(1 - self._policy.jitter, 1 + self._policy.jitter)
            self._backoff = min(self._backoff * self._policy.backoff_factor, self._policy.longest_backoff)
        left = self.time_left()
        return None if left is not None and wait >= left else wait
