"""Removes what the cache has forgotten, a little at each turn of the loop. Loop thread."""

from __future__ import annotations

import asyncio

from infer._core.cache import Cache


class CacheSweep:
    """One per server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cache: Cache) -> None:
        self._loop, self._cache = loop, cache
        self._next: asyncio.Handle | None = None

    def step(self) -> None:
        """Has it begin, where there is something to be removed."""
        if self._next is None:
            self._turn()

    def _turn(self) -> None:
        self._next = self._loop.call_soon(self._turn) if self._cache.sweep() else None

    def close(self) -> None:
        """The Cache removes the rest itself."""
        if self._next is not None:
            self._next.cancel()
