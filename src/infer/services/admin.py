"""infer.v1.Admin: what an operator asks of the server, mounted on the port of administration alone. Loop thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from infer.errors import NotFound
from infer.proto import message
from infer.services.call import Call, Handler, parsed, shown, to_its_end, unary
from infer.services.control import caller
from infer.services.views import AuditView

SERVICE = "infer.v1.Admin"
PURGE = "cache purge"


class CachedView(Protocol):
    """A version whose answers are kept."""

    @property
    def name(self) -> bytes: ...

    @property
    def version(self) -> str: ...

    @property
    def cache_stats(self) -> Mapping[str, int] | None: ...


class CacheView(Protocol):
    """The cache of the server."""

    @property
    def limit_bytes(self) -> int: ...

    @property
    def bytes(self) -> int: ...

    @property
    def entries(self) -> int: ...

    def cached(self) -> Sequence[Any]:
        """CachedView of each version."""

    def limit_of(self, entry: Any) -> int:
        """The bound of its model."""

    def purge(self, model: str | None = None, version: str | None = None) -> tuple[int, int]:
        """Forgets; (entries, bytes) that it was."""


def admin_service(cache: CacheView, audit: AuditView, *parts: Mapping[str, Handler]) -> Mapping[str, Handler]:
    """The handler of each RPC by its path. `parts`: those of other modules, by RPC."""

    def stats(request: Any) -> Any:
        reply = message("infer.v1.CacheStatsResponse")(limit_bytes=cache.limit_bytes, bytes=cache.bytes,
                                                       entries=cache.entries)
        for entry in _chosen(cache, request.model, ""):
            counts = dict(entry.cache_stats or {})
            reply.versions.add(model=entry.name.decode(), version=entry.version, limit_bytes=cache.limit_of(entry),
                               bypassed=bool(counts["bypassing"]), **{name: counts[name] for name in COUNTS})
        return reply

    async def purge(call: Call) -> bytes:
        request = parsed(call.path, call.message, message("infer.v1.CachePurgeRequest"))
        _chosen(cache, request.model, request.version)
        entries, size = cache.purge(request.model or None, request.version or None)
        audit.record(PURGE, outcome="done", who=caller(call), model=request.model, version=request.version,
                     detail=f"{entries} answers, {size} bytes")
        content: bytes = message("infer.v1.CachePurgeResponse")(entries=entries, bytes=size).SerializeToString()
        return content

    rpcs: dict[str, Handler] = {"CacheStats": unary("infer.v1.CacheStatsRequest", stats), "CachePurge": purge}
    for part in parts:
        rpcs |= {method: to_its_end(handler) for method, handler in part.items()}
    return {f"/{SERVICE}/{method}": handler for method, handler in rpcs.items()}


COUNTS = ("bytes", "entries", "hits", "joined", "misses", "passed", "evictions", "expiries", "rejections", "waiting")


def _chosen(cache: CacheView, model: str, version: str) -> list[Any]:
    """By name and number. Raises NotFound where something is named and nothing of it is kept."""
    found: list[Any] = sorted(
        (entry for entry in cache.cached()
         if model in ("", entry.name.decode()) and version in ("", entry.version)),
        key=lambda entry: (entry.name, int(entry.version)))
    if not found and (model or version):
        named = f"model {shown(model)}" if model else "a model"
        named += f" version {shown(version)}" if version else ""
        raise NotFound(f"no answers of {named} are kept: it is not served, or its cache is off; --cache or "
                       "response_cache of the model turns it on")
    return found
