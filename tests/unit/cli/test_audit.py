"""`infer audit`: prints, and finds what was tampered with."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infer.cli import main
from infer.observe.logs import JsonFormatter
from infer.security.audit import START, AuditLog
from infer.state.database import FILE
from infer.state.store import Store

LONG = 30.0


@pytest.fixture
def state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Path:
    """A directory with five rows; their lines stand in `log` beside it."""
    store = Store(tmp_path / "state")
    log = AuditLog(store)
    for number in range(1, 6):
        log.record("load", outcome="done", who="source", model="m", version=str(number))
    assert store.close(LONG)
    (tmp_path / "log").write_text("".join(
        JsonFormatter().format(record) + "\n" for record in caplog.records if record.levelno == logging.INFO))
    return tmp_path / "state"


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["audit", *map(str, arguments)], input=stdin)


def edit(state: Path, *statements: str) -> None:
    """As someone with the file in hand would."""
    connection = sqlite3.connect(state / FILE)
    for trigger in ("audit_is_not_edited", "audit_is_not_cut"):
        connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_rows(state: Path) -> None:
    result = run("--state-dir", state)
    assert result.exit_code == 0
    head, *rows = result.output.splitlines()
    assert head.split() == ["ROW", "TIME", "EVENT", "MODEL", "VERSION", "OUTCOME", "WHO", "DETAIL"]
    assert [(row.split()[0], *row.split()[2:]) for row in rows] == [
        (str(number), "load", "m", str(number), "done", "source", "-") for number in range(1, 6)]
    found = [json.loads(line) for line in run("--state-dir", state, "--json").output.splitlines()]
    assert [(row["sequence"], row["version"], len(row["hash"])) for row in found] == [
        (number, str(number), 64) for number in range(1, 6)]


def test_where_the_directory_is(state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = run()
    assert result.exit_code == 2
    assert "give the server's --state-dir" in result.stderr
    (tmp_path / "infer.toml").write_text('state_dir = "state"\n')
    assert run("--verify").output.startswith("5 rows: as they were written")
    monkeypatch.setenv("INFER_STATE_DIR", "elsewhere")
    result = run()
    assert result.exit_code == 1
    assert "infer audit: elsewhere/infer.db: is not there" in result.stderr


def test_a_log_that_was_not_tampered_with(state: Path, tmp_path: Path) -> None:
    result = run("--state-dir", state, "--verify")
    assert result.exit_code == 0
    assert result.output.startswith("5 rows: as they were written; the last hash is ")
    for source, stdin in ((tmp_path / "log", None), ("-", (tmp_path / "log").read_text())):
        result = run("--state-dir", state, "--log", source, stdin=stdin)
        assert result.exit_code == 0
        assert result.output.startswith("5 rows, 5 of them compared with the log: as they were written")


def test_beside_a_server(state: Path) -> None:
    store = Store(state)
    log = AuditLog(store)
    log.record("unload", outcome="done", who="x")
    assert store.flush(LONG)
    assert run("--state-dir", state, "--verify").output.startswith("6 rows: as they were written")
    store.close(LONG)


def test_of_a_server_without_changes(tmp_path: Path) -> None:
    Store(tmp_path).close(LONG)
    assert run("--state-dir", tmp_path, "--verify").output == (
        f"0 rows: as they were written; the last hash is {START}\n")
    assert run("--state-dir", tmp_path).output.startswith("ROW")


@pytest.mark.parametrize(("statements", "row"), [
    (["UPDATE audit SET who = 'nobody' WHERE sequence = 3"], 3),
    (["UPDATE audit SET detail = x'ff00' WHERE sequence = 3"], 3),
    (["DELETE FROM audit WHERE sequence = 2"], 3),
    (["DELETE FROM audit WHERE sequence = 1"], 2),
    (["UPDATE audit SET sequence = 9 WHERE sequence = 2", "UPDATE audit SET sequence = 2 WHERE sequence = 3",
      "UPDATE audit SET sequence = 3 WHERE sequence = 9"], 2),
    (["INSERT INTO audit SELECT 6, time, event, model, version, outcome, who, detail, hash FROM audit "
      "WHERE sequence = 5"], 6),
])
def test_what_was_tampered_with(state: Path, statements: list[str], row: int) -> None:
    edit(state, *statements)
    result = run("--state-dir", state, "--verify")
    assert result.exit_code == 1
    first, *_, last = result.output.splitlines()
    assert first.startswith(f"row {row}: ")
    assert "NOT as they were written" in last
    found = json.loads(run("--state-dir", state, "--verify", "--json").output)
    assert found["broken"][0]["row"] == row
    # Still printed.
    assert run("--state-dir", state).exit_code == 0


def cut_off(state: Path) -> None:
    edit(state, "DELETE FROM audit WHERE sequence > 3")


def begun_anew(state: Path) -> None:
    (state / FILE).unlink()
    store = Store(state)
    log = AuditLog(store)
    for number in range(1, 4):
        log.record("load", outcome="done", who="source", model="m", version=str(number))
    store.close(LONG)


@pytest.mark.parametrize(("tamper", "rows"), [(cut_off, [4, 5]), (begun_anew, [1, 2, 3, 4, 5])])
def test_what_only_the_servers_log_shows(
        state: Path, tmp_path: Path, tamper: Callable[[Path], None], rows: list[int]) -> None:
    tamper(state)
    assert run("--state-dir", state, "--verify").exit_code == 0
    result = run("--state-dir", state, "--log", tmp_path / "log", "--json")
    assert result.exit_code == 1
    assert [each["row"] for each in json.loads(result.output)["broken"]] == rows


def test_a_log_with_two_beginnings(state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = (tmp_path / "log").read_text()
    caplog.clear()
    begun_anew(state)
    after = "".join(JsonFormatter().format(record) + "\n" for record in caplog.records)
    result = run("--state-dir", state, "--log", "-", stdin=before + after)
    assert result.exit_code == 1
    assert "the log has two hashes for row 1 and 2 more: a state directory was begun anew" in result.output
    assert "row 4: is in the log file and missing here" in result.output


def test_a_log_that_cannot_be_compared(state: Path, tmp_path: Path) -> None:
    result = run("--state-dir", state, "--log", tmp_path / "gone")
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr
    result = run("--state-dir", state, "--log", "-", stdin="nothing\n")
    assert result.exit_code == 2
    assert "holds no line of the audit log" in result.stderr


def test_a_file_that_is_damaged(state: Path) -> None:
    (state / FILE).write_bytes(b"no database" * 100)
    result = run("--state-dir", state)
    assert result.exit_code == 1
    assert "file is not a database" in result.stderr
