"""Rollouts on a server, on both transports: versions that answer calls, what becomes of them, and what is told of it.

Looks at the arms are made by the tests; latency is left out, since it is the machine's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner, Result

from infer.cli import main
from infer.golden import failure_of
from infer.proto import message
from tests.support.repositories import Caller, place_version
from tests.support.server import InProcess, in_process, scrape

TOML = """
[models.m]
version_policy = { all = {} }
labels = { stable = 1 }
rollout = { steps = [50, 100], every = 0, min_samples = 20, guardrails = { p50 = "off", p99 = "off" } }
"""
CALLS, LOOKS = 60, 100


class Rig:
    def __init__(self, served: InProcess) -> None:
        assert served.server.admin is not None
        self.served, self.admin = served, served.server.admin.address
        self.caller = Caller(served.address)
        self.controller = served.server.rollouts.controller

    def rollout(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["rollout", *arguments, "--address", self.admin])

    @property
    def state(self) -> str:
        return self.served.look(lambda: self.controller.rollouts("m")["m"].state)

    def look(self) -> None:
        async def once() -> None:
            self.controller.step()
            await self.controller.settled()

        self.served.run(once)

    def until_ended(self) -> set[str]:
        """Calls and looks until it has ended; the versions that answered."""
        answered = set()
        for _ in range(LOOKS):
            answered |= {self.caller.answer("m")[0] for _ in range(CALLS)}
            self.look()
            if self.state in ("done", "rolled back", "aborted"):
                return answered
        raise AssertionError(self.rollout("status").output)


@contextmanager
def rig_of(folder: Path, transport: str, *, toml: str = TOML, factor: float = 1.0, replace: bool = True,
           **settings: Any) -> Iterator[Rig]:
    """Versions 1 and 2 of `m`, of which 2 answers `factor` times its input, or is there already."""
    place_version(folder / "models", "m", 1)
    if replace:
        place_version(folder / "models", "m", 2, factor)
    (folder / "infer.toml").write_text(toml)
    with in_process(folder / "models", toml=folder / "infer.toml", admin_port=0, transport=transport, **settings
                    ) as served:
        rig = Rig(served)
        try:
            yield rig
        finally:
            rig.caller.client.close()


def test_a_version_that_is_as_good_answers_all_calls(tmp_path: Path, transport: str) -> None:
    with rig_of(tmp_path, transport, state_dir=tmp_path / "state") as rig:
        assert rig.caller.answer("m")[0] == "1"
        started = rig.rollout("start", "m", "--to", "2", "--reason", "retrained")
        assert started.exit_code == 0, started.output
        assert started.output.splitlines()[1].split()[:5] == ["m", "1", "2", "waiting", "0%"]
        assert rig.until_ended() == {"1", "2"}
        assert (rig.state, rig.caller.answer("m")[0]) == ("done", "2")
        assert rig.caller.status("m", "canary")[0] == "NOT_FOUND"
        # A request that names its version has it.
        assert rig.caller.answer("m", "1")[0] == "1"
        [shown] = [json.loads(line) for line in rig.rollout("status", "m", "--json").output.splitlines()]
        assert (shown["state"], shown["weight"], shown["from"], shown["to"]) == ("done", 100, "1", "2")
        assert {each["result"] for each in shown["guardrails"]} == {"pass"}
        history = [line.split() for line in rig.rollout("history").output.splitlines()[1:]]
        assert [(line[3], line[4]) for line in history] == [
            ("start", "0%"), ("gates", "0%"), ("step", "50%"), ("done", "100%")]
        assert history[0][-1] == "retrained"
        found = scrape(rig.served.http_address)
        assert found["infer_rollout_weight", frozenset({("model", "m"), ("version", "2")})] == 1
        assert found["infer_rollouts_ended_total", frozenset({("state", "done")})] == 1
    audit = CliRunner().invoke(main, ["audit", "--state-dir", str(tmp_path / "state")])
    rows = [line.split() for line in audit.output.splitlines() if " rollout " in line]
    assert [row[5] for row in rows if row[2] == "rollout"] == ["start", "gates", "step", "done"]


def test_a_version_whose_outputs_have_moved_is_taken_back(tmp_path: Path, transport: str) -> None:
    with rig_of(tmp_path, transport, factor=3.0) as rig:
        assert rig.rollout("start", "m", "--to", "2").exit_code == 0
        assert rig.until_ended() == {"1", "2"}
        assert (rig.state, rig.caller.answer("m")[0]) == ("rolled back", "1")
        status = rig.rollout("status").output
        assert "drift: more than 0.1 of the outputs have moved" in status
        assert {rig.caller.answer("m")[0] for _ in range(CALLS)} == {"1"}


@pytest.mark.parametrize(("factor", "told"), [(2.0, ""), (2.5, "4 of 4 values of output 'y' differ: at [0, 0] expected "
                                                               "2.5, got 2")])
def test_golden_outputs_come_before_any_call(tmp_path: Path, factor: float, told: str) -> None:
    place_version(tmp_path / "models", "m", 2)
    row = np.ones((1, 4), np.float32)
    np.savez(tmp_path / "models" / "m" / "2" / "golden.npz", **{"input.x": row, "output.y": factor * row})
    with in_process(tmp_path / "models", admin_port=0) as served:
        session = served.server.versions()[0].session
        path = tmp_path / "models" / "m" / "2" / "golden.npz"
        failure = failure_of(session, path)
        assert failure == (f"{path}: {told}" if told else "")
        np.savez(path, **{"input.x": row, "output.z": row})
        assert "no output 'z'" in failure_of(session, path)
        np.savez(path, **{"output.y": row})
        assert "has no array input.x" in failure_of(session, path)
        np.savez(path, **{"input.x": row})
        assert "has no array named output.NAME" in failure_of(session, path)
        np.savez(path, **{"input.x": row, "output.y": row[:, :2]})
        assert "expected the shape [1, 2], got [1, 4]" in failure_of(session, path)
        path.write_bytes(b"no archive")
        assert str(path) in failure_of(session, path)


def test_a_version_that_fails_its_golden_outputs_gets_no_call(tmp_path: Path, transport: str) -> None:
    place_version(tmp_path / "models", "m", 2, 1.0)
    row = np.ones((1, 4), np.float32)
    np.savez(tmp_path / "models" / "m" / "2" / "golden.npz", **{"input.x": row, "output.y": 7 * row})
    with rig_of(tmp_path, transport, replace=False) as rig:
        assert rig.rollout("start", "m", "--to", "2").exit_code == 0
        assert rig.until_ended() == {"1"}
        assert "before the first step" in rig.rollout("status", "m").output


MIRRORED = """
[models.m]
version_policy = { all = {} }
labels = { stable = 1 }
[models.m.rollout]
steps = [0, 50, 100]
every = 0
min_samples = 20
rtol = 0.01
guardrails = { disagreement = 0.2, errors = "off", p50 = "off", p99 = "off", drift = "off" }
"""


@pytest.mark.parametrize(("factor", "state", "answering"), [(1.001, "done", {"1", "2"}), (1.1, "rolled back", {"1"})])
def test_a_shadow_says_whether_it_may_be_called(tmp_path: Path, transport: str, factor: float, state: str,
                                                answering: set[str]) -> None:
    with rig_of(tmp_path, transport, toml=MIRRORED, factor=factor, state_dir=tmp_path / "state") as rig:
        shadows = rig.served.server.shadows

        def shadow(*arguments: str) -> Result:
            return CliRunner().invoke(main, ["shadow", *arguments, "--address", rig.admin])

        assert rig.rollout("start", "m", "--to", "2").exit_code == 0
        rig.look()
        rig.look()
        assert rig.served.look(lambda: shadows.running["m"].target.version) == "2"
        assert [line.split()[3:5] for line in rig.rollout("status").output.splitlines()[1:2]] == [["running", "0%"]]
        refused = shadow("stop", "m")
        assert "FAILED_PRECONDITION: the shadow of model 'm' is that of its rollout to version 2" in refused.output
        answered = set()
        for _ in range(LOOKS):
            answered |= {rig.caller.answer("m")[0] for _ in range(CALLS)}
            rig.served.until(lambda: shadows.pool.bytes == 0)
            rig.look()
            if rig.state in ("done", "rolled back"):
                break
        assert (rig.state, answered) == (state, answering)
        assert rig.served.look(lambda: dict(shadows.running)) == {}
        assert "no model has a shadow" in shadow("report").output
        status = rig.rollout("status").output
        assert ("disagreement: 100.00% of" in status) == (state == "rolled back")
        assert shadow("start", "m", "--to", "2").exit_code == 0
        refused = rig.rollout("start", "m", "--to", "1" if state == "done" else "2")
        assert "FAILED_PRECONDITION: the rollout of model 'm' needs a shadow of version" in refused.output
        assert "end that with `infer shadow stop m`" in refused.output


@pytest.mark.parametrize(("factor", "state", "told"), [
    (1.0, "done", "golden outputs are as they were; latency: 95% of the runs within "),
    (1.1, "rolled back", "before the first step: replay: 10 of 10 captured calls are answered otherwise; at most 0.5 "
                         "of them may be, within rtol 0.001 and atol 1e-05")])
def test_gates_come_before_any_call(tmp_path: Path, transport: str, factor: float, state: str, told: str) -> None:
    row = np.ones((1, 4), np.float32)
    with rig_of(tmp_path, transport, factor=factor, capture_dir=tmp_path / "captured") as rig:
        golden = tmp_path / "models" / "m" / "2" / "golden.npz"
        np.savez(golden, **{"input.x": row, "output.y": np.float32(factor) * row})
        for verb in (("start", "m", "--name", "before", "--per-second", "0"), ("stop", "m")):
            done = CliRunner().invoke(main, ["capture", *verb, "--address", rig.admin])
            assert done.exit_code == 0, done.output
            assert {rig.caller.answer("m")[0] for _ in range(10)} == {"1"}
        for gates, refused in [(("replay=after",), "FAILED_PRECONDITION: gate replay=after: "),
                               (("replay=../models/m/1/model.onnx",), "INVALID_ARGUMENT: gate replay"),
                               (("latency=soon",), "INVALID_ARGUMENT: gate latency=soon")]:
            asked = rig.rollout("start", "m", "--to", "2", *(f"--gate={each}" for each in gates))
            assert asked.exit_code != 0
            assert refused in asked.output
        (tmp_path / "captured" / "out.capture").symlink_to(tmp_path / "infer.toml")
        assert "has no such file" in rig.rollout("start", "m", "--to", "2", "--gate", "replay=out").output
        started = rig.rollout("start", "m", "--to", "2", "--gate", "latency=60s", "--gate", "replay=before.capture",
                              "--gate", "differs=0.5")
        assert started.exit_code == 0, started.output
        rig.until_ended()
        assert rig.state == state
        assert told in rig.rollout("history", "m").output


@pytest.mark.parametrize(("bought", "state"), [({"1": 0.0, "2": 1.0}, "done"), ({"1": 1.0, "2": 0.0}, "rolled back")])
def test_what_clients_report_decides(tmp_path: Path, transport: str, bought: dict[str, float], state: str) -> None:
    toml = TOML.replace('p99 = "off" }', 'p99 = "off", errors = "off", drift = "off", "outcome:bought" = -0.1 }')
    with rig_of(tmp_path, transport, toml=toml) as rig, grpc.insecure_channel(rig.served.address) as channel:
        record = channel.unary_unary("/inference.GRPCInferenceService/RecordOutcome")
        assert rig.rollout("start", "m", "--to", "2").exit_code == 0
        rig.look()
        rig.look()
        for number in range(LOOKS):
            made = message("inference.RecordOutcomeRequest")()
            for each in range(CALLS):
                identity = f"{number}.{each}"
                reply = rig.caller.client.infer("m", {"x": np.ones((1, 4), np.float32)}, request_id=identity)
                made.outcomes.add(model="m", metric="bought", value=bought[reply.model_version], request_id=identity)
            reply = message("inference.RecordOutcomeResponse").FromString(record(made.SerializeToString()))
            assert reply.accepted == CALLS
            rig.look()
            if rig.state != "running":
                break
        assert rig.state == state
        status = rig.rollout("status", "m").output
        assert "outcome:bought" in status
        # Nobody counts any more.
        with pytest.raises(grpc.RpcError) as error:
            record(made.SerializeToString())
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION    # type: ignore[attr-defined]


def test_a_budget_that_a_version_does_not_keep(tmp_path: Path, transport: str) -> None:
    with rig_of(tmp_path, transport) as rig:
        # No run is that quick.
        assert rig.rollout("start", "m", "--to", "2", "--gate", "latency=0.1us").exit_code == 0
        assert rig.until_ended() == {"1"}
        assert "before the first step: latency: more than 5% of 100 runs took longer than 0.0001 ms" in rig.rollout(
            "history", "m").output
        refused = rig.rollout("start", "m", "--to", "2", "--gate", "replay=any")
        assert "this server has no --capture-dir" in refused.output


def test_people_have_their_say(tmp_path: Path, transport: str) -> None:
    with rig_of(tmp_path, transport) as rig:
        for arguments, told in [
                (("pause", "m"), "NOT_FOUND: model 'm' has had no rollout"),
                (("status", "n"), "NOT_FOUND: model 'n' has had no rollout"),
                (("start", "n", "--to", "2"), "NOT_FOUND: unknown model 'n'"),
                (("start", "m", "--to", "9"), "NOT_FOUND: model 'm' has no version 9"),
                (("start", "m", "--to", "1"), "FAILED_PRECONDITION: model 'm' has no version ready"),
                (("start", "m", "--to", "2", "--guardrail", "speed=1"), "INVALID_ARGUMENT: guardrail 'speed'"),
                (("start", "m", "--to", "2", "--steps", "5,1"), "INVALID_ARGUMENT: steps"),
                (("start", "m", "--to", "2", "--steps", "0,1,100"), "INVALID_ARGUMENT: steps: a first step of 0%"),
                (("start", "m", "--to", "2", "--guardrail", "top1=0"), "INVALID_ARGUMENT: guardrail 'top1'"),
                (("start", "m", "--to", "2", "--alpha", "0.9"), "INVALID_ARGUMENT: alpha")]:
            refused = rig.rollout(*arguments)
            assert refused.exit_code != 0
            assert told in refused.output
        assert "expected a number and s, m, h or d" in rig.rollout("start", "m", "--to", "2", "--every", "soon").output
        assert rig.rollout("status").output == "there has been no rollout; infer rollout start begins one\n"
        assert rig.rollout("start", "m", "--to", "2", "--steps", "10,20,100").exit_code == 0
        rig.look()
        rig.look()
        split = CliRunner().invoke(main, ["split", "set", "m", "--to", "1=50,2=50", "--address", rig.admin])
        assert "has a rollout to version 2, which divides its requests" in split.output
        assert rig.rollout("pause", "m", "--reason", "lunch").output.splitlines()[1].split()[3:5] == ["paused", "10%"]
        assert rig.rollout("promote", "m").output.splitlines()[1].split()[3:5] == ["running", "20%"]
        assert "it is running" not in rig.rollout("resume", "m").output
        assert rig.rollout("abort", "m", "--reason", "no").output.splitlines()[1].split()[3:5] == ["aborted", "0%"]
        assert {rig.caller.answer("m")[0] for _ in range(CALLS)} == {"1"}
        assert rig.rollout("start", "m", "--to", "2").exit_code == 0
        rig.look()
        rig.look()
        assert "abort it first" in rig.rollout("start", "m", "--to", "2").output
        assert rig.rollout("promote", "m", "--all").output.splitlines()[1].split()[3:5] == ["done", "100%"]
        assert rig.caller.answer("m")[0] == "2"
        assert [json.loads(line)["state"] for line in rig.rollout("history", "m", "--json").output.splitlines()] == [
            "aborted", "done"]


def test_watch(tmp_path: Path, transport: str) -> None:
    with rig_of(tmp_path, transport) as rig, grpc.insecure_channel(rig.admin) as channel:
        rig.rollout("start", "m", "--to", "2")
        watch = channel.unary_stream("/infer.v1.Admin/RolloutWatch")(
            message("infer.v1.RolloutRequest")(model="m").SerializeToString())
        states = [message("infer.v1.Rollout").FromString(next(watch)).state]
        rig.rollout("abort", "m")
        while states[-1] != "aborted":
            states.append(message("infer.v1.Rollout").FromString(next(watch)).state)
        watch.cancel()
        assert states[0] in ("waiting", "gates")
        assert "aborted" in rig.rollout("watch", "m").output
        unknown = channel.unary_stream("/infer.v1.Admin/RolloutWatch")(
            message("infer.v1.RolloutRequest")(model="n").SerializeToString())
        with pytest.raises(grpc.RpcError) as error:
            next(unknown)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]


def test_new_versions_are_rolled_out_by_themselves(tmp_path: Path, transport: str) -> None:
    toml = TOML.replace("labels = { stable = 1 }\n", "")
    toml = toml.replace("rollout = {", 'rollout = { on_new_version = "rollout",')
    place_version(tmp_path / "models", "m", 1)
    (tmp_path / "infer.toml").write_text(toml)
    with in_process(tmp_path / "models", toml=tmp_path / "infer.toml", admin_port=0, transport=transport,
                    repository_poll_interval=0.05, repository_settle_time=0.05) as served:
        rig = Rig(served)
        while rig.caller.status("m", "stable")[0] != "OK":
            rig.look()
        place_version(tmp_path / "models", "m", 2, 1.0)
        while not served.look(rig.controller.rollouts):
            assert rig.caller.answer("m")[0] == "1"
            rig.look()
        rig.until_ended()
        assert (rig.state, rig.caller.answer("m")[0]) == ("done", "2")
        place_version(tmp_path / "models", "m", 3, 9.0)
        while served.look(lambda: rig.controller.rollouts()["m"].plan.to) != 3:
            rig.look()
        rig.until_ended()
        assert (rig.state, rig.caller.answer("m")[0]) == ("rolled back", "2")
        rig.caller.client.close()
