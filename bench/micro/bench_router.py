"""From a name, and perhaps a version, to the version that serves it."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_bench_pipeline as core
from infer._core.model_version import VersionEntry
from infer._core.router import RouteTable


def version(name: str, number: int) -> VersionEntry:
    return VersionEntry(name, str(number), None, [], [], batched=True, max_rows=1, gather_rows=1, delay_ns=0,
                        queue_limit_rows=1, max_running=1, properties={})


def rows() -> Iterator[Row]:
    for models in (1, 1_000):
        names = [f"model_{number}" for number in range(models)]
        table = RouteTable([(name, [version(name, number) for number in range(1, 4)], None) for name in names])
        last = names[-1].encode()
        yield measure("router", f"{models} models, highest version",
                      partial(core.lookups, table=table, name=last, version=b""))
        yield measure("router", f"{models} models, version 1",
                      partial(core.lookups, table=table, name=last, version=b"1"))
        yield measure("router", f"{models} models, unknown name",
                      partial(core.lookups, table=table, name=b"nobody", version=b""))
