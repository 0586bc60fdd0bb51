import pytest

from infer._core._testing_time import TICK_NS, Wheel

START = 10**15 + 123_456
HOUR = 3600 * 10**9


@pytest.fixture
def wheel() -> Wheel:
    return Wheel(START)


def test_an_empty_wheel_has_nothing_next(wheel: Wheel):
    assert wheel.next_ns() == -1
    assert wheel.expire(START + 1000 * HOUR) == []
    assert wheel.next_ns() == -1


def test_never_before_the_deadline_and_within_a_tick_after(wheel: Wheel):
    deadline = START + 5 * TICK_NS
    wheel.add(1, deadline)
    assert wheel.expire(deadline - 1) == []
    assert deadline <= wheel.next_ns() < deadline + TICK_NS
    assert wheel.expire(wheel.next_ns() - 1) == []
    assert wheel.expire(wheel.next_ns()) == [1]
    assert len(wheel) == 0


@pytest.mark.parametrize("deadline", [0, -1, -(2**63), START - HOUR, START])
def test_a_deadline_in_the_past_expires_at_the_next_call(wheel: Wheel, deadline: int):
    wheel.expire(START + TICK_NS)
    wheel.add(1, deadline)
    assert 0 <= wheel.next_ns() <= START + TICK_NS
    assert wheel.expire(START + TICK_NS) == [1]


@pytest.mark.parametrize("ticks", [255, 256, 257, 65535, 65536, 65537, 2**24 - 1, 2**24, 2**32 - 1, 2**32, 2**33 + 7])
def test_each_level_keeps_the_deadline(wheel: Wheel, ticks: int):
    deadline = START + ticks * TICK_NS
    wheel.add(1, deadline)
    assert wheel.expire(deadline - TICK_NS) == []
    assert wheel.expire(deadline - 1) == []
    assert wheel.expire(deadline + TICK_NS) == [1]


def test_the_furthest_deadline_there_is(wheel: Wheel):
    wheel.add(1, 2**63 - 1)
    assert wheel.expire(START + 10**6 * HOUR) == []
    assert wheel.next_ns() > START + 10**6 * HOUR
    wheel.remove(1)
    assert wheel.next_ns() == -1


def test_adding_again_moves(wheel: Wheel):
    wheel.add(1, START + HOUR)
    wheel.add(1, START + TICK_NS)
    assert len(wheel) == 1
    assert wheel.expire(START + 2 * TICK_NS) == [1]
    assert wheel.expire(START + 2 * HOUR) == []


def test_removing_twice_is_let_pass(wheel: Wheel):
    wheel.add(1, START + HOUR)
    wheel.remove(1)
    wheel.remove(1)
    assert len(wheel) == 0
    assert wheel.next_ns() == -1


def test_expiry_in_the_order_of_ticks_then_of_adding(wheel: Wheel):
    for number, ticks in enumerate([300, 2, 70_000, 2, 1]):
        wheel.add(number, START + ticks * TICK_NS)
    assert wheel.expire(START + HOUR) == [4, 1, 3, 0, 2]


def test_a_callback_may_remove_what_is_due_in_the_same_call(wheel: Wheel):
    for number in range(4):
        wheel.add(number, START + TICK_NS)
    assert wheel.expire(START + 10 * TICK_NS, lambda number: wheel.remove(3 - number)) == [0, 1]
    assert len(wheel) == 0


def test_a_callback_may_free_its_own_node(wheel: Wheel):
    for number in range(3):
        wheel.add(number, START)
    assert wheel.expire(START + TICK_NS, wheel.free) == [0, 1, 2]


def test_what_a_callback_adds_expires_at_the_next_call_even_when_it_is_late(wheel: Wheel):
    wheel.add(1, START)
    now = START + HOUR
    assert wheel.expire(now, lambda number: wheel.add(number, START)) == [1]
    assert wheel.expire(now, lambda number: wheel.add(number, now + HOUR)) == [1]
    assert wheel.expire(now) == []
    assert wheel.expire(now + HOUR + TICK_NS) == [1]


def test_a_clock_that_goes_back_expires_nothing(wheel: Wheel):
    wheel.expire(START + HOUR)
    wheel.add(1, START + HOUR)
    assert wheel.expire(START) == []
    assert wheel.expire(START + HOUR) == []
    assert wheel.expire(START + HOUR + TICK_NS) == [1]
