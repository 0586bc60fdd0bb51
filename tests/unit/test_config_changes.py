"""Which settings a server that runs takes up at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from infer.config import Settings
from infer.config_changes import changes, is_live, merged

VALUES = st.fixed_dictionaries({}, optional={
    "port": st.integers(0, 3), "log_level": st.sampled_from(["debug", "info", "error"]), "executors": st.integers(1, 3),
    "drain_delay": st.sampled_from([0.0, 5.0, 6.0]), "drain_timeout": st.sampled_from([30.0, 31.0]),
    "uds": st.sampled_from([None, Path("a")]), "paths": st.sampled_from([(), (Path("m"),)])})


def test_live_settings() -> None:
    assert {name for name in Settings.model_fields if is_live(name)} == {
        "log_level", "drain_delay", "drain_timeout", "adaptive_limit", "slo_p99_ms", "breaker", "breaker_error_rate",
        "breaker_window", "breaker_open_for", "run_timeout"}


def test_what_changes_say() -> None:
    old = Settings(log_level="info", paths=(Path("a"),))
    found = changes(old, Settings(log_level="debug", paths=(Path("a"), Path("b")), executors=2))
    assert [str(each) for each in found.live] == ["--log-level: info -> debug"]
    assert [str(each) for each in found.restart] == ["PATH: a -> a b", "--executors: unset -> 2"]


@given(VALUES, VALUES)
def test_every_difference_is_live_or_waits_for_a_restart(before: dict[str, Any], after: dict[str, Any]) -> None:
    old, new = Settings(**before), Settings(**after)
    found = changes(old, new)
    assert {each.name for each in (*found.live, *found.restart)} == {
        name for name in Settings.model_fields if getattr(old, name) != getattr(new, name)}
    now = merged(old, new)
    assert changes(now, new) == ((), found.restart)
    assert changes(old, now) == (found.live, ())
