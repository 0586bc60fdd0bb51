"""The metrics of variants: what became of the requests that a split gave to each. On the HTTP thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from infer.observe.version_metrics import CODES, SECONDS, TIME_BOUNDS_NS

LABELS = ["model", "variant"]


class VariantSource(Protocol):
    """An Arm's counters."""

    @property
    def model(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def calls(self) -> Sequence[int]:
        """By gRPC code."""

    @property
    def rows(self) -> int: ...

    def snapshot(self, bounds_ns: tuple[int, ...]) -> tuple[int, int, Sequence[int]]:
        """Of all requests: count, sum in ns, cumulative counts."""


def variant_families(variants: Iterable[VariantSource]) -> Iterator[Metric]:
    requests = CounterMetricFamily("infer_variant_requests", "Finished calls of a model whose traffic is divided, by "
                                   "the variant that they were given to.", labels=[*LABELS, "code"])
    rows = CounterMetricFamily("infer_variant_rows", "Rows of those that succeeded.", labels=LABELS)
    seconds = HistogramMetricFamily("infer_variant_request_seconds", "From such a call's first byte to its reply.",
                                    labels=LABELS)
    for each in variants:
        labels = [each.model, each.name]
        for code, count in zip(CODES, each.calls, strict=True):
            if count or code == "OK":
                requests.add_metric([*labels, code], count)
        rows.add_metric(labels, each.rows)
        count, total, cumulative = each.snapshot(TIME_BOUNDS_NS)
        buckets = [(str(float(bound)), number) for bound, number in zip(SECONDS, cumulative, strict=True)]
        seconds.add_metric(labels, [*buckets, ("+Inf", count)], total / 1e9)
    if requests.samples:
        yield from (requests, rows, seconds)
