"""How a micro benchmark is timed and printed.

A benchmark is a function that takes a number of rounds and returns the nanoseconds they took, its loop in nogil C.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

SAMPLES = 7


@dataclass(frozen=True)
class Row:
    """Nanoseconds for one operation: the median of the samples, and the best of them."""

    module: str
    operation: str
    median_ns: float
    best_ns: float


def measure(module: str, operation: str, loop: Callable[[int], int], rounds: int = 200_000) -> Row:
    """Time `loop(rounds)` a few times after a warm-up."""
    loop(max(rounds // 10, 1))
    samples = [loop(rounds) / rounds for _ in range(SAMPLES)]
    return Row(module, operation, statistics.median(samples), min(samples))


def print_table(rows: Iterable[Row]) -> None:
    """One line per row, as they come."""
    print(f"{'module':<12} {'operation':<54} {'ns/op':>10} {'best':>10}")
    for row in rows:
        print(f"{row.module:<12} {row.operation:<54} {row.median_ns:>10.1f} {row.best_ns:>10.1f}", flush=True)
