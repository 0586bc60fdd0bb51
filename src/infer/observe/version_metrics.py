"""The metrics of versions as text, which with a thousand models are most of a scrape.

Samples are many and names few: the lines of a version's histogram are a template, which its counts are filled into.
On the HTTP thread; between two versions others get the GIL.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

CODES = ("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
         "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
         "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED")
SECONDS = (.00005, .0001, .00025, .0005, .001, .002, .003, .005, .0075, .01, .015, .025, .05, .1, .25, .5, 1., 2.5, 5.,
           10.)
TIME_BOUNDS_NS = tuple(round(second * 1e9) for second in SECONDS)
ROW_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# (count, sum, cumulative counts at the bounds); times in nanoseconds.
HistogramSnapshot = tuple[int, int, Sequence[int]]
# Where a version's labels go; no number has it.
LABELS = b"@"


class VersionSource(Protocol):
    """A version's counters."""

    @property
    def name(self) -> bytes: ...

    @property
    def version(self) -> str: ...

    @property
    def settings(self) -> Any:
        """The ModelSettings that it serves under, or None."""

    def stats_snapshot(self, time_bounds_ns: tuple[int, ...], row_bounds: tuple[int, ...]) -> Mapping[str, Any]:
        """`calls` by gRPC code, `rows`, `batches`, `charged_ns` (of executors), `batches_left` by reason,
        `queue_refused` by limit, `expired` by place, `queue_delayed`, and of `request`, `queue`, `compute` (ns) and
        `batch_rows` a HistogramSnapshot each."""


class _Histogram(NamedTuple):
    key: str                        # of stats_snapshot
    name: str
    text: str
    bounds: Sequence[float]         # where a version has none of its own
    scale: float                    # from the family's unit to what is counted

    def counted(self, bound: float) -> int:
        """The largest whole count below or at a bound; what multiplying adds to it is no count."""
        return math.floor(bound * self.scale + 1e-6)


_HISTOGRAMS = (
    _Histogram("request", "infer_request_seconds", "From a call's first byte to its reply.", SECONDS, 1e9),
    _Histogram("queue", "infer_queue_seconds", "From a request's queueing to its batch.", SECONDS, 1e9),
    _Histogram("compute", "infer_compute_seconds", "Gathering, running and scattering a batch.", SECONDS, 1e9),
    _Histogram("batch_rows", "infer_batch_rows", "Rows per executed batch.", ROW_BOUNDS, 1),
)


class _Buckets(NamedTuple):
    """Of one version's histograms, or of all that have no buckets of their own."""

    times_ns: tuple[int, ...]               # as they are asked for
    rows: tuple[int, ...]
    places: Sequence[Sequence[int]]         # of each histogram's buckets among these
    templates: Sequence[bytes]


def _buckets(own: Mapping[str, Sequence[float]]) -> _Buckets:
    times, rows = set(TIME_BOUNDS_NS), set(ROW_BOUNDS)
    for each in _HISTOGRAMS:
        (rows if each.scale == 1 else times).update(map(each.counted, own.get(each.name, ())))
    asked = tuple(sorted(times)), tuple(sorted(rows))
    edges = [own.get(each.name, each.bounds) for each in _HISTOGRAMS]
    places = [[asked[each.scale == 1].index(each.counted(edge)) for edge in listed]
              for each, listed in zip(_HISTOGRAMS, edges, strict=True)]
    return _Buckets(*asked, places, [_template(each.name, listed)
                                     for each, listed in zip(_HISTOGRAMS, edges, strict=True)])


def _template(name: str, edges: Sequence[float]) -> bytes:
    """Takes the cumulative counts, twice the count of all, and the sum."""
    labels = LABELS.decode()
    lines = [f'{name}_bucket{{le="{edge}",{labels}}} %d\n' for edge in [*map(str, map(float, edges)), "+Inf"]]
    return "".join([*lines, f"{name}_count{{{labels}}} %d\n", f"{name}_sum{{{labels}}} %r\n"]).encode()


_PLAIN = _buckets({})


# Name and text, in the order of `_Text.counters`.
_COUNTERS = (
    ("infer_requests", "Finished inference calls; without a model where none was found."),
    ("infer_rows", "Rows executed."),
    ("infer_batches", "Batches executed."),
    ("infer_executor_seconds", "Executor time by which models share: of batches, without what others took."),
    ("infer_batches_left", "Batches that left their queue, by why they did then."),
    ("infer_queue_refused", "Requests that a model's queue did not take, or gave up, for a limit."),
    ("infer_expired", "Requests whose deadline passed in the queue, where they were not run, or while they ran."),
    ("infer_queue_delayed", "Requests that went behind all others for waiting too long."),
    ("infer_cache_hits", "Requests answered without a run: by what was kept, or joined: by another's run."),
    ("infer_cache_misses", "Requests that were looked up and had to run."),
    ("infer_cache_passed", "Requests that were not looked up: they asked for that, or hits are too few for it."),
    ("infer_cache_rows", "Rows that were looked up one by one (--cache-rows), by whether they were known."),
    ("infer_cache_gone", "Answers that were not kept any longer, or not at all, by why."),
)


class _Text(NamedTuple):
    """Of one version: lines by family."""

    counters: Sequence[bytes]
    histograms: Sequence[bytes]


def _text(version: VersionSource) -> _Text:
    own = version.settings.histogram_buckets if version.settings is not None else {}
    buckets = _buckets(own) if own else _PLAIN
    stats = version.stats_snapshot(buckets.times_ns, buckets.rows)
    labels = labels_of(version.name.decode(), version.version)
    histograms = []
    for each, places, template in zip(_HISTOGRAMS, buckets.places, buckets.templates, strict=True):
        count, total, by_bound = stats[each.key]
        cumulative = [by_bound[place] for place in places]
        # An observation may fall between the reads of its counter and of its bucket.
        count = max(count, cumulative[-1])
        histograms.append((template % (*cumulative, count, count, total / each.scale)).replace(LABELS, labels))
    return _Text([_requests(stats["calls"], labels, "OK"), b"infer_rows_total{%b} %d\n" % (labels, stats["rows"]),
                  b"infer_batches_total{%b} %d\n" % (labels, stats["batches"]),
                  b"infer_executor_seconds_total{%b} %r\n" % (labels, stats["charged_ns"] / 1e9),
                  _by("infer_batches_left", "reason", stats["batches_left"], labels),
                  _by("infer_queue_refused", "limit", stats["queue_refused"], labels),
                  _by("infer_expired", "in", stats["expired"], labels),
                  b"infer_queue_delayed_total{%b} %d\n" % (labels, stats["queue_delayed"]),
                  *_cache(stats["cache"], labels)], histograms)


def _cache(stats: Mapping[str, int] | None, labels: bytes) -> Sequence[bytes]:
    """Its five families; empty for a version whose answers are not kept."""
    if stats is None:
        return [b""] * 5
    return [_by("infer_cache_hits", "by", {"kept": stats["hits"] - stats["joined"], "joined": stats["joined"]}, labels),
            b"infer_cache_misses_total{%b} %d\n" % (labels, stats["misses"]),
            b"infer_cache_passed_total{%b} %d\n" % (labels, stats["passed"]),
            _by("infer_cache_rows", "found", {"known": stats["known_rows"], "new": stats["new_rows"]}, labels),
            _by("infer_cache_gone", "reason", {"evicted": stats["evictions"], "expired": stats["expiries"],
                                               "rejected": stats["rejections"]}, labels)]


def labels_of(model: str, version: str) -> bytes:
    return f'model="{escaped(model)}",version="{escaped(version)}"'.encode()


def escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _by(name: str, label: str, counts: Mapping[str, int], labels: bytes) -> bytes:
    return b"".join(f'{name}_total{{{label}="{value}",'.encode() + b"%b} %d\n" % (labels, count)
                    for value, count in counts.items())


def _requests(calls: Iterable[int], labels: bytes, always: str = "") -> bytes:
    """By gRPC code; of those that there were none of, only `always`."""
    return b"".join(b'infer_requests_total{code="%b",%b} %d\n' % (code.encode(), labels, count)
                    for code, count in zip(CODES, calls, strict=False) if count or code == always)


def families(versions: Iterable[VersionSource], unrouted: Sequence[int], openmetrics: bool) -> Iterator[bytes]:
    """The text, in pieces. `unrouted`: calls by gRPC code that ended before a version was found."""
    texts = [_text(version) for version in versions]
    for index, (name, said) in enumerate(_COUNTERS):
        yield _head(name, said, openmetrics)
        yield from (text.counters[index] for text in texts)
        if name == "infer_requests":
            yield _requests(unrouted, labels_of("", ""))
    for index, each in enumerate(_HISTOGRAMS):
        yield f"# HELP {each.name} {each.text}\n# TYPE {each.name} histogram\n".encode()
        yield from (text.histograms[index] for text in texts)


def _head(name: str, text: str, openmetrics: bool) -> bytes:
    """Of a counter, whose family OpenMetrics calls otherwise than its samples."""
    family = name if openmetrics else f"{name}_total"
    return f"# HELP {family} {text}\n# TYPE {family} counter\n".encode()
