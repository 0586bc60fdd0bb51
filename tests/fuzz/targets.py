"""What is fuzzed, by name; each takes the fuzzer's bytes and raises where something does not hold."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from infer._core import arena
from tests.fuzz import decoder, message, session

ARENA_BYTES = 1 << 40, 1 << 30       # as tests/conftest.py opens it
TARGETS: dict[str, Callable[[bytes], None]] = {"session": session.run, "message": message.run, "decoder": decoder.run}


def target(name: str) -> Callable[[bytes], None]:
    """The function for `name`; what a callback without a caller raises counts as its own."""
    if name not in TARGETS:
        raise SystemExit(f"no fuzzing target {name!r}: INFER_FUZZ is one of {', '.join(TARGETS)}")
    run = TARGETS[name]
    arena.open(*ARENA_BYTES)

    def strict(data: bytes) -> None:
        lost: list[Any] = []
        before = sys.unraisablehook
        sys.unraisablehook = lost.append
        try:
            run(data)
        finally:
            sys.unraisablehook = before
        if lost:
            raise lost[0].exc_value

    return strict
