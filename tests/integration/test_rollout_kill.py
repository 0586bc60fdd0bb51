"""SIGKILL at each moment of a rollout's changes, and a start after it: the weights are those that were last decided,
the history is whole, and it goes on, or has been rolled back, as it was told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.targets import free_port
from infer.client import InferClient, RetryPolicy
from infer.proto import message
from tests.support.killing import Killed
from tests.support.repositories import Caller, place_version

KEPT = (
    "infer.traffic.controller:Controller._keep@before",      # decided, and nothing done
    "infer.state.store:Store.save@after",                    # on its way to the disk
    "infer.state.store:Store._forget@before",                # on the disk, and not in effect
)
CHANGING = (*KEPT, "infer.traffic.steering:Steering.follow@after")
# Labels follow.
LABELLED = (*CHANGING, "infer.models.manager:Manager.ask_label@before", "infer.models.manager:Manager.ask_label@after",
            "infer.model_control:KeptRecord.keep@after")
CALLS = 200


class Admin:
    def __init__(self, port: int) -> None:
        self._address = f"127.0.0.1:{port}"

    def ask(self, verb: str, kind: str, **fields: object) -> bytes:
        with InferClient(self._address, timeout=30.0, retry=RetryPolicy(attempts=1)) as client:
            return client.call(f"/infer.v1.Admin/Rollout{verb}", message(f"infer.v1.{kind}")(**fields)
                               .SerializeToString())

    def start(self, on_restart: str = "continue", **fields: object) -> None:
        # No step ends by itself.
        self.ask("Start", "RolloutStartRequest", **{
            "model": "m", "from": 1, "to": 2, "steps": [20, 60, 100], "every_seconds": 0, "min_samples": 10 ** 9,
            "on_restart": on_restart, **fields})

    def change(self, verb: str, **fields: object) -> None:
        self.ask(verb, "RolloutChangeRequest", model="m", **fields)

    def shadow(self) -> str:
        """The version that is one, or nothing."""
        with InferClient(self._address, timeout=30.0, retry=RetryPolicy(attempts=1)) as client:
            content = client.call("/infer.v1.Admin/ShadowReport", b"")
        found = message("infer.v1.ShadowReportResponse").FromString(content).shadows
        return found[0].version if found else ""

    def status(self) -> tuple[str, float]:
        found = message("infer.v1.Rollouts").FromString(self.ask("Status", "RolloutRequest")).rollouts
        return (found[0].state, found[0].weight) if found else ("", 0.0)

    def events(self) -> list[str]:
        found = message("infer.v1.Rollouts").FromString(self.ask("History", "RolloutRequest")).rollouts
        return [event.event for event in found[-1].history] if found else []

    def at_step(self, on_restart: str = "continue") -> None:
        """In the first one."""
        state, _ = self.status()
        if state in ("", "done", "rolled back", "aborted"):
            self.start(on_restart)
        while self.status()[0] in ("waiting", "gates"):
            pass


@pytest.fixture
def rolling(tmp_path: Path) -> tuple[Killed, Admin]:
    """Versions 1 and 2 of `m`, of which 1 answers."""
    for version in (1, 2):
        place_version(tmp_path / "models", "m", version)
    (tmp_path / "infer.toml").write_text("[models.m]\nversion_policy = { all = {} }\n")
    port = free_port()
    return Killed(tmp_path, "--admin-port", port), Admin(port)


def assert_divided(caller: Caller, weight: float) -> None:
    """Calls go where the weight says: to within what so many of them can tell."""
    share = 100 * sum(caller.answer("m")[0] == "2" for _ in range(CALLS)) / CALLS
    assert abs(share - weight) < (1e-9 if weight in (0, 100) else 18), (share, weight)


def checked(admin: Admin, before: tuple[str, float], after: tuple[str, float]) -> Callable[[Caller, bool], None]:
    def check(caller: Caller, answered: bool) -> None:
        found = admin.status()
        assert found == after or (found == before and not answered), (found, answered)
        assert_divided(caller, found[1])
        assert admin.events()[0] == "start"

    return check


def test_at_its_start(rolling: tuple[Killed, Admin]) -> None:
    killed, admin = rolling

    def check(caller: Caller, answered: bool) -> None:
        state, _ = admin.status()
        assert state or not answered
        if state:
            admin.at_step()
            assert_divided(caller, 20)
            admin.change("Abort")
            assert_divided(caller, 0)

    killed.through(LABELLED, lambda caller: None, lambda caller, _: admin.start(), check)


def test_at_a_step(rolling: tuple[Killed, Admin]) -> None:
    killed, admin = rolling
    check = checked(admin, ("running", 20), ("running", 60))

    def back(caller: Caller) -> None:
        if admin.status() == ("running", 60):
            admin.change("Abort")
        admin.at_step()

    killed.through(CHANGING, back, lambda caller, _: admin.change("Promote"), check)


def test_at_its_end(rolling: tuple[Killed, Admin]) -> None:
    killed, admin = rolling
    check = checked(admin, ("running", 20), ("done", 100))
    killed.through(LABELLED, lambda caller: admin.at_step(), lambda caller, _: admin.change("Promote", all=True), check)


def test_when_it_is_taken_back(rolling: tuple[Killed, Admin]) -> None:
    killed, admin = rolling
    check = checked(admin, ("running", 20), ("aborted", 0))
    killed.through(LABELLED, lambda caller: admin.at_step(), lambda caller, _: admin.change("Abort"), check)


def test_while_it_is_paused(rolling: tuple[Killed, Admin]) -> None:
    killed, admin = rolling
    with killed.serving() as (_, caller):
        admin.at_step()
        admin.change("Pause", reason="lunch")
    with killed.serving() as (_, caller):
        assert admin.status() == ("paused", 20)
        assert_divided(caller, 20)
        assert admin.events() == ["start", "gates", "step", "pause", "restart"]
    assert ("rollout", "m", "2", "restart") in killed.verify()


def test_one_that_a_restart_takes_back(rolling: tuple[Killed, Admin]) -> None:
    killed, admin = rolling
    with killed.serving() as (_, caller):
        admin.at_step("rollback")
        assert_divided(caller, 20)
    for _ in range(2):
        with killed.serving() as (_, caller):
            assert admin.status() == ("rolled back", 0)
            assert_divided(caller, 0)
            assert admin.events() == ["start", "gates", "step", "rolled back"]
    killed.verify()


def test_a_split_that_the_settings_ask_for_meanwhile(rolling: tuple[Killed, Admin], tmp_path: Path) -> None:
    killed, admin = rolling
    with killed.serving():
        admin.at_step()
    toml = tmp_path / "infer.toml"
    toml.write_text(toml.read_text() + "[models.m.split]\nto = { \"2\" = 100 }\n")
    with killed.serving() as (_, caller):
        assert admin.status() == ("running", 20)
        assert_divided(caller, 20)
        admin.change("Abort")
        assert_divided(caller, 100)
    with killed.serving() as (_, caller):
        assert admin.status() == ("aborted", 0)
        assert_divided(caller, 100)


MIRRORED = {"steps": [0, 60, 100], "guardrails": ["disagreement=0.01"]}


def test_its_shadow_is_there_as_long_as_it_goes_on(rolling: tuple[Killed, Admin]) -> None:
    killed, admin = rolling

    def back(caller: Caller) -> None:
        if admin.status()[0] != "running":
            admin.start(**MIRRORED)
        admin.at_step()
        assert admin.shadow() == "2"

    def check(caller: Caller, answered: bool) -> None:
        found = admin.status()
        assert found == ("aborted", 0) or (found == ("running", 0) and not answered)
        assert admin.shadow() == ("2" if found == ("running", 0) else "")
        assert_divided(caller, 0)

    killed.through(CHANGING[-2:], back, lambda caller, _: admin.change("Abort"), check)
