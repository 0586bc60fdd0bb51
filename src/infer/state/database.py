"""The file of the store: an SQLite database in WAL mode, opened, checked and brought to the newest schema.

A directory belongs to one server at a time, which a lock on a file of its own holds until the process ends; readers
need none. Every commit is on the disk before it returns, so an end at any moment loses nothing that was committed.
Functions here may wait for a disk: never on the loop.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infer.errors import StateError

FILE = "infer.db"
LOCK = "lock"
# Four bytes at a known place of an SQLite file that say whose it is.
APPLICATION_ID = 0x696E6672
# How long a program that reads the file may hold up a write.
BUSY_SECONDS = 5.0
WAL_BYTES = 4 << 20

# Each brings the schema from its index to the next number, in one transaction; those that were released never change.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE models (name TEXT PRIMARY KEY NOT NULL, record TEXT NOT NULL)",
        """CREATE TABLE audit (sequence INTEGER PRIMARY KEY NOT NULL, time TEXT NOT NULL, event TEXT NOT NULL,
           model TEXT NOT NULL, version TEXT NOT NULL, outcome TEXT NOT NULL, who TEXT NOT NULL, detail TEXT NOT NULL,
           hash TEXT NOT NULL)""",
        "CREATE TRIGGER audit_is_not_edited BEFORE UPDATE ON audit "
        "BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END",
        "CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit "
        "BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END",
    ),
)
SCHEMA = len(MIGRATIONS)


class Database:
    """The open file and its lock."""

    def __init__(self, directory: Path) -> None:
        """Raises StateError: the directory cannot be used, and why."""
        self.path = directory / FILE
        self._lock = _locked(directory)
        try:
            self.connection = _opened(self.path)
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Gives the directory to the next server."""
        # A file that cannot be closed well is complete nevertheless: its journal is read at the next start.
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        os.close(self._lock)


def _locked(directory: Path) -> int:
    """Descriptor of the lock file, held."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f"{directory}: cannot be used as the state directory: {error.strerror}; make it a directory "
                         f"that uid {os.geteuid()} may write to, or choose another (--state-dir)") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StateError(f"{directory}: another server{f', process {holder},' if holder else ''} uses this state "
                         "directory; stop it, or give each server its own (--state-dir)") from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise StateError(f"{directory / LOCK}: cannot be written: {error.strerror}; {_ADVICE_SPACE}") from None
    return descriptor


def _opened(path: Path) -> sqlite3.Connection:
    try:
        # The journal beside it is created with the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StateError(f"{path}: cannot be opened for writing: {error.strerror}; make it a file that uid "
                         f"{os.geteuid()} may write to, or choose another directory (--state-dir)") from None
    with explained(path):
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    schema = _value(connection, "PRAGMA user_version")
    owner = _value(connection, "PRAGMA application_id")
    empty = _value(connection, "SELECT count(*) FROM sqlite_master") == 0
    if not (owner == APPLICATION_ID or (empty and owner == 0 and schema == 0)):
        raise StateError(f"{path}: is a database of another program; choose another directory (--state-dir)")
    if schema > SCHEMA:
        raise StateError(f"{path}: was written by a newer infer (schema {schema}; this one knows up to {SCHEMA}); use "
                         "that one, or choose another directory (--state-dir)")
    found = _value(connection, "PRAGMA quick_check(1)")
    if found != "ok":
        raise sqlite3.DatabaseError(str(found))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    for number in range(schema, SCHEMA):
        with transaction(connection):
            for statement in MIGRATIONS[number]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number + 1}")
    # A disk that is full or read-only is found now and not at the first change.
    with transaction(connection):
        connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _value(connection: sqlite3.Connection, statement: str) -> Any:
    (value,) = connection.execute(statement).fetchone()
    return value


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """What is done within is committed whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


_ADVICE_SPACE = "free space on its file system, or choose another directory (--state-dir)"
_ADVICE_DAMAGED = ("move the file away to start without the labels and the audit log that it holds, or put a copy of "
                   "it back")
# By the primary code of SQLite, which is the start of an extended one's name.
_ADVICE = {
    "SQLITE_FULL": _ADVICE_SPACE,
    "SQLITE_IOERR": "look at its file system and disk",
    "SQLITE_READONLY": "make it writable for the server, or choose another directory (--state-dir)",
    "SQLITE_CANTOPEN": "make it readable and writable for the server, or choose another directory (--state-dir)",
    "SQLITE_BUSY": "another program holds the file locked; end it",
    "SQLITE_NOTADB": _ADVICE_DAMAGED,
    "SQLITE_CORRUPT": _ADVICE_DAMAGED,
}


def text_of(error: sqlite3.Error) -> str:
    """What is wrong, and what to do."""
    name = getattr(error, "sqlite_errorname", None) or ""
    advice = next((text for start, text in _ADVICE.items() if name.startswith(start)), _ADVICE_DAMAGED)
    return f"{error}; {advice}"


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into StateError with the file's name."""
    try:
        yield
    except sqlite3.Error as error:
        raise StateError(f"{path}: {text_of(error)}") from None


def reading(directory: Path) -> sqlite3.Connection:
    """A connection that only reads, beside a server or without one. Raises StateError."""
    path = directory / FILE
    if not path.is_file():
        raise StateError(f"{path}: is not there; name the directory that the server was given (--state-dir)")
    # Without a journal there is nothing to be read but the file, which a directory that cannot be written to needs.
    journal = path.with_name(FILE + "-wal")
    options = "" if journal.exists() or os.access(directory, os.W_OK) else "&immutable=1"
    with explained(path):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{options}", uri=True, timeout=BUSY_SECONDS,
                                     isolation_level=None)
        # Bytes that are no text are shown as such; they do not end the reading.
        connection.text_factory = lambda content: content.decode("utf-8", "surrogateescape")
        if _value(connection, "PRAGMA application_id") != APPLICATION_ID:
            connection.close()
            raise StateError(f"{path}: is not a database of infer")
    return connection
