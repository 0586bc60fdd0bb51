"""The second level of the prediction cache: a Redis that servers of a fleet share. Loop thread.

Nothing waits for it longer than the time that it is given: what has not come by then is a miss, and so is everything
while it is down, hung or full. What it holds is believed only with the fleet's secret: each value carries a keyed
BLAKE2b-256 of its key and itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path
from typing import Any

from infer._core import clock
from infer.errors import ConfigError

log = logging.getLogger("infer.cache")

PREFIX = b"infer:1:"
MAC_BYTES = 32
SECRET_BYTES_LEAST, SECRET_BYTES_MOST = 16, 64
# Under way at once; more asks are misses, more stores are not made.
ASKS_MOST, STORES_MOST = 256, 64
VALUE_BYTES_MOST = 1 << 20
STORE_S = 1.0
# Of what has no time of its own: what nobody asks for any more leaves.
TTL_S = 86_400.0
FAILURES_IN_A_ROW = 5
FIRST_PAUSE_NS, LONGEST_PAUSE_NS = 1_000_000_000, 30_000_000_000

Answered = Callable[[int, int, bytes | None], object]


class Health:
    """Whether to ask: not for a time after FAILURES_IN_A_ROW, a time that doubles until an ask succeeds; then one."""

    def __init__(self) -> None:
        self.failures = 0
        self.until_ns = 0
        self._pause_ns = FIRST_PAUSE_NS
        self._trying = False

    @property
    def well(self) -> bool:
        return self.failures < FAILURES_IN_A_ROW

    def may_ask(self, now_ns: int) -> bool:
        if self.well:
            return True
        if self._trying or now_ns < self.until_ns:
            return False
        self._trying = True
        return True

    def good(self) -> None:
        self.failures, self._pause_ns, self._trying = 0, FIRST_PAUSE_NS, False

    def bad(self, now_ns: int) -> None:
        was_well, tried = self.well, self._trying
        self.failures, self._trying = self.failures + 1, False
        if tried or (was_well and not self.well):
            self.until_ns = now_ns + self._pause_ns
            self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)


def read_secret(file: Path) -> bytes:
    """The fleet's secret, the same on every server. Raises ConfigError."""
    try:
        secret = file.read_bytes().strip()
    except OSError as failure:
        raise ConfigError(f"--cache-redis-secret {file}: cannot be read: {failure.strerror}") from None
    if not SECRET_BYTES_LEAST <= len(secret) <= SECRET_BYTES_MOST:
        raise ConfigError(f"--cache-redis-secret {file}: expected {SECRET_BYTES_LEAST} to {SECRET_BYTES_MOST} bytes, "
                          f"got {len(secret)}; make one with: openssl rand -hex 32")
    return secret


def connect(url: str) -> Any:
    """A client of that Redis, which connects when it is first asked. Raises ConfigError."""
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise ConfigError("--cache-redis needs the package redis; install infer[redis]") from None
    try:
        return Redis.from_url(url, socket_connect_timeout=STORE_S, socket_timeout=STORE_S, retry=Retry(NoBackoff(), 0),
                              max_connections=ASKS_MOST + STORES_MOST)
    except ValueError as failure:
        raise ConfigError(f"--cache-redis {url}: {failure}") from None


class RedisLevel:
    """What the core asks (`second_level.Client`). `answered` is the pipeline's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, redis: Any, secret: bytes, *, timeout_s: float,
                 answered: Answered) -> None:
        self._loop, self._redis, self._secret = loop, redis, secret
        self._timeout_s, self._answered = timeout_s, answered
        self._tasks: set[asyncio.Task[None]] = set()
        self._asks = self._stores = 0
        self.health = Health()
        self.outcomes = dict.fromkeys(("hit", "miss", "late", "failed", "forged", "skipped", "stored", "not_stored"), 0)

    def ask(self, key: bytes, address: int, ticket: int) -> bool:
        """Whether it is asked; `answered` then hears of it within the time."""
        if self._asks >= ASKS_MOST or not self.health.may_ask(clock.now()):
            self.outcomes["skipped"] += 1
            return False
        self._asks += 1
        told = False

        def tell(tail: bytes | None) -> None:
            nonlocal told
            if not told:
                told = True
                self._answered(address, ticket, tail)

        def expire() -> None:
            self._failed("late", "it did not answer in time")
            tell(None)
            task.cancel()

        def done(ended: asyncio.Task[bytes | None]) -> None:
            timer.cancel()
            self._asks -= 1
            tell(None if ended.cancelled() else ended.result())

        task = self._start(self._get(key))
        timer = self._loop.call_later(self._timeout_s, expire)
        task.add_done_callback(done)
        return True

    async def _get(self, key: bytes) -> bytes | None:
        try:
            value = await self._redis.get(PREFIX + key)
        except Exception as failure:
            self._failed("failed", repr(failure))
            return None
        if not self.health.well:
            log.warning("the second level of the cache answers again")
        self.health.good()
        tail = None if value is None else self._opened(key, value)
        self.outcomes["miss" if value is None else "forged" if tail is None else "hit"] += 1
        return tail

    def takes(self, size_bytes: int) -> bool:
        """Whether an answer of that size would be stored now."""
        taken = size_bytes <= VALUE_BYTES_MOST and self._stores < STORES_MOST and self.health.well
        self.outcomes["not_stored"] += not taken
        return taken

    def store(self, key: bytes, tail: bytes, ttl_ns: int) -> None:
        self._stores += 1
        task = self._start(self._set(key, tail, ttl_ns / 1e9 or TTL_S))
        timer = self._loop.call_later(STORE_S, task.cancel)

        def done(ended: asyncio.Task[Any]) -> None:
            timer.cancel()
            self._stores -= 1
            self.outcomes["not_stored"] += ended.cancelled()

        task.add_done_callback(done)

    async def _set(self, key: bytes, tail: bytes, ttl_s: float) -> None:
        try:
            await self._redis.set(PREFIX + key, self._mac(key, tail) + tail, px=max(1, round(ttl_s * 1e3)))
        except Exception as failure:
            self.outcomes["not_stored"] += 1
            log.debug("the second level of the cache stores nothing: %r", failure)
        else:
            self.outcomes["stored"] += 1

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _failed(self, outcome: str, why: str) -> None:
        well = self.health.well
        self.health.bad(clock.now())
        self.outcomes[outcome] += 1
        if well and not self.health.well:
            log.warning("the second level of the cache is left aside for a while: %s", why)

    def _mac(self, key: bytes, tail: bytes) -> bytes:
        return blake2b(key + tail, digest_size=MAC_BYTES, key=self._secret).digest()

    def _opened(self, key: bytes, value: bytes) -> bytes | None:
        """The tail of a value that one of the fleet has stored under that key."""
        tail = value[MAC_BYTES:]
        return tail if compare_digest(value[:MAC_BYTES], self._mac(key, tail)) else None

    def gauges(self) -> dict[str, dict[str, int]]:
        return {"cache_second": dict(self.outcomes)}

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._redis.aclose()
