"""The store: a plain record per model, and rows that are only ever added, written by one thread.

`save` and `append` never wait: what they are given is written in the order in which it came, several in one
transaction. A write that fails is counted, logged once, and tried again with those behind it; serving goes on. Of a
model's records only the newest is kept while it waits, so that their number is bounded by that of the models; rows that
wait are bounded by `max_writes`. Without a directory records live in memory.

Methods may be called from any thread; none of them waits for a disk but the constructor, `flush` and `close`.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from infer.errors import StateError
from infer.state.database import Database, explained, text_of, transaction

log = logging.getLogger("infer.state")

MAX_WRITES = 1024
RETRY_SECONDS = 10.0
CLOSE_SECONDS = 5.0

Record = Mapping[str, Any]
# Adds rows within a transaction, which may be tried again; what it returns is called once they are committed. Without a
# directory the connection is None. On the writer's thread.
Append = Callable[[sqlite3.Connection | None], Callable[[], None]]


class _Waiting(NamedTuple):
    append: Append
    kept: Future[bool]


def _future() -> Future[bool]:
    """One that its owner cannot cancel: the write goes on."""
    future: Future[bool] = Future()
    future.set_running_or_notify_cancel()
    return future


class Store:
    """One per server."""

    def __init__(self, directory: Path | None, *, max_writes: int = MAX_WRITES,
                 retry_seconds: float = RETRY_SECONDS) -> None:
        """Raises StateError where the directory cannot be used."""
        self.directory = directory
        self.failures = 0           # transactions that did not come about
        self.dropped = 0            # rows that found too many waiting
        self.problem = ""           # of the last attempt; "" where it was good
        self._max_writes = max_writes
        self._retry_seconds = retry_seconds
        self._database = None if directory is None else Database(directory)
        self._records: dict[str, Record] = {}
        self._unsaved: dict[str, list[Future[bool]]] = {}
        self._rows: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._attempts = 0
        self._busy = False
        self._retry_at = 0.0
        self._thread: threading.Thread | None = None
        if self._database is not None:
            try:
                self._records = _records(self._database)
            except BaseException:
                self._database.close()
                raise
            self._thread = threading.Thread(target=self._run, name="infer-state", daemon=True)
            self._thread.start()

    @property
    def connection(self) -> sqlite3.Connection | None:
        """For reading before the first `append`."""
        return None if self._database is None else self._database.connection

    @property
    def waiting(self) -> int:
        """Rows and records that are not written yet."""
        return len(self._rows) + len(self._unsaved)

    def records(self) -> dict[str, Record]:
        """The newest record of each model, written or not."""
        with self._changed:
            return dict(self._records)

    def save(self, model: str, record: Record | None) -> Future[bool]:
        """Replaces a model's record, or removes it (None). The future says, once it was tried, whether it is kept.

        Raises TypeError or ValueError for what is not plain.
        """
        kept = _future()
        if record is not None:
            record = json.loads(json.dumps(record, allow_nan=False))
        with self._changed:
            if record is None:
                self._records.pop(model, None)
            else:
                self._records[model] = record
            if self._thread is None:
                kept.set_result(True)
            else:
                self._unsaved.setdefault(model, []).append(kept)
                self._changed.notify_all()
        return kept

    def append(self, append: Append) -> Future[bool] | None:
        """Adds rows; None: too many wait already. The future says, once it was tried, whether they are kept."""
        kept = _future()
        with self._changed:
            if self._thread is None:
                append(None)()
                kept.set_result(True)
                return kept
            if len(self._rows) >= self._max_writes:
                self.dropped += 1
                return None
            self._rows.append(_Waiting(append, kept))
            self._changed.notify_all()
        return kept

    def flush(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Tries what waits now; whether nothing is left."""
        with self._changed:
            self._retry_at = 0.0
            # One that is under way does not have what came since it began.
            wanted = self._attempts + (2 if self._busy else 1)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self.waiting or self._attempts >= wanted, timeout)
            return not self.waiting

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Writes what waits and gives the directory back; whether nothing was lost."""
        if self._thread is None:
            return True
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        lost = self.waiting
        if lost:
            log.error("%d changes of the state were not written: %s", lost, self.problem or "the disk is too slow")
        return not lost

    # The writer's thread.

    def _run(self) -> None:
        assert self._database is not None
        while True:
            with self._changed:
                while not (self._closing or self._due()):
                    self._changed.wait(self._retry_at - time.monotonic() if self.waiting else None)
                if not self.waiting:
                    break
                rows = list(self._rows)
                saves = {name: list(futures) for name, futures in self._unsaved.items()}
                records = {name: self._records.get(name) for name in saves}
                self._busy = True
            written = self._attempt(records, rows)
            with self._changed:
                if written:
                    self._forget(saves, len(rows))
                else:
                    self._retry_at = time.monotonic() + self._retry_seconds
                self._busy = False
                self._attempts += 1
                ended = self._closing and not written
                self._changed.notify_all()
            for kept in (*(row.kept for row in rows), *(each for futures in saves.values() for each in futures)):
                if not kept.done():      # by an attempt before
                    kept.set_result(written)
            if ended:
                break
        self._database.close()

    def _forget(self, saves: Mapping[str, list[Future[bool]]], rows: int) -> None:
        """What was written waits no longer; what came meanwhile does."""
        for _ in range(rows):
            self._rows.popleft()
        for name, futures in saves.items():
            left = self._unsaved[name][len(futures):]
            if left:
                self._unsaved[name] = left
            else:
                del self._unsaved[name]

    def _due(self) -> bool:
        return bool(self.waiting) and time.monotonic() >= self._retry_at

    def _attempt(self, records: Mapping[str, Record | None], rows: list[_Waiting]) -> bool:
        """One transaction of all of it; whether it was committed."""
        assert self._database is not None
        connection = self._database.connection
        try:
            with transaction(connection):
                for name, record in records.items():
                    if record is None:
                        connection.execute("DELETE FROM models WHERE name = ?", (name,))
                    else:
                        connection.execute("INSERT OR REPLACE INTO models VALUES (?, ?)",
                                           (name, json.dumps(record, sort_keys=True)))
                committed = [row.append(connection) for row in rows]
        except sqlite3.Error as error:
            self.failures += 1
            if not self.problem:
                log.error("%s: a change cannot be written: %s; serving goes on, and it is tried again",
                          self._database.path, text_of(error), extra={"waiting": len(records) + len(rows)})
            self.problem = str(error)
            return False
        if self.problem:
            log.warning("%s: is written again", self._database.path)
        self.problem = ""
        for done in committed:
            done()
        return True


def _records(database: Database) -> dict[str, Record]:
    found: dict[str, Record] = {}
    with explained(database.path):
        rows = database.connection.execute("SELECT name, record FROM models").fetchall()
    for name, text in rows:
        try:
            record = json.loads(text)
        except (TypeError, ValueError):
            record = None
        if not isinstance(record, dict):
            raise StateError(f"{database.path}: the record of model {name!r} is damaged; remove it with: sqlite3 "
                             f"{database.path} \"DELETE FROM models WHERE name = '{name}'\"")
        found[name] = record
    return found
