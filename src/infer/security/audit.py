"""The audit log: who changed what of the server and its models, when, and what came of it.

Rows are only ever added. The hash of a row is SHA-256 over the hash before it (zeros before the first) and the row's
canonical bytes, so that a row which is edited, removed, put in or moved breaks the chain from there on. The running
hash also goes to the ordinary log, once its row is committed: a chain that was computed anew, or cut at its end, does
not agree with what was logged. `record` may be called from any thread and never waits.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import NamedTuple

from infer.state.store import Store

# Its lines are written whatever the level of the rest is.
log = logging.getLogger("infer.audit")
log.setLevel(logging.INFO)

START = "0" * 64
TEXT_CHARACTERS = 4096
GAP = "gap"
_COLUMNS = "sequence, time, event, model, version, outcome, who, detail, hash"
_LOGGED = re.compile(r"audit_row=([0-9]{1,18}) audit_hash=([0-9a-f]{64})\s*$")


class Entry(NamedTuple):
    """A row. `time` is UTC, ISO 8601."""

    sequence: int
    time: str
    event: str
    model: str
    version: str
    outcome: str
    who: str
    detail: str

    def canonical(self) -> bytes:
        """ASCII JSON: no two rows have the same."""
        return json.dumps(self, separators=(",", ":")).encode("ascii")


class Broken(NamedTuple):
    """A row that is not what was written."""

    sequence: int
    reason: str


def chained(previous: str, entry: Entry) -> str:
    """The hash of a row that follows one with the hash `previous`."""
    return hashlib.sha256(bytes.fromhex(previous) + entry.canonical()).hexdigest()


def verify(rows: Iterable[tuple[Entry, str]], logged: Mapping[int, str]) -> Iterator[Broken]:
    """What is wrong with a log's rows, in their order, and with what the ordinary log says of them: hash by row."""
    previous, expected = START, 1
    left = dict(logged)
    for entry, found in rows:
        sequence = entry.sequence
        if sequence != expected:
            yield Broken(sequence, f"row {expected} was expected here" if sequence < expected else
                         f"row {expected} is missing" if sequence == expected + 1 else
                         f"rows {expected} to {sequence - 1} are missing")
        if not (re.fullmatch("[0-9a-f]{64}", found) and all(isinstance(field, str) for field in entry[1:])):
            yield Broken(sequence, "is not text")
            previous = hashlib.sha256(repr(found).encode()).hexdigest()
        else:
            if chained(previous, entry) != found:
                yield Broken(sequence, "its hash does not follow from the row and the hash before it: this row or "
                                       "the one before it was changed, or one between them is gone")
            previous = found
        written = left.pop(sequence, found)
        if written != found:
            yield Broken(sequence, "the log file has another hash for it: this row or one before it was changed")
        expected = sequence + 1
    for sequence in sorted(left):
        yield Broken(sequence, "is in the log file and missing here")


def logged_hashes(lines: Iterable[str]) -> tuple[dict[int, str], list[int]]:
    """Hash by row from lines of the ordinary log, JSON or text; and the rows that it has with two hashes.

    Of those the last counts: a directory that was begun anew counts from one again.
    """
    found: dict[int, str] = {}
    twice = []
    for line in lines:
        pair = _logged_hash(line)
        if pair is None:
            continue
        if found.get(pair[0], pair[1]) != pair[1]:
            twice.append(pair[0])
        found[pair[0]] = pair[1]
    return found, sorted(set(twice))


def _logged_hash(line: str) -> tuple[int, str] | None:
    # What a container's runtime writes before each line is left out.
    start = line.find("{")
    if start >= 0 and '"audit_row"' in line:
        try:
            fields = json.loads(line[start:])
            return int(fields["audit_row"]), str(fields["audit_hash"])
        except (ValueError, KeyError, TypeError):
            return None
    match = _LOGGED.search(line)
    return (int(match[1]), match[2]) if match else None


def read(connection: sqlite3.Connection) -> Iterator[tuple[Entry, str]]:
    """Rows with their hashes, oldest first."""
    for row in connection.execute(f"SELECT {_COLUMNS} FROM audit ORDER BY sequence"):
        yield Entry(*row[:-1]), row[-1]


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class AuditLog:
    """Adds rows to a store's log. Without a directory they go to the ordinary log alone, and there is no chain."""

    def __init__(self, store: Store, now: Callable[[], datetime.datetime] = utc_now) -> None:
        self._store = store
        self._now = now
        self._lost = 0
        self._counting = threading.Lock()
        if store.connection is not None:
            sequence, last = _last(store.connection)
            if sequence:
                log.info("audit log: goes on where it ended", extra={"audit_row": sequence, "audit_hash": last})

    def record(self, event: str, *, outcome: str, who: str, model: str = "", version: str = "",
               detail: str = "") -> Future[bool] | None:
        """Adds a row. None: too many wait to be written, and it is lost; a row of its own will say how many were."""
        fields = (_plain(each) for each in (event, model, version, outcome, who, detail))
        entry = Entry(0, self._now().astimezone(datetime.UTC).isoformat(timespec="microseconds"), *fields)
        with self._counting:
            entries = [entry]
            if self._lost:
                entries.insert(0, entry._replace(event=GAP, model="", version="", outcome="lost", who="server",
                                                 detail=f"{self._lost} rows before this one were not kept"))
            kept = self._store.append(lambda connection: _append(connection, entries))
            self._lost = self._lost + 1 if kept is None else 0
        if kept is None:
            log.error("%s; it is not kept: too many wait to be written", _sentence(entry), extra=_extra(entry))
        return kept


def _append(connection: sqlite3.Connection | None, entries: Iterable[Entry]) -> Callable[[], None]:
    """Adds rows within a transaction; what it returns logs them."""
    lines = []
    for entry in entries:
        if connection is None:
            lines.append((_sentence(entry), _extra(entry)))
            continue
        sequence, previous = _last(connection)
        row = entry._replace(sequence=sequence + 1)
        found = chained(previous, row)
        connection.execute(f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, found))
        lines.append((_sentence(row), _extra(row) | {"audit_row": row.sequence, "audit_hash": found}))

    def done() -> None:
        for text, extra in lines:
            log.info("%s", text, extra=extra)

    return done


def _last(connection: sqlite3.Connection) -> tuple[int, str]:
    """Number and hash of the last row."""
    row = connection.execute("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").fetchone()
    return (0, START) if row is None else row


def _plain(text: str) -> str:
    """Without what a terminal or a line of a log would take for more than text, and not without end."""
    text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return text if len(text) <= TEXT_CHARACTERS else text[:TEXT_CHARACTERS - 1] + "\u2026"


def _sentence(entry: Entry) -> str:
    of = f" of model {entry.model!r}" if entry.model else ""
    version = f" version {entry.version}" if entry.version else ""
    return f"audit: {entry.event}{of}{version}: {entry.outcome}"


def _extra(entry: Entry) -> dict[str, object]:
    fields = {"model": entry.model, "version": entry.version, "event": entry.event, "outcome": entry.outcome,
              "who": entry.who, "detail": entry.detail}
    return {name: value for name, value in fields.items() if value}
