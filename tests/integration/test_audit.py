"""A server that runs: SIGHUP, what changes leave in the audit log, and that one server has a state directory."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from infer.client import InferClient
from infer.proto import message
from tests.support.command import EXAMPLES, Serving, run
from tests.support.server import scrape

LOG_SETTINGS = "/inference.GRPCInferenceService/LogSettings"
DRAINED, FAILED = 0, 1


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "infer.toml").write_text(f'paths = ["{EXAMPLES / "digits"}"]\nstate_dir = "state"\n')
    return tmp_path / "infer.toml"


def problem(serving: Serving) -> float:
    return scrape(serving.http)[("infer_settings_problem", frozenset())]


def test_f45_sighup_reads_the_settings_again(settings: Path) -> None:
    written = settings.read_text()
    with Serving(cwd=settings.parent) as serving:
        settings.write_text(written + 'log_level = "debug"\nmax_streams = 5\nheader_bytes = "x"\n')
        serving.process.send_signal(signal.SIGHUP)
        serving.wait_for(r"cannot be used; nothing has changed: .*infer\.toml:5: header_bytes: got 'x'")
        serving.wait_for("audit: settings: refused")
        assert problem(serving) == 1
        settings.write_text(written + 'log_level = "debug"\nmax_streams = 5\n')
        serving.process.send_signal(signal.SIGHUP)
        serving.wait_for("--log-level: info -> debug")
        serving.wait_for("--max-streams: 1024 -> 5 applies from the next start on")
        serving.wait_for("audit: settings: at the next start")
        assert problem(serving) == 0
        request = message("inference.LogSettingsRequest")()
        request.settings["log_verbose_level"].uint32_param = 0
        with InferClient(serving.address) as client:
            client.call(LOG_SETTINGS, request.SerializeToString())
        # Beside the server.
        rows = run("audit", cwd=settings.parent).stdout.splitlines()[1:]
        assert serving.stop() == DRAINED
        (settings.parent / "log").write_text("".join(line + "\n" for line in serving.stderr))
    assert [row.split()[2] for row in rows] == ["load", "settings", "settings", "settings", "settings"]
    assert "one problem in the settings" in rows[1]
    assert "done" in rows[2]
    assert "--log-level: info -> debug" in rows[2]
    assert "ipv4:127.0.0.1:" in rows[4]
    verified = run("audit", "--log", "log", cwd=settings.parent)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert verified.stdout.startswith("5 rows, 5 of them compared with the log: as they were written")


def test_a_state_directory_is_one_servers(settings: Path) -> None:
    with Serving(cwd=settings.parent) as serving:
        second = run("serve", "--port", "0", "--http-port", "0", "--host", "127.0.0.1", cwd=settings.parent)
        assert second.returncode == FAILED
        assert f"another server, process {serving.process.pid}, uses this state directory" in second.stderr
        assert serving.stop() == DRAINED


def test_a_state_directory_that_is_damaged(settings: Path) -> None:
    (settings.parent / "state").mkdir()
    (settings.parent / "state" / "infer.db").write_bytes(b"no database" * 100)
    done = run("serve", "--port", "0", "--http-port", "0", "--host", "127.0.0.1", cwd=settings.parent)
    assert done.returncode == FAILED
    assert "state/infer.db: file is not a database; move the file away" in done.stderr
    assert "Traceback" not in done.stderr
