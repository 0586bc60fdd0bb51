"""The store: records and rows outlive a restart, and a disk that fails does not end the server (F32)."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infer.errors import StateError
from infer.state import database
from infer.state.database import FILE, LOCK, SCHEMA, reading
from infer.state.store import Append, Store

LONG = 30.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state", retry_seconds=3600.0)
    assert store.connection is not None
    store.connection.execute("PRAGMA busy_timeout = 0")
    yield store
    store.close(LONG)


def row(text: str, done: Callable[[], None] = lambda: None) -> Append:
    def append(connection: sqlite3.Connection | None) -> Callable[[], None]:
        assert connection is not None
        connection.execute("INSERT INTO audit (time, event, model, version, outcome, who, detail, hash) "
                           "VALUES ('', ?, '', '', '', '', '', '')", (text,))
        return done

    return append


def events(directory: Path) -> list[str]:
    connection = reading(directory)
    try:
        return [text for (text,) in connection.execute("SELECT event FROM audit ORDER BY sequence")]
    finally:
        connection.close()


def test_records_outlive_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.records() == {}
    store.save("m", {"labels": {"stable": 3}})
    store.save("gone", {})
    assert store.save("gone", None).result(LONG)
    assert store.save("m", {"labels": {"stable": 4}}).result(LONG)
    assert store.close(LONG)
    store = Store(tmp_path)
    assert store.records() == {"m": {"labels": {"stable": 4}}}
    store.close(LONG)


def test_without_a_directory_records_live_in_memory() -> None:
    store = Store(None)
    seen = []

    def append(connection: sqlite3.Connection | None) -> Callable[[], None]:
        seen.append(connection)
        return lambda: seen.append("done")

    assert store.save("m", {"a": [1]}).result(0)
    kept = store.append(append)
    assert kept is not None
    assert kept.result(0)
    assert (store.records(), seen, store.connection) == ({"m": {"a": [1]}}, [None, "done"], None)
    assert store.close()


def test_a_record_is_kept_as_it_was_when_it_was_saved(store: Store) -> None:
    record = {"versions": [1]}
    store.save("m", record)
    record["versions"].append(2)
    assert store.records() == {"m": {"versions": [1]}}
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.save("m", {"at": float("nan")})


def test_rows_are_written_in_order_and_followed_by_what_they_ask_for(store: Store, tmp_path: Path) -> None:
    seen: list[str] = []
    for number in range(20):
        store.append(row(str(number), lambda number=number: seen.append(str(number))))  # type: ignore[misc]
    assert store.flush(LONG)
    assert events(tmp_path / "state") == seen == [str(number) for number in range(20)]


def test_what_the_audit_log_holds_cannot_be_edited_by_accident(store: Store) -> None:
    store.append(row("a"))
    assert store.flush(LONG)
    assert store.connection is not None
    for statement in ("UPDATE audit SET event = 'b'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            store.connection.execute(statement)


def test_the_directory_is_the_servers_alone(store: Store, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert (state.stat().st_mode & 0o777, (state / FILE).stat().st_mode & 0o777) == (0o700, 0o600)
    with pytest.raises(StateError, match=f"another server, process {os.getpid()}, uses this state directory"):
        Store(state)
    store.close(LONG)
    Store(state).close(LONG)


# At the start.

def damaged(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def torn(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    path.write_bytes(content)


def another(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def bad_record(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO models VALUES ('m', '[1')")
    connection.close()


def directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(("spoil", "text"), [
    (damaged, "file is not a database; move the file away to start without the labels"),
    (torn, "move the file away"),
    (another, "is a database of another program"),
    (newer, rf"written by a newer infer \(schema 99; this one knows up to {SCHEMA}\)"),
    (bad_record, "the record of model 'm' is damaged; remove it with: sqlite3"),
    (directory_instead, "cannot be opened for writing: Is a directory"),
])
def test_a_file_that_cannot_be_used_is_an_error_at_the_start(
        spoil: Callable[[Path], None], text: str, tmp_path: Path) -> None:
    Store(tmp_path).close(LONG)
    spoil(tmp_path / FILE)
    before = (tmp_path / FILE).read_bytes() if spoil in (damaged, torn, another, newer) else None
    with pytest.raises(StateError, match=text) as caught:
        Store(tmp_path)
    assert str(tmp_path / FILE) in caught.value.message
    assert before is None or (tmp_path / FILE).read_bytes() == before
    # The lock is given back.
    shutil.rmtree(tmp_path)
    Store(tmp_path).close(LONG)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="file/state: cannot be used as the state directory: Not a directory"):
        Store(tmp_path / "file" / "state")


def test_a_file_that_another_program_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).close(LONG)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.0)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateError, match="another program holds the file locked; end it"):
        Store(tmp_path)
    other.close()
    Store(tmp_path).close(LONG)


def test_f32_a_disk_that_is_full_at_the_start(tmp_path: Path) -> None:
    # A limit on the size of files: writes fail as on a full disk.
    script = ("import resource, sys\nfrom pathlib import Path\nfrom infer.state.store import Store\n"
              "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
              "from infer.errors import StateError\n"
              "try: Store(Path(sys.argv[1]))\nexcept StateError as error: print(error.message)\n")
    done = subprocess.run([sys.executable, "-c", script, tmp_path], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"{tmp_path / FILE}: ")
    assert "free space" in done.stdout or "look at its file system" in done.stdout


def test_a_file_that_may_only_be_read() -> None:
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect("file::memory:?mode=ro", uri=True).execute("PRAGMA query_only = 1; ").connection.execute(
            "CREATE TABLE t (x)")
    assert database.text_of(caught.value).endswith("make it writable for the server, or choose another directory "
                                                   "(--state-dir)")


# While it serves.

def fill(connection: sqlite3.Connection) -> None:
    """The disk is full: not a page more."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")


def free(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA max_page_count = 1000000")


def test_f32_a_disk_that_fills_up_is_counted_and_serving_goes_on(
        store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert store.connection is not None
    fill(store.connection)
    large = "x" * 100_000
    seen: list[str] = []
    first = store.append(row(large, lambda: seen.append("first")))
    assert first is not None
    assert not first.result(LONG)
    saved = store.save("m", {"labels": {"stable": 1}})
    second = store.append(row("second", lambda: seen.append("second")))
    assert not store.flush(LONG)
    assert not saved.result(LONG)
    assert store.save("m", {"labels": {"stable": 2}}) is not None
    assert store.records() == {"m": {"labels": {"stable": 2}}}
    assert (store.failures, store.waiting, seen) == (2, 3, [])
    assert "full" in store.problem
    free(store.connection)
    assert store.flush(LONG)
    assert (store.problem, store.waiting, seen) == ("", 0, ["first", "second"])
    assert events(tmp_path / "state") == [large, "second"]
    assert second is not None
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    assert "free space on its file system" in caplog.records[0].message
    store.close(LONG)
    reopened = Store(tmp_path / "state")
    assert reopened.records() == {"m": {"labels": {"stable": 2}}}
    reopened.close(LONG)


def test_a_reader_that_holds_the_file_is_waited_out(store: Store, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "state" / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    saved = store.save("m", {})
    assert not saved.result(LONG)
    assert "locked" in store.problem
    other.execute("ROLLBACK")
    other.close()
    assert store.flush(LONG)


def test_it_is_tried_again_by_itself(tmp_path: Path) -> None:
    store = Store(tmp_path, retry_seconds=0.001)
    assert store.connection is not None
    fill(store.connection)
    kept = store.append(row("x" * 100_000))
    assert kept is not None
    assert not kept.result(LONG)
    free(store.connection)
    # The same row, by an attempt that nobody asked for; what comes behind it is told.
    behind = store.append(row("y"))
    assert behind is not None
    behind.result(LONG)
    assert store.flush(LONG)
    assert events(tmp_path) == ["x" * 100_000, "y"]
    store.close(LONG)


def test_rows_that_wait_are_bounded(tmp_path: Path) -> None:
    store = Store(tmp_path, max_writes=3, retry_seconds=3600.0)
    assert store.connection is not None
    fill(store.connection)
    first = store.append(row("x" * 100_000))
    assert first is not None
    assert not first.result(LONG)
    assert [store.append(row("y")) is None for _ in range(4)] == [False, False, True, True]
    assert (store.dropped, store.waiting) == (2, 3)
    assert not store.close(LONG)


def test_changes_that_are_lost_at_the_end_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path, retry_seconds=3600.0)
    assert store.connection is not None
    fill(store.connection)
    store.save("m", {"text": "x" * 100_000})
    assert not store.close(LONG)
    assert "1 changes of the state were not written: database or disk is full" in caplog.text
    Store(tmp_path).close(LONG)


def test_a_file_of_an_older_schema_is_brought_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    assert store.save("m", {"a": 1}).result(LONG)
    store.close(LONG)
    more = (*database.MIGRATIONS, ("ALTER TABLE models ADD COLUMN note TEXT NOT NULL DEFAULT ''",
                                   "INSERT INTO models (name, record) VALUES ('by migration', '{}')"))
    monkeypatch.setattr(database, "MIGRATIONS", more)
    monkeypatch.setattr(database, "SCHEMA", len(more))
    for _ in range(2):
        store = Store(tmp_path)
        assert store.records() == {"m": {"a": 1}, "by migration": {}}
        store.close(LONG)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).close(LONG)
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, ("CREATE TABLE more (x)", "NO SQL")))
        patch.setattr(database, "SCHEMA", SCHEMA + 1)
        with pytest.raises(StateError, match="syntax error"):
            Store(tmp_path)
    store = Store(tmp_path)
    assert store.connection is not None
    assert store.connection.execute("SELECT name FROM sqlite_master WHERE name = 'more'").fetchall() == []
    store.close(LONG)


def test_reading_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="is not there; name the directory that the server was given"):
        reading(tmp_path)
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(StateError, match="is not a database of infer"):
        reading(tmp_path)
    assert not (tmp_path / LOCK).exists()
