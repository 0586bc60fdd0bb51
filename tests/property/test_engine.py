"""Whatever is put, taken back, answered early or fails, in any order: every call gets exactly its own rows, or its own
error."""

import select
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from infer._core._testing_engine import Bench, Call, PuppetLoop
from infer._core.executor import ExecutorPool
from infer._core.model_version import VersionEntry
from tests.support import models
from tests.support.engine import AGES_NS, array, call, version

WAIT_SECONDS = 30
POISON = 99

PARTS = st.tuples(st.integers(1, 3), st.integers(1, 2), st.booleans())      # rows, length, poisoned


def embedding_call(entry: VersionEntry, number: int, rows: int, length: int, poisoned: bool) -> tuple[Call, Any]:
    """A call of ids that depend on its number, and the rows it must get (None: it fails)."""
    ids = (np.arange(rows * length).reshape(rows, length) * 7 + number) % 10
    expected = models.EMBEDDING_TABLE[ids].mean(axis=1)
    if poisoned:
        ids[rows - 1, length - 1] = POISON
    return call(entry, ids), None if poisoned else expected


def check(each: Call, expected: Any) -> None:
    code, outputs = each.outcome
    if expected is None:
        assert code == 3
    else:
        assert code == 0
        assert np.array_equal(array(outputs[0]), expected)


EMBEDDING = version(models.embedding(), ran_ns=AGES_NS)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=40))
def test_a_batch_answers_every_item_as_if_it_were_alone(parts: list[tuple[int, bool]]) -> None:
    made = [embedding_call(EMBEDDING, i, rows, 2, poisoned) for i, (rows, poisoned) in enumerate(parts)]
    Bench().run([each for each, _ in made])
    for each, expected in made:
        check(each, expected)


STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 2), PARTS),
    st.tuples(st.just("kick"), st.none(), st.none()),
    st.tuples(st.just("remove"), st.integers(0, 50), st.none()),
    st.tuples(st.just("answer"), st.integers(0, 50), st.none()),
    st.tuples(st.just("wake"), st.none(), st.none()),
)


@settings(max_examples=150)
@given(st.integers(1, 3), st.lists(STEPS, max_size=80))
def test_the_pool_under_any_order_of_events(executors: int, steps: list[tuple[str, Any, Any]]) -> None:
    entries = [version(models.embedding(), max_running=1, ran_ns=AGES_NS),
               version(models.embedding(), gather_rows=3, ran_ns=AGES_NS),
               version(models.embedding(), batched=False)]
    pool = ExecutorPool(executors)
    loop = PuppetLoop(pool, entries)
    loop.on_wake()
    pool.start()
    made: list[tuple[Call, Any]] = []
    removed = set()
    for step, index, parts in steps:
        if step == "put":
            made.append(embedding_call(entries[index], len(made), *parts))
            loop.put(made[-1][0])
        elif step == "kick":
            loop.kick()
        elif step == "wake":
            loop.on_wake()
        elif made and step == "remove":
            chosen = index % len(made)
            if made[chosen][0].outcome is None and chosen not in removed and loop.remove(made[chosen][0]):
                removed.add(chosen)
        elif made:
            made[index % len(made)][0].answer()
    loop.kick()
    waiting = [each for i, (each, _) in enumerate(made) if i not in removed]
    while any(each.outcome is None for each in waiting):
        assert select.select([pool.eventfd], [], [], WAIT_SECONDS)[0], "no executor reported"
        loop.on_wake()
    for i, (each, expected) in enumerate(made):
        assert each.state == "done"
        if i in removed:
            assert each.outcome is None
        else:
            check(each, expected)
    pool.stop()
    loop.close()
