"""Which values of replies an arm counts: of every output with numbers that a reply holds, whoever has answered it."""

from __future__ import annotations

import numpy as np
import pytest

from infer._core._testing_sketch import bin_of
from infer._core.arm import OUTPUTS, Arm
from infer._core.cache import Cache
from infer._core.router import ModelRoute, RouteTable
from infer._core.variants import Split
from tests.support import models
from tests.support.puppets import Bench, make_entry
from tests.support.requests import add_raw, infer_request, pack

TIMES = 12


class Counted:
    """Model m, all of whose requests are one arm's."""

    def __init__(self, model: bytes, *, cached: bool) -> None:
        self.entry = entry = make_entry(model, gather_rows=4)
        self.arm = Arm("m", "split", "one")
        self.arm.sketches = True
        self.bench = Bench(entry, **({"cache": Cache(1 << 20)} if cached else {}))
        split = Split("m/split", [("one", 1.0, self.arm, entry)], [], "user")
        self.bench.pipeline.set_routes(RouteTable([("m", ModelRoute([entry], {}, entry, split=split))]))

    def bins(self) -> list[dict[int, int]]:
        return self.arm.output_bins()

    def values(self, content: bytes, times: int = TIMES) -> None:
        for _ in range(times):
            call = self.bench.call(content)
            self.bench.run_all()
            assert self.bench.outcome(call).code == 0

    def close(self) -> None:
        for outcome in self.bench.outcomes:
            _ = outcome.data
        self.bench.close()


def request(*outputs: str) -> bytes:
    made = infer_request("m")
    add_raw(made, "x", "FP32", [1, 4], pack("FP32", [1.0, 2.0, 3.0, 4.0]))
    add_raw(made, "z", "FP32", [1, 2], pack("FP32", [5.0, -6.0]))
    for name in outputs:
        made.outputs.add(name=name)
    content: bytes = made.SerializeToString()
    return content


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("outputs", "seen"), [
    ((), (True, True, True)), (("y", "w", "v"), (True, True, True)), (("w",), (False, True, False)),
    (("v", "y"), (True, False, True))])
def test_a_value_of_each_output_of_each_reply(stepped_clock: None, cached: bool, outputs: tuple[str, ...],
                                              seen: tuple[bool, ...]) -> None:
    counted = Counted(models.two_in_three_out(), cached=cached)
    counted.values(request(*outputs))
    # y = [x, z], w = the sum of x, v = z > 0.
    wanted = [{bin_of(each) for each in (1.0, 2.0, 3.0, 4.0, 5.0, -6.0)}, {bin_of(10.0)}, {bin_of(1.0), bin_of(0.0)}]
    for bins, values, there in zip(counted.bins(), wanted, seen, strict=False):
        # One of each reply, in turn from anywhere in it.
        assert (sum(bins.values()), set(bins)) == ((TIMES, values) if there else (0, set()))
    assert not cached or counted.entry.cache_stats["hits"] == TIMES - 1
    assert counted.bins()[3:] == [{}] * (OUTPUTS - 3)
    counted.close()


@pytest.mark.parametrize("cached", [False, True])
def test_a_large_reply_of_the_cache(stepped_clock: None, cached: bool) -> None:
    counted = Counted(models.identity(), cached=cached)
    made = infer_request("m")
    row = np.arange(1 << 12, dtype=np.float32).reshape(-1, 4)
    add_raw(made, "x", "FP32", list(row.shape), row.tobytes())
    counted.values(made.SerializeToString(), 200)
    [bins, *_] = counted.bins()
    assert sum(bins.values()) == 200
    assert len(bins) > 20
    counted.close()


@pytest.mark.parametrize("cached", [False, True])
def test_nothing_is_counted_that_nobody_wants_to_know(stepped_clock: None, cached: bool) -> None:
    counted = Counted(models.two_in_three_out(), cached=cached)
    counted.arm.sketches = False
    counted.values(request())
    assert counted.bins() == [{}] * OUTPUTS
    counted.close()


@pytest.mark.parametrize("cached", [False, True])
def test_outputs_of_text_are_left_out(stepped_clock: None, cached: bool) -> None:
    counted = Counted(models.string_join(), cached=cached)
    made = infer_request("m")
    add_raw(made, "x", "BYTES", [1, 2], b"\1\0\0\0a\1\0\0\0b")
    counted.values(made.SerializeToString())
    assert counted.bins() == [{}] * OUTPUTS
    counted.close()
