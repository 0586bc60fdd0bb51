"""What every transport does around a cold handler."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from infer.errors import InferError

T = TypeVar("T")

log = logging.getLogger("infer.transport")

INTERNAL = 13


async def invoke(handle: Callable[[T], Awaitable[bytes | None]], call: T, path: str) -> tuple[int, bytes]:
    """Runs a cold handler: (gRPC status, reply or, where it is not 0, message as UTF-8)."""
    try:
        return 0, await handle(call) or b""
    except InferError as error:
        return error.code, error.message.encode()
    except Exception:
        log.exception("%s failed", path)
        return INTERNAL, f"{path} failed; the server's log has the reason".encode()
