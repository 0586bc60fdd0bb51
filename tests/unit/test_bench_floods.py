"""How the floods' figures are judged, and that the bytes of each attack are what they are said to be."""

from __future__ import annotations

import pytest

from bench.bars import tail_limit
from bench.load.attacks import LIVE_BYTES, attacks
from bench.load.floods import RATE, Sample, failed_calls, judged
from bench.load.idle import PREFACE, frames
from bench.load.limits import difference
from bench.load.patience import judged as judged_patience
from infer._core.load_client import LoadResult
from tests.support.floods import FLOODS

BODY = b"\0\0\0\0\1x"
BUSY, STARVED = {"cpu_share": 0.5}, {"cpu_share": 0.01}


def sample(p99_us: float, failed: int = 0, attacker: dict[str, float] = BUSY, server_cpu_share: float = 0.1) -> Sample:
    return Sample(100.0, p99_us, p99_us, failed, "", 0.1, server_cpu_share, attacker)


@pytest.mark.parametrize(("alone_ms", "limit_ms"), [(0.2, 0.7), (2.5, 3.0), (10.0, 12.0)])
def test_a_tail_may_grow_by_a_fifth_or_half_a_millisecond(alone_ms: float, limit_ms: float) -> None:
    assert tail_limit(alone_ms) == pytest.approx(limit_ms)


def test_medians_are_compared() -> None:
    quiet = [sample(200), sample(9000), sample(220)]
    p99, failed = judged("x", quiet, [sample(700), sample(100), sample(90_000)], False)
    assert (p99.value, p99.limit, p99.met) == (pytest.approx(0.7), pytest.approx(0.72), True)
    assert (failed.value, failed.met) == (0, True)
    assert not judged("x", quiet, [sample(730), sample(730), sample(0)], False)[0].met


def test_a_failed_call_on_either_side_counts() -> None:
    for quiet, flooded in ((1, 0), (0, 1)):
        bar = judged("x", [sample(1, quiet)], [sample(1, flooded)], False)[1]
        assert (bar.value, bar.met) == (1, False)


@pytest.mark.parametrize(
    ("attacker", "server_cpu_share", "holds", "applies"),
    [(BUSY, 0.1, False, True), (STARVED, 0.9, False, True), (STARVED, 0.1, False, False), (STARVED, 0.1, True, True)],
)
def test_what_was_no_flood_is_not_judged(
    attacker: dict[str, float], server_cpu_share: float, holds: bool, applies: bool
) -> None:
    flooded = [sample(9000), sample(9000, 0, attacker, server_cpu_share)]
    p99, failed = judged("x", [sample(100)], flooded, holds)
    assert p99.applies is applies
    assert failed.applies


def result(ok: int, failures: dict[str, int]) -> LoadResult:
    return LoadResult(RATE, ok, {}, failures, "", ok, 1.0, *[0.0] * 8, 1, b"x", 1, 0.1, False)


def test_every_call_without_an_answer_has_failed() -> None:
    assert failed_calls(result(RATE, {"stream_reset": 0}), RATE) == 0
    assert failed_calls(result(RATE - 3, {"stream_reset": 1}), RATE) == 3
    assert failed_calls(result(RATE, {"connection_lost": 2}), RATE) == 2


def test_limits_that_moved() -> None:
    assert difference({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 5.0, "c": 1.0}) == {"b": 3.0, "c": 1.0}


@pytest.mark.parametrize(
    ("done", "connections", "limits", "met"),
    [
        ({"last": "OK"}, 1, {}, [True, True, True]),
        ({"last": "OK", "goaways": 1}, 2, {}, [False, False, True]),
        ({"last": "UNAVAILABLE"}, 1, {"max_early_resets": 1.0}, [True, False, False]),
    ],
)
def test_a_good_client_keeps_its_connection(
    done: dict[str, object], connections: float, limits: dict[str, float], met: list[bool]
) -> None:
    assert [bar.met for bar in judged_patience("x", done, connections, limits)] == met


@pytest.mark.parametrize("name", attacks(BODY))
def test_what_an_attack_sends(name: str) -> None:
    attack = attacks(BODY)[name]
    content = attack.content()
    assert content[: len(PREFACE)] == PREFACE[: len(content)]
    if len(content) > len(PREFACE):
        assert frames(content[len(PREFACE) :])
    if attack.cut is not True and not attack.holds and len(content) > len(PREFACE):
        assert LIVE_BYTES <= len(content) < LIVE_BYTES + 4096


def test_every_flood_of_the_suite_is_run() -> None:
    rows = attacks(BODY)
    assert {flood.row for flood in FLOODS} == {row.name for row in rows.values() if row.cut}
