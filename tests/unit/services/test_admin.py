"""infer.v1.Admin without a transport."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from infer.errors import Internal, NotFound
from infer.proto import message
from infer.services.admin import COUNTS, admin_service
from infer.services.call import Call
from tests.support.cold_server import FakeAudit, FakeCall


@dataclass(frozen=True)
class Kept:
    name: bytes
    version: str
    cache_stats: dict[str, int]


@dataclass
class FakeCache:
    versions: list[Kept]
    limit_bytes: int = 1000
    purged: list[tuple[str | None, str | None]] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(each.cache_stats["bytes"] for each in self.versions)

    @property
    def entries(self) -> int:
        return sum(each.cache_stats["entries"] for each in self.versions)

    def cached(self) -> list[Kept]:
        return self.versions

    def limit_of(self, entry: Kept) -> int:
        return 700

    def purge(self, model: str | None = None, version: str | None = None) -> tuple[int, int]:
        self.purged.append((model, version))
        return 3, 30


def counts(first: int) -> dict[str, int]:
    return {name: first + at for at, name in enumerate(COUNTS)} | {"bypassing": first % 2}


@pytest.fixture
def cache() -> FakeCache:
    return FakeCache([Kept(b"m", "10", counts(1)), Kept(b"n", "1", counts(2)), Kept(b"m", "9", counts(3))])


async def ask(cache: FakeCache, method: str, audit: FakeAudit | None = None, **fields: Any) -> Any:
    request = message(f"infer.v1.{method}Request")(**fields).SerializeToString()
    handlers = admin_service(cache, audit or FakeAudit())
    reply = await handlers[f"/infer.v1.Admin/{method}"](FakeCall("/p", request))
    return message(f"infer.v1.{method}Response").FromString(reply)


async def test_stats(cache: FakeCache) -> None:
    reply = await ask(cache, "CacheStats")
    assert (reply.limit_bytes, reply.bytes, reply.entries) == (1000, 6, 9)
    assert [(each.model, each.version, each.bypassed) for each in reply.versions] == [
        ("m", "9", True), ("m", "10", True), ("n", "1", False)]
    assert [[getattr(each, name) for name in COUNTS] for each in reply.versions] == [
        list(range(first, first + len(COUNTS))) for first in (3, 1, 2)]
    assert {each.limit_bytes for each in reply.versions} == {700}
    assert [each.model for each in (await ask(cache, "CacheStats", model="n")).versions] == ["n"]
    assert list((await ask(FakeCache([]), "CacheStats")).versions) == []


@pytest.mark.parametrize(("fields", "asked"), [
    ({}, (None, None)), ({"model": "m"}, ("m", None)), ({"model": "m", "version": "9"}, ("m", "9"))])
async def test_purge(cache: FakeCache, fields: dict[str, str], asked: tuple[str | None, str | None]) -> None:
    audit = FakeAudit()
    reply = await ask(cache, "CachePurge", audit, **fields)
    assert (reply.entries, reply.bytes) == (3, 30)
    assert cache.purged == [asked]
    [row] = audit.rows
    assert (row["event"], row["outcome"], row["model"], row["version"], row["detail"]) == (
        "cache purge", "done", fields.get("model", ""), fields.get("version", ""), "3 answers, 30 bytes")
    assert row["who"]


@pytest.mark.parametrize(("fields", "said"), [
    ({"model": "x"}, "model 'x'"), ({"model": "m", "version": "1"}, "model 'm' version '1'"),
    ({"version": "7"}, "a model version '7'")])
async def test_what_is_not_kept(cache: FakeCache, fields: dict[str, str], said: str) -> None:
    with pytest.raises(NotFound, match=f"^no answers of {said} are kept"):
        await ask(cache, "CachePurge", **fields)
    assert cache.purged == []


async def test_a_request_that_is_none(cache: FakeCache) -> None:
    with pytest.raises(Internal, match=r"is not a valid infer\.v1\.CachePurgeRequest"):
        await admin_service(cache, FakeAudit())["/infer.v1.Admin/CachePurge"](FakeCall("/p", b"\xff"))


async def test_a_change_goes_to_its_end_when_its_caller_gives_up(cache: FakeCache) -> None:
    begun, may_end, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def change(call: Call) -> bytes:
        begun.set()
        await may_end.wait()
        done.set()
        return b"changed"

    async def fail(call: Call) -> bytes:
        raise NotFound("there is none")

    handlers = admin_service(cache, FakeAudit(), {"Change": change, "Fail": fail})
    given_up = asyncio.ensure_future(handlers["/infer.v1.Admin/Change"](FakeCall("/p", b"")))
    await asyncio.wait_for(begun.wait(), 60)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    may_end.set()
    await asyncio.wait_for(done.wait(), 60)
    assert await handlers["/infer.v1.Admin/Change"](FakeCall("/p", b"")) == b"changed"
    with pytest.raises(NotFound, match="there is none"):
        await handlers["/infer.v1.Admin/Fail"](FakeCall("/p", b""))
