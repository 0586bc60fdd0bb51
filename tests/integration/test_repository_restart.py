"""A server as a process: killed in the middle of a transition and started again, and its settings read anew."""

from __future__ import annotations

import signal
from pathlib import Path

from infer.client import InferClient
from tests.support.command import Serving, run
from tests.support.repositories import Caller, place_version

QUICK = ("--repository-poll-interval", "0.05", "--repository-settle-time", "0.05")


def test_kill_9_during_a_transition(tmp_path: Path) -> None:
    root, state = tmp_path / "models", tmp_path / "state"
    for version in (1, 2):
        place_version(root, "m", version)
    (root / "m" / "config.pbtxt").write_text("version_policy { all {} }\n")
    explicit = (root, "--model-control-mode", "explicit", "--state-dir", state, *QUICK)
    with Serving(*explicit) as serving, InferClient(serving.address) as client:
        client.load("m")
        client.move_label("m", "stable", 1)
        client.move_label("m", "canary", 3)
        place_version(root, "m", 3)
        # The load begins, and nobody waits for its end.
        caller = Caller(serving.address)
        loading = caller.client._channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")
        from infer.client.calls import model_load

        pending = loading.future(model_load("m", None, {}).request, timeout=60)
        serving.process.kill()
        serving.wait()
        assert pending.exception() is not None or pending.result() is not None
        (tmp_path / "log").write_text("".join(line + "\n" for line in serving.stderr))
    verified = run("audit", "--verify", "--state-dir", state, cwd=tmp_path)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    with Serving(*explicit) as serving:
        caller = Caller(serving.address)
        assert caller.answer("m") == ("1", 1.0)
        assert caller.answer("m", "stable") == ("1", 1.0)
        # The version that it waits for is there now, and loaded with the model.
        assert caller.answer("m", "canary") == ("3", 3.0)
        assert serving.stop() == 0, serving.output
    verified = run("audit", "--verify", "--state-dir", state, cwd=tmp_path)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    events = [line.split()[2:4] for line in run("audit", "--state-dir", state, cwd=tmp_path).stdout.splitlines()[1:]]
    assert ["load", "m"] in [event[:2] for event in events]


def test_kill_9_while_versions_come_under_watch(tmp_path: Path) -> None:
    root, state = tmp_path / "models", tmp_path / "state"
    place_version(root, "m", 1)
    watched = (root, "--state-dir", state, *QUICK)
    for version in (2, 3, 4):
        with Serving(*watched) as serving:
            caller = Caller(serving.address)
            assert caller.answer("m") == (str(version - 1), float(version - 1))
            place_version(root, "m", version)
            serving.wait_for(rf"model 'm' version {version} loaded")
            serving.process.kill()
            serving.wait()
        verified = run("audit", "--verify", "--state-dir", state, cwd=tmp_path)
        assert verified.returncode == 0, verified.stdout + verified.stderr


def test_sighup_reads_the_settings_of_models(tmp_path: Path) -> None:
    for version in (1, 2):
        place_version(tmp_path / "models", "m", version)
    toml = tmp_path / "infer.toml"
    base = ('paths = ["models"]\nrepository_poll_interval = 3600\n[models.m]\n'
            'version_policy = { all = {} }\n')
    toml.write_text(base + "labels = { stable = 1 }\n")
    with Serving(cwd=tmp_path) as serving:
        caller = Caller(serving.address)
        assert caller.answer("m") == ("1", 1.0)
        toml.write_text(base + "labels = { stable = 7x }\n")
        serving.process.send_signal(signal.SIGHUP)
        serving.wait_for("cannot be used; nothing has changed")
        assert caller.answer("m") == ("1", 1.0)
        toml.write_text(base + "labls = { stable = 2 }\n")
        serving.process.send_signal(signal.SIGHUP)
        serving.wait_for(r"nothing has changed: .*labls")
        assert caller.answer("m") == ("1", 1.0)
        toml.write_text(base + "labels = { stable = 2, canary = 1 }\n")
        serving.process.send_signal(signal.SIGHUP)
        serving.wait_for("the settings of models were read again, and are applied")
        serving.wait_for(r"model 'm' version 2: label moved: stable")
        assert caller.answer("m") == ("2", 2.0)
        assert caller.answer("m", "canary") == ("1", 1.0)
        assert serving.stop() == 0, serving.output


def test_a_file_of_models_with_an_error_does_not_start(tmp_path: Path) -> None:
    place_version(tmp_path, "m", 1)
    (tmp_path / "models.config").write_text(
        'model_config_list { config { name: "m" base_path: "m" model_platform: "tensorflow" } }\n')
    done = run("serve", "--model-config-file", "models.config", "--port", "0", "--http-port", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "models.config:1" in done.stderr
    assert "tensorflow" in done.stderr
