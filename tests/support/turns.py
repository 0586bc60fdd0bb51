"""Turns of an event loop, for tests that give others theirs without letting time pass."""

import asyncio


async def turn() -> None:
    """Once everything that is ready now has run."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.call_soon(over.set_result, None)
    await over
