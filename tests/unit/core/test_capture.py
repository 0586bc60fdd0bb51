"""What a capture takes of a version's calls, and its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from infer._core import clock
from infer._core.capture import Capture
from tests.support.models import identity
from tests.support.puppets import PREFIX_BYTES, SECOND_NS, Bench, fp32_request, make_entry

if TYPE_CHECKING:
    from infer._core.capture import Taken

ROW = fp32_request([[1.0, 2.0, 3.0, 4.0]], id="an id")
WIDE = ("batch", "length")
BOUNDS: dict[str, Any] = {"fraction": 1.0, "per_second": 0, "max_waiting": 1000, "max_waiting_bytes": 1 << 20,
                          "max_message_bytes": 1 << 20}


class Captured:
    """A model whose calls are captured."""

    def __init__(self, **bounds: Any) -> None:
        self.taken: list[Taken] = []
        self.capture = Capture(self.taken.append, **BOUNDS | bounds)
        self.bench = Bench(make_entry(identity("FP32", WIDE)))
        self.capture.capture_from(tuple(self.bench.entries))

    def call(self, message: bytes = ROW, count: int = 1) -> None:
        for _ in range(count):
            self.bench.call(message, lead=3)
            self.bench.run_all()

    def drops(self) -> dict[str, int]:
        return {why: count for why, count in self.capture.drops().items() if count}

    def close(self) -> None:
        self.capture.capture_from(())
        self.bench.close()
        self.bench.outcomes.clear()


@pytest.mark.parametrize("columns", [1, 1024, 1025, 10_000])
def test_request_and_reply_as_they_were_on_the_wire(columns: int) -> None:
    captured = Captured()
    message = fp32_request([[1.0] * columns], id="i")
    captured.call(message)
    [(time_ns, model, version, request, reply, size)] = captured.taken
    assert time_ns > 1_700_000_000 * SECOND_NS
    assert (model, version, request) == (b"m", "1", message)
    assert reply == captured.bench.outcomes[0].data[PREFIX_BYTES:]
    assert size == len(request) + len(reply) + PREFIX_BYTES
    captured.close()


def test_calls_that_fail_are_not_captured() -> None:
    captured = Captured()
    captured.call(b"\xff")
    assert (captured.capture.seen, captured.taken) == (0, [])
    captured.close()


def test_a_fraction_of_calls() -> None:
    captured = Captured(fraction=0.25)
    captured.call(count=400)
    assert captured.capture.seen == 400
    assert 60 < len(captured.taken) < 140
    captured.close()


def test_so_many_a_second(stepped_clock: None) -> None:
    captured = Captured(per_second=3)
    for _ in range(2):
        captured.call(count=5)
        clock.advance(SECOND_NS)
    assert len(captured.taken) == captured.capture.taken == 6
    assert captured.drops() == {"rate": 4}
    captured.close()


def test_what_waits_is_bounded_in_number() -> None:
    captured = Captured(max_waiting=2)
    captured.call(count=5)
    assert captured.drops() == {"waiting": 3}
    captured.capture.did(captured.taken[0][5])
    captured.call(count=2)
    assert (len(captured.taken), captured.drops()) == (3, {"waiting": 4})
    captured.close()


def test_what_waits_is_bounded_in_bytes() -> None:
    size = len(ROW) + 100
    captured = Captured(max_waiting_bytes=2 * size + 50)
    captured.call(count=5)
    assert sum(each[5] for each in captured.taken) <= 2 * size + 50
    assert len(captured.taken) + captured.drops()["waiting"] == 5
    taken = len(captured.taken)
    captured.capture.did(captured.taken[0][5])
    captured.call()
    assert len(captured.taken) == taken + 1
    captured.close()


def test_large_calls_are_left_out() -> None:
    captured = Captured(max_message_bytes=1000)
    captured.call()
    captured.call(fp32_request([[1.0] * 200]))
    assert (len(captured.taken), captured.drops()) == (1, {"large": 1})
    captured.close()


@pytest.mark.parametrize("bounds", [{"fraction": 0.0}, {"fraction": 2.0}, {"max_waiting": 0}, {"per_second": -1},
                                    {"max_waiting_bytes": 0}, {"max_message_bytes": 0}])
def test_a_capture_has_its_bounds(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="of a capture must be"):
        Capture(print, **BOUNDS | bounds)
