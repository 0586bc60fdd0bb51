"""When a second level of the cache is asked, what it may take, what of it is believed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from infer.cache_redis import (
    ASKS_MOST,
    FAILURES_IN_A_ROW,
    FIRST_PAUSE_NS,
    LONGEST_PAUSE_NS,
    STORES_MOST,
    VALUE_BYTES_MOST,
    Health,
    RedisLevel,
    read_secret,
)
from infer.config import load_settings
from infer.errors import ConfigError
from tests.support.turns import turn

SECRET = b"s" * 32
KEY = b"k" * 32


class FakeRedis:
    """Holds what it is given; hangs while it is told to."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.hangs = False
        self.fails = False

    async def get(self, key: bytes) -> bytes | None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise OSError("gone")
        return self.held.get(key)

    async def set(self, key: bytes, value: bytes, px: int) -> None:
        await self.get(key)
        assert px > 0
        self.held[key] = value

    async def aclose(self) -> None:
        pass


class Bench:
    def __init__(self, timeout_s: float = 10.0) -> None:
        self.redis = FakeRedis()
        self.answers: list[tuple[int, int, bytes | None]] = []
        self.level = RedisLevel(asyncio.get_running_loop(), self.redis, SECRET, timeout_s=timeout_s,
                                answered=lambda *answer: self.answers.append(answer))

    async def settle(self) -> None:
        while self.level._tasks:
            await asyncio.gather(*self.level._tasks, return_exceptions=True)
            # Those that have ended are taken off in the turn after.
            await turn()


async def test_what_is_stored_is_found() -> None:
    bench = Bench()
    bench.level.store(KEY, b"tail", 0)
    await bench.settle()
    assert bench.level.ask(KEY, 1, 2)
    assert bench.level.ask(b"other", 3, 4)
    await bench.settle()
    assert sorted(bench.answers) == [(1, 2, b"tail"), (3, 4, None)]
    (stored,) = bench.redis.held.values()
    for forged in (b"", stored[:10], stored + b"x", b"tail"):
        bench.redis.held = dict.fromkeys(bench.redis.held, forged)
        bench.level.ask(KEY, 1, 2)
        await bench.settle()
        assert bench.answers[-1] == (1, 2, None)
    assert bench.level.outcomes["forged"] == 4


async def test_asks_end_in_their_time_and_only_so_many_are_under_way() -> None:
    bench = Bench(timeout_s=0.001)
    bench.redis.hangs = True
    assert [bench.level.ask(KEY, index, 0) for index in range(ASKS_MOST + 1)] == [True] * ASKS_MOST + [False]
    await bench.settle()
    assert sorted(bench.answers) == [(index, 0, None) for index in range(ASKS_MOST)]
    assert (bench.level.outcomes["late"], bench.level.outcomes["skipped"]) == (ASKS_MOST, 1)
    assert not bench.level.ask(KEY, 0, 0)


async def test_only_so_much_is_stored() -> None:
    bench = Bench()
    bench.redis.hangs = True
    assert bench.level.takes(VALUE_BYTES_MOST)
    assert not bench.level.takes(VALUE_BYTES_MOST + 1)
    for _ in range(STORES_MOST):
        bench.level.store(KEY, b"tail", 10**9)
    assert not bench.level.takes(1)
    await bench.level.close()
    assert bench.answers == []


async def test_one_that_fails_is_a_miss_and_is_left_aside(stepped_clock: None) -> None:
    bench = Bench()
    bench.redis.fails = True
    for _ in range(FAILURES_IN_A_ROW):
        assert bench.level.ask(KEY, 0, 0)
        await bench.settle()
    assert bench.answers == [(0, 0, None)] * FAILURES_IN_A_ROW
    assert not bench.level.ask(KEY, 0, 0)
    assert not bench.level.takes(1)
    await bench.level.close()


def failed(health: Health, now_ns: int) -> None:
    for _ in range(FAILURES_IN_A_ROW):
        assert health.may_ask(now_ns)
        health.bad(now_ns)


def test_a_pause_ends_with_one_that_is_tried_and_doubles_with_each_that_fails() -> None:
    health, now = Health(), 0
    failed(health, now)
    pause = FIRST_PAUSE_NS
    for _ in range(8):
        assert not health.may_ask(now + pause - 1)
        now += pause
        assert (health.may_ask(now), health.may_ask(now)) == (True, False)
        health.bad(now)
        pause = min(2 * pause, LONGEST_PAUSE_NS)
    now += pause
    assert health.may_ask(now)
    health.good()
    failed(health, now)
    assert health.may_ask(now + FIRST_PAUSE_NS)


def test_failures_that_come_late_do_not_lengthen_the_pause() -> None:
    health = Health()
    failed(health, 0)
    for late in range(50):
        health.bad(late)
    assert health.may_ask(FIRST_PAUSE_NS)


@pytest.mark.parametrize("content", [b"short", b"l" * 65])
def test_secrets(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(b"0123456789abcdef\n")
    assert read_secret(tmp_path / "secret") == b"0123456789abcdef"
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match="expected 16 to 64 bytes"):
        read_secret(tmp_path / "secret")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret(tmp_path / "absent")


@pytest.mark.parametrize(("given", "missing"), [
    ({"cache_redis": "redis://h"}, "--cache-redis: give --cache-redis-secret too"),
    ({"cache_redis_secret": "f"}, "--cache-redis-secret: give --cache-redis too")])
def test_a_redis_needs_a_secret(given: dict[str, Any], missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        load_settings({"paths": ("m.onnx",), **given}, {}, None)


def test_what_cannot_be_used_is_told_with_the_other_settings(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    given = {"paths": ("m.onnx",), "cache_redis": "http://h", "cache_redis_secret": str(tmp_path / "secret")}
    with pytest.raises(ConfigError, match="--cache-redis http://h: "):
        load_settings(given, {}, None)
    with pytest.raises(ConfigError, match="absent: cannot be read"):
        load_settings({**given, "cache_redis_secret": str(tmp_path / "absent")}, {}, None)
    assert load_settings({**given, "cache_redis": "redis://h/0"}, {}, None)[0].cache_redis == "redis://h/0"
