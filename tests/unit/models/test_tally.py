"""What all models come to, noted one by one: as counted anew after each."""

from __future__ import annotations

from infer._core.router import ModelRoute
from infer.models.harness import Incarnation, Key, State
from infer.models.served_model import ServedModel
from infer.models.tally import Tally
from tests.support.puppet_loader import files, seen

UNREADY = ModelRoute(reason=(14, "it is loading"))
READY = ModelRoute(default=object())  # type: ignore[arg-type]


def model(name: str, *states: State) -> ServedModel:
    made = ServedModel(name, {}, lambda event: None)
    made.want(seen(name, dict.fromkeys(range(1, len(states) + 1), "a")), {}, "")
    assert made.seen is not None
    for version, state in enumerate(states, 1):
        made.table.add(Incarnation(Key(version, "a"), files(version), made.seen.settings, state))
        made.aspired[Key(version, "a")] = files(version)
    return made


def test_models_are_noted_recounted_and_forgotten() -> None:
    tally = Tally()
    first, second = model("m", State.NEW, State.READY), model("n", State.READY)
    tally.note(first, UNREADY)
    tally.note(second, READY)
    assert (tally.untried, tally.unready) == (1, {"m": "it is loading"})
    assert (tally.states[State.NEW], tally.states[State.READY]) == (1, 2)
    next(iter(first.table)).move(State.LOADING)
    tally.recount(first)
    assert (tally.untried, tally.states[State.NEW], tally.states[State.LOADING]) == (1, 0, 1)
    assert tally.unready == {"m": "it is loading"}
    tally.note(first, READY)
    assert (tally.unready, tally.states[State.READY]) == ({}, 2)
    for name in ("m", "m", "n", "nobody"):
        tally.forget(name)
    assert (tally.untried, tally.unready, +tally.states) == (0, {}, {})


def test_a_model_that_shall_not_be_served_is_not_missed() -> None:
    tally = Tally()
    away = model("m", State.READY)
    away.want(None, {}, "")
    tally.note(away, UNREADY)
    assert tally.unready == {}
    away.want(None, {}, "its configuration cannot be read")
    tally.note(away, UNREADY)
    assert tally.unready == {"m": "it is loading"}
