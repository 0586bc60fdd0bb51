"""A table of how far outputs are apart, for what compares replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infer.cli.tables import columns

HEAD = ("OUTPUT", "COMPARED", "DIFFERING", "OTHER KIND", "MAX ABS", "MAX REL", "REL P50", "REL P99", "TOP-1 SAME",
        "1-COS P99")


def table_of(outputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """By output, as `difference.described` has it; no line for none."""
    return list(columns(HEAD, [_row(name, each) for name, each in outputs.items()])) if outputs else []


def _row(name: str, output: Mapping[str, Any]) -> tuple[str, ...]:
    top1 = f"{output['top1_same'] / output['top1']:.2%}" if output["top1"] else "-"
    cosine = f"{output['cosine_distance']['p99']:.3g}" if output["cosine_distance"]["count"] else "-"
    return (name, str(output["compared"]), str(output["differing"]), str(output["incomparable"]),
            f"{output['max_abs']:.3g}", f"{output['max_rel']:.3g}", f"{output['relative']['p50']:.3g}",
            f"{output['relative']['p99']:.3g}", top1, cosine)
