"""What services see of models, and of where they put down what they do. Loop thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from infer.outcome_metrics import Outcome


class TensorView(Protocol):
    """A declared input or output."""

    @property
    def name(self) -> str: ...

    @property
    def datatype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...] | None:
        """-1 for a dimension that varies; None where the model does not say the rank."""

    @property
    def served(self) -> bool: ...

    @property
    def optional(self) -> bool: ...


class SessionView(Protocol):
    """What runs a version."""

    @property
    def providers(self) -> Sequence[tuple[str, Mapping[str, str]]]:
        """Execution providers with their options, in the order of preference."""


class VersionView(Protocol):
    """A servable version of a model."""

    @property
    def name(self) -> bytes: ...

    @property
    def version(self) -> str: ...

    @property
    def inputs(self) -> Sequence[TensorView]: ...

    @property
    def outputs(self) -> Sequence[TensorView]: ...

    @property
    def properties(self) -> Mapping[str, str]: ...

    @property
    def session(self) -> SessionView: ...

    @property
    def settings(self) -> Any:
        """The ModelSettings that it serves under, completed; None where nothing was written."""

    @property
    def batched(self) -> bool: ...

    @property
    def max_rows(self) -> int:
        """Rows that one request may carry."""

    @property
    def gather_rows(self) -> int:
        """Rows that a batch gathers from several requests."""

    @property
    def delay_ns(self) -> int:
        """How long a batch may wait for more rows."""

    @property
    def max_running(self) -> int:
        """Batches that run at once."""

    def stats_snapshot(self, second_bounds_ns: tuple[int, ...], row_bounds: tuple[int, ...]) -> Mapping[str, Any]:
        """Counters since it was loaded: `calls` by gRPC code, `rows`, `batches`, `last_inference_ms`, sums of time as
        `*_ns`, and `batch_sizes`: (rows, batches, gather_ns, run_ns, scatter_ns) of each size that was run."""


class RouteView(Protocol):
    """Where the calls of one model lead."""

    @property
    def versions(self) -> Sequence[VersionView]: ...

    @property
    def labels(self) -> Mapping[str, VersionView]: ...


class RoutesView(Protocol):
    """Which models lead where, at one moment."""

    def lookup(self, name: str, version: str) -> VersionView:
        """The version, the highest one for an empty `version`. Raises InferError with the code of WIRE 4.4."""

    def models(self) -> Sequence[tuple[str, Sequence[VersionView]]]: ...

    def route_of(self, name: str) -> RouteView | None:
        """Of a model that is known."""


class AuditView(Protocol):
    """Where changes are put down."""

    def record(self, event: str, *, outcome: str, who: str, model: str = "", version: str = "",
               detail: str = "") -> object: ...


class OutcomesView(Protocol):
    """Where outcomes are counted."""

    def ensure_number(self, number: int) -> None:
        """Of outcomes in one call. Raises InvalidArgument."""

    def record(self, outcomes: Sequence[Outcome]) -> Mapping[str, int]:
        """How many of them came to what: accepted, duplicate, unknown, late. Raises InferError."""
