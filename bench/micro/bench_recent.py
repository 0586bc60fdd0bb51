"""What a request of an experiment costs: which arm its key belongs to, and that its id is remembered."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_split as core
from infer._core.recent import Recent
from infer._core.variants import Split


def rows() -> Iterator[Row]:
    for arms in (2, 3, 8):
        split = Split("m/e", [(str(arm), 1.0 + arm, None, None) for arm in range(arms)], [], "routing_key")
        yield measure("split", f"the arm of a hashed key, of {arms}", partial(core.choices, split))
    for entries in (1_000, 100_000, 1 << 20):
        recent = Recent(entries)
        yield measure("recent", f"put, {entries} remembered", partial(core.puts, recent))
        yield measure("recent", f"find, {entries} remembered", partial(core.finds, recent))
