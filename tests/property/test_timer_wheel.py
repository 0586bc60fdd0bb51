"""The timer wheel against a dict of deadlines: when each expires, in which order, and what `next_ns` promises."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from infer._core._testing_time import TICK_NS, Wheel

NUMBERS = st.integers(0, 15)
SPANS = st.one_of(
    st.integers(-3 * TICK_NS, 3 * TICK_NS),
    st.integers(0, 600).map(lambda ticks: ticks * TICK_NS),
    st.sampled_from([8, 16, 24, 32, 40]).flatmap(lambda bits: st.integers(2**bits - 3, 2**bits + 3)).map(
        lambda ticks: ticks * TICK_NS),
    st.integers(0, 2**43 * TICK_NS),
)
FORWARD = SPANS.map(lambda span: max(span, 0))
LATEST = 2**63 - 1
END = LATEST - 2 * TICK_NS     # where time stops in these tests: there must be a tick after each deadline that is met


def tick_of(deadline: int) -> int:
    return -(-deadline // TICK_NS)


class WheelModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 10**12 + 7
        self.wheel = Wheel(self.now)
        self.deadlines: dict[int, int] = {}

    @rule(number=NUMBERS, span=SPANS)
    def add(self, number: int, span: int) -> None:
        self.deadlines[number] = min(self.now + span, LATEST)
        self.wheel.add(number, self.deadlines[number])

    @rule(number=NUMBERS, deadline=st.sampled_from([LATEST, 0, -(2**63)]))
    def add_at_the_edge(self, number: int, deadline: int) -> None:
        self.deadlines[number] = deadline
        self.wheel.add(number, deadline)

    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        self.deadlines.pop(number, None)
        self.wheel.remove(number)

    def due(self) -> set[int]:
        return {number for number, deadline in self.deadlines.items() if tick_of(deadline) <= self.now // TICK_NS}

    @rule(span=FORWARD)
    def expire(self, span: int) -> None:
        self.now = max(self.now, min(self.now + span, END))
        due = self.due()
        expired = self.wheel.expire(self.now)
        assert sorted(expired) == sorted(due)
        assert all(self.deadlines.pop(number) <= self.now for number in expired)

    @rule(span=FORWARD, actions=st.lists(st.tuples(NUMBERS, st.one_of(st.none(), SPANS)), max_size=6))
    def expire_with_callbacks(self, span: int, actions: list[tuple[int, int | None]]) -> None:
        """Each callback adds, moves or removes some node, perhaps its own or one that is due in the same call."""
        self.now = max(self.now, min(self.now + span, END))
        due = self.due()
        todo = list(actions)

        def on_expiry(number: int) -> None:
            assert number in due
            due.discard(number)
            assert self.deadlines.pop(number) <= self.now
            if todo:
                other, span = todo.pop()
                due.discard(other)
                if span is None:
                    self.deadlines.pop(other, None)
                    self.wheel.remove(other)
                else:
                    self.deadlines[other] = min(self.now + span, LATEST)
                    self.wheel.add(other, self.deadlines[other])

        self.wheel.expire(self.now, on_expiry)
        assert due == set()

    @rule()
    def wake_when_told(self) -> None:
        """A loop timer armed for `next_ns` alone ends the earliest deadline within a tick, in few wake-ups."""
        earliest = min(self.deadlines.values(), default=LATEST)
        if earliest > min(self.now + 2**32 * TICK_NS, END):
            return
        start = self.now
        # One spread per level above the lowest, one more for each node that waited out of reach, then the expiry.
        for _ in range(4 + len(self.deadlines)):
            self.now = max(self.now, self.wheel.next_ns())
            due = self.due()
            expired = self.wheel.expire(self.now)
            assert sorted(expired) == sorted(due)
            if expired:
                assert self.now < earliest + TICK_NS or self.now == start
                for number in expired:
                    del self.deadlines[number]
                return
        raise AssertionError("woken too often for nothing")

    @invariant()
    def sizes_and_next_agree(self) -> None:
        assert len(self.wheel) == len(self.deadlines)
        told = self.wheel.next_ns()
        if not self.deadlines:
            assert told == -1
            return
        earliest = min(self.deadlines.values())
        assert 0 <= told < max(earliest, self.now) + TICK_NS
        assert told % TICK_NS == 0 or told == LATEST
        if tick_of(earliest) - self.now // TICK_NS < 256 and earliest > self.now:
            assert told >= min(earliest, (self.now // TICK_NS // 256 + 1) * 256 * TICK_NS)


TestWheel = WheelModel.TestCase
TestWheel.settings = settings(max_examples=300, stateful_step_count=60)


@given(st.lists(st.integers(0, 70_000 * TICK_NS), min_size=1, max_size=40), st.integers(0, TICK_NS * 300))
@settings(max_examples=100)
def test_stepped_every_tick_nothing_is_early_and_nothing_a_tick_late(spans: list[int], start: int):
    wheel = Wheel(start)
    deadlines = {number: start + span for number, span in enumerate(spans)}
    for number, deadline in deadlines.items():
        wheel.add(number, deadline)
    interesting = sorted({tick_of(deadline) + near for deadline in deadlines.values() for near in (-1, 0, 1)})
    expired: list[int] = []
    for tick in interesting:
        now = max(tick * TICK_NS, start)
        for number in wheel.expire(now):
            assert deadlines[number] <= now < deadlines[number] + TICK_NS
            expired.append(number)
    assert sorted(expired) == sorted(deadlines)
    assert [tick_of(deadlines[number]) for number in expired] == sorted(map(tick_of, deadlines.values()))
