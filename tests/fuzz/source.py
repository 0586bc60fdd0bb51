"""An input of the fuzzer as a stream of small decisions: reading past its end gives zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Source:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def byte(self) -> int:
        if self.at >= len(self.data):
            return 0
        self.at += 1
        return self.data[self.at - 1]

    def number(self, size_bytes: int) -> int:
        return int.from_bytes(self.take(size_bytes), "big")

    def take(self, size_bytes: int) -> bytes:
        taken = self.data[self.at:self.at + size_bytes]
        self.at += len(taken)
        return taken

    def text(self) -> bytes:
        """Up to 255 bytes."""
        return self.take(self.byte())

    def one_of(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]
