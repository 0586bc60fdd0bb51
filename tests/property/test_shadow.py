"""A shadow through any order of calls, steps of its lane, ends and unloads, against plain counts."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infer._core._testing_shadow import GROUP_COPIES, step
from infer._core.model_version import VersionEntry
from infer._core.shadow import Shadow, ShadowPool
from tests.support.models import FRAGILE, fragile, scale
from tests.support.puppets import Bench, fp32_request, make_entry

MAX_COPIES = 5
GOOD, FATAL = fp32_request([[1.0, 1.0, 1.0, 1.0]]), fp32_request([[FRAGILE, 1.0, 1.0, 1.0]])


class Shadows(RuleBasedStateMachine):
    """Version 9 answers; versions from 1 on come and go as its shadows."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = make_entry(scale(2.0), version="9")
        self.bench = Bench(self.primary)
        self.pool = ShadowPool(self.bench.loop, max_copies=MAX_COPIES, max_bytes=1 << 30)
        self.began: list[Shadow] = []
        self.ended: list[Shadow] = []
        self.versions = 0
        self.calls = 0

    @precondition(lambda self: len(self.pool.shadows) < 3 and self.versions < 8)
    @rule(model=st.sampled_from([scale(2.0), scale(3.0), fragile(2.0)]), fraction=st.sampled_from([1.0, 0.5]))
    def begin(self, model: bytes, fraction: float) -> None:
        self.versions += 1
        target = make_entry(model, version=str(self.versions))
        self.bench.publish(target)
        self.began.append(self.pool.begin(target, (self.primary,), fraction=fraction, rtol=1e-5, atol=0))

    @rule(message=st.sampled_from([GOOD, FATAL]), count=st.integers(1, 4))
    def call(self, message: bytes, count: int) -> None:
        for _ in range(count):
            self.bench.call(message)
            self.calls += 1
        self.bench.run_all()

    @rule()
    def turn(self) -> None:
        self.bench.loop.fire_due()

    @rule()
    def run(self) -> None:
        step(self.pool)

    @rule()
    def wake(self) -> None:
        self.pool.on_wake()

    @precondition(lambda self: self.pool.shadows)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        shadow = data.draw(st.sampled_from(self.pool.shadows))
        self.pool.end(shadow)
        self.ended.append(shadow)
        assert shadow.waiting == 0

    @precondition(lambda self: any(each.target in self.bench.entries for each in self.ended))
    @rule(data=st.data())
    def unload(self, data: st.DataObject) -> None:
        going: VersionEntry = data.draw(st.sampled_from(
            [each.target for each in self.ended if each.target in self.bench.entries]))
        self.bench.unload(going)
        # Only what the lane has may hold it.
        assert (going in self.bench.drained) == (going.handles == 0)

    @invariant()
    def every_call_was_answered(self) -> None:
        assert len(self.bench.outcomes) == self.calls
        assert all(outcome.code == 0 for outcome in self.bench.outcomes)

    @invariant()
    def every_copy_is_somewhere(self) -> None:
        left = 0
        for shadow in self.began:
            counted = shadow.agreed + shadow.differed + shadow.failed + shadow.waiting + sum(shadow.drops().values())
            assert 0 <= shadow.picked - counted <= GROUP_COPIES
            left += shadow.picked - counted
            assert sum(each["compared"] for each in shadow.outputs_compared().values()) >= (
                shadow.agreed + shadow.differed)
        assert left <= GROUP_COPIES, "the lane has one group"
        assert self.pool.copies == sum(shadow.waiting for shadow in self.began) <= MAX_COPIES
        assert (self.pool.bytes > 0) == (self.pool.copies + left > 0)
        assert sum(shadow.target.handles for shadow in self.began) == (left > 0)

    def teardown(self) -> None:
        while step(self.pool) or self.pool.copies:
            self.pool.on_wake()
            self.bench.loop.fire_due()
        self.pool.on_wake()
        for shadow in self.began:
            counted = shadow.agreed + shadow.differed + shadow.failed + sum(shadow.drops().values())
            assert counted == shadow.picked
        self.pool.stop()
        assert (self.pool.copies, self.pool.bytes) == (0, 0)
        self.bench.outcomes.clear()
        self.bench.close()


TestShadows = Shadows.TestCase
TestShadows.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
