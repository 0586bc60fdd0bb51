"""Rows as aligned columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of text; the last column is as long as it is."""
    table = [head, *rows]
    widths = [max(len(row[at]) for row in table) for at in range(len(head) - 1)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()
            for row in table]
