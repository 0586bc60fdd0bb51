"""The audit log: what it writes, what it says of rows that are lost, and that an end at any moment leaves it whole."""

from __future__ import annotations

import datetime
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infer.observe.logs import JsonFormatter, TextFormatter
from infer.security import audit
from infer.security.audit import START, AuditLog, Entry, chained, logged_hashes, verify
from infer.state.database import reading
from infer.state.store import Store

LONG = 30.0
NOON = datetime.datetime(2026, 3, 1, 13, 0, 0, 5, datetime.timezone(datetime.timedelta(hours=1)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path, max_writes=2, retry_seconds=3600.0)
    yield store
    store.close(LONG)


def rows(directory: Path) -> list[tuple[Entry, str]]:
    connection = reading(directory)
    try:
        return list(audit.read(connection))
    finally:
        connection.close()


def test_a_row_and_its_line(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(store, lambda: NOON)
    log.record("load", outcome="done", who="ipv4:10.0.0.1:5", model="m", version="3", detail="sha256 ab")
    log.record("settings", outcome="refused", who="SIGHUP")
    assert store.flush(LONG)
    first, second = rows(tmp_path)
    assert first[0] == (1, "2026-03-01T12:00:00.000005+00:00", "load", "m", "3", "done", "ipv4:10.0.0.1:5", "sha256 ab")
    assert second[0][:2] == (2, "2026-03-01T12:00:00.000005+00:00")
    assert first[1] == chained(START, first[0])
    assert second[1] == chained(first[1], second[0])
    line, _ = caplog.records
    assert (line.message, line.levelno) == ("audit: load of model 'm' version 3: done", logging.INFO)
    for formatter in (JsonFormatter(), TextFormatter()):
        text = [formatter.format(record) for record in caplog.records]
        assert logged_hashes([*text, "another line"]) == ({1: first[1], 2: second[1]}, [])
    assert json.loads(JsonFormatter().format(line))["who"] == "ipv4:10.0.0.1:5"


def test_its_lines_are_written_whatever_the_level(store: Store) -> None:
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.CRITICAL)
    try:
        assert audit.log.isEnabledFor(logging.INFO)
    finally:
        root.setLevel(before)


def test_it_goes_on_where_it_ended(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    AuditLog(store).record("load", outcome="done", who="source")
    assert store.close(LONG)
    caplog.clear()
    again = Store(tmp_path)
    AuditLog(again).record("unload", outcome="done", who="source")
    assert again.close(LONG)
    chain = rows(tmp_path)
    assert list(verify(chain, {})) == []
    assert [entry.event for entry, _ in chain] == ["load", "unload"]
    # Cutting off the end while no server runs shows against the line of the next start.
    assert logged_hashes(map(JsonFormatter().format, caplog.records))[0] == {1: chain[0][1], 2: chain[1][1]}


def test_without_a_directory_there_is_the_ordinary_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    kept = AuditLog(Store(None)).record("load", outcome="done", who="source", model="m")
    assert kept is not None
    assert kept.result(0)
    (line,) = caplog.records
    assert line.message == "audit: load of model 'm': done"
    assert not hasattr(line, "audit_row")


def test_text_that_would_pass_for_more(store: Store, tmp_path: Path) -> None:
    AuditLog(store).record("load", outcome="failed\n1 audit_row=9", who="\x1b[2J\udc80", detail="\u00e9" * 5000)
    assert store.flush(LONG)
    ((entry, _),) = rows(tmp_path)
    assert (entry.outcome, entry.who) == (r"failed\n1 audit_row=9", r"\x1b[2J\udc80")
    assert entry.detail == "\u00e9" * 4095 + "\u2026"


def test_rows_that_are_lost_leave_a_row(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert store.connection is not None
    log = AuditLog(store)
    (pages,) = store.connection.execute("PRAGMA page_count").fetchone()
    store.connection.execute(f"PRAGMA max_page_count = {pages}")
    large = log.record("load", outcome="done", who="a", detail="x" * 4000)
    assert large is not None
    assert not large.result(LONG)
    assert log.record("load", outcome="done", who="b") is not None
    assert log.record("unload", outcome="done", who="c", model="m") is None
    assert log.record("unload", outcome="done", who="d") is None
    assert "audit: unload of model 'm': done; it is not kept: too many wait to be written" in caplog.text
    store.connection.execute("PRAGMA max_page_count = 100000")
    assert store.flush(LONG)
    assert log.record("load", outcome="done", who="e") is not None
    assert log.record("load", outcome="done", who="f") is not None
    assert store.flush(LONG)
    chain = rows(tmp_path)
    assert [(entry.event, entry.who) for entry, _ in chain] == [
        ("load", "a"), ("load", "b"), ("gap", "server"), ("load", "e"), ("load", "f")]
    assert chain[2][0].detail == "2 rows before this one were not kept"
    assert list(verify(chain, {})) == []


WRITER = """
import logging, sys
from pathlib import Path
from infer.observe.logs import JsonFormatter
from infer.security import audit
from infer.state.store import Store
lines = logging.StreamHandler(sys.stdout)
lines.setFormatter(JsonFormatter())
audit.log.addHandler(lines)
store = Store(Path(sys.argv[1]))
log = audit.AuditLog(store)
while True:
    kept = log.record("load", outcome="done", who="source", model="m")
    store.save("m", {"labels": {"stable": 1}})
    if kept is None:
        store.flush()
"""


def test_kill_9_in_the_middle_of_writes(tmp_path: Path) -> None:
    lines: list[str] = []
    for lines_before_the_end in (1, 40, 200):
        with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                lines.append(line)
                # Others say that a row was not kept, where the disk is slow.
                lines_before_the_end -= bool(logged_hashes([line])[0])
                if lines_before_the_end == 0:
                    os.kill(writer.pid, signal.SIGKILL)
                    break
            # The last line may be a part of one.
            lines += [line for line in writer.stdout if line.endswith("\n")]
        assert writer.returncode == -signal.SIGKILL
        logged, twice = logged_hashes(lines)
        chain = rows(tmp_path)
        # Each line was written after its row.
        assert (list(verify(chain, logged)), twice) == ([], [])
        assert len(chain) >= max(logged)
    store = Store(tmp_path)
    assert store.records() == {"m": {"labels": {"stable": 1}}}
    AuditLog(store).record("unload", outcome="done", who="source")
    assert store.close(LONG)
    assert list(verify(rows(tmp_path), logged)) == []
