"""A split in plain Python, and splits without versions, for tests of where keys go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from infer._core.variants import Split

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(value: int) -> int:
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & WORD
    value = (value ^ value >> 27) * 0x94D049BB133111EB & WORD
    return value ^ value >> 31


def hashed(key: bytes) -> int:
    value = GOLDEN ^ len(key)
    whole = len(key) // 8 * 8
    for at in range(0, whole, 8):
        value = mix(value ^ int.from_bytes(key[at : at + 8], "little")) + GOLDEN & WORD
    return mix(mix(value ^ int.from_bytes(key[whole:], "little"))) or 1


def chosen(salt: str, weights: Mapping[str, float], rules: Mapping[bytes, str], key: bytes) -> str:
    """The arm of a key, by the words of split.pxd."""
    if key in rules:
        return rules[key]

    def score(arm: str) -> float:
        seed = mix(hashed(salt.encode()) + mix(hashed(arm.encode())) & WORD)
        unit = ((mix(hashed(key) ^ seed) >> 11) + 0.5) / (1 << 53)
        return -math.log(unit) * (1 / weights[arm])

    return min((arm for arm in weights if weights[arm] > 0), key=score)


def split_of(weights: Mapping[str, float], salt: str = "m/split",
             rules: Mapping[bytes, str] | None = None) -> Split:
    names = list(weights)
    return Split(salt, [(name, weight, None, None) for name, weight in weights.items()],
                 [(key, names.index(arm)) for key, arm in (rules or {}).items()], "routing_key")


def shares(table: Sequence[Sequence[int]]) -> list[int]:
    """Of a contingency table, the keys of each arm of the first split."""
    return [sum(row) for row in table]


def chi_square(table: Sequence[Sequence[int]]) -> float:
    """Of independence (Pearson)."""
    rows, columns = shares(table), [sum(column) for column in zip(*table, strict=True)]
    total = sum(rows)
    return sum((table[i][j] - rows[i] * columns[j] / total) ** 2 / (rows[i] * columns[j] / total)
               for i in range(len(rows)) for j in range(len(columns)))
