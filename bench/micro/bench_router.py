"""From a name, and perhaps a version or label, to the version that serves it."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_bench_pipeline as core
from infer._core.model_version import VersionEntry
from infer._core.router import ModelRoute, RouteTable, route_to_highest


def version(name: str, number: int) -> VersionEntry:
    return VersionEntry(name, str(number), None, [], [], batched=True, max_rows=1, gather_rows=1, delay_ns=0,
                        queue_limit_rows=1, max_running=1, properties={})


def route(name: str) -> ModelRoute:
    highest = route_to_highest([version(name, number) for number in range(1, 4)])
    return highest._replace(labels={"canary": highest.versions[0]})


def rows() -> Iterator[Row]:
    for models in (1, 1_000):
        names = [f"model_{number}" for number in range(models)]
        table = RouteTable([(name, route(name)) for name in names])
        last = names[-1].encode()
        for what, name, asked in (("no version", last, b""), ("version 1", last, b"1"),
                                  ("label canary", last, b"canary"), ("unknown name", b"nobody", b"")):
            yield measure("router", f"{models} models, {what}",
                          partial(core.lookups, table=table, name=name, version=asked))
