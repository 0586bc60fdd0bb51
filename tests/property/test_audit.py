"""Whatever is done to the rows of an audit log is found: an edit, a row that is gone, put in, moved, or cut off."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from infer.security import audit
from infer.security.audit import START, AuditLog, Entry, chained, verify
from infer.state.database import FILE, reading
from infer.state.store import Store

LONG = 30.0
TEXT = st.text(max_size=12)
ENTRIES = st.lists(st.builds(Entry, st.just(0), TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=8)
Rows = list[tuple[Entry, str]]


def chain(entries: list[Entry]) -> Rows:
    rows: Rows = []
    for number, entry in enumerate(entries, 1):
        row = entry._replace(sequence=number)
        rows.append((row, chained(rows[-1][1] if rows else START, row)))
    return rows


@dataclass
class Tampering:
    """What was done, and the first row that is no longer what it was."""

    rows: Rows
    at: int


@st.composite
def tampered(draw: st.DrawFn) -> tuple[Rows, Tampering]:
    rows = chain(draw(ENTRIES))
    at = draw(st.integers(0, len(rows) - 1))
    entry, found = rows[at]
    changed = list(rows)
    kind = draw(st.sampled_from(["edit", "hash", "remove", "insert", "move"]))
    if kind == "edit":
        field = draw(st.sampled_from(Entry._fields[1:]))
        text = draw(TEXT.filter(lambda text: text != getattr(entry, field)))
        changed[at] = (entry._replace(**{field: text}), found)
    elif kind == "hash":
        changed[at] = (entry, draw(st.sampled_from(["", "0" * 64, "f" * 64, found.upper() + "0"])))
    elif kind == "insert":
        new = draw(st.sampled_from(rows))
        changed.insert(at, new)
    elif kind == "move" and len(rows) > 1:
        other = draw(st.integers(0, len(rows) - 1).filter(lambda other: other != at))
        changed[at], changed[other] = changed[other], changed[at]
        at = min(at, other)
    else:
        del changed[at]
    if draw(st.booleans()):
        # As someone would who gives the rows numbers that look right.
        changed = [(row._replace(sequence=number), found) for number, (row, found) in enumerate(changed, 1)]
    return rows, Tampering(changed, at + 1)


@given(ENTRIES)
def test_a_log_as_it_was_written_is_whole(entries: list[Entry]) -> None:
    rows = chain(entries)
    assert list(verify(rows, {row.sequence: found for row, found in rows})) == []


@given(tampered())
def test_tampering_is_found_where_it_was_done(pair: tuple[Rows, Tampering]) -> None:
    rows, tampering = pair
    if tampering.rows == rows[:len(tampering.rows)] and len(tampering.rows) < len(rows):
        # Cut off at the end: without the ordinary log there is nothing that shows it.
        assert list(verify(tampering.rows, {})) == []
    else:
        broken = list(verify(tampering.rows, {}))
        assert broken
        assert min(each.sequence for each in broken) <= tampering.at + 1
    logged = {row.sequence: found for row, found in rows}
    assert list(verify(tampering.rows, logged))


@given(ENTRIES, st.data())
def test_a_log_that_is_cut_off_is_found_by_what_was_logged(entries: list[Entry], data: st.DataObject) -> None:
    rows = chain(entries)
    left = data.draw(st.integers(0, len(rows) - 1))
    assert list(verify(rows[:left], {}))[:1] == []
    broken = list(verify(rows[:left], {row.sequence: found for row, found in rows}))
    assert [each.sequence for each in broken] == list(range(left + 1, len(rows) + 1))
    # One line of it is enough.
    assert list(verify(rows[:left], {len(rows): rows[-1][1]}))


@given(ENTRIES, st.data())
def test_a_chain_that_was_computed_anew_is_found_by_what_was_logged(entries: list[Entry], data: st.DataObject) -> None:
    rows = chain(entries)
    at = data.draw(st.integers(0, len(rows) - 1))
    edited = [entry for entry, _ in rows]
    edited[at] = edited[at]._replace(who=edited[at].who + "x")
    forged = chain(edited)
    assert list(verify(forged, {})) == []
    assert [each.sequence for each in verify(forged, {row.sequence: found for row, found in rows})] == list(
        range(at + 1, len(rows) + 1))
    assert list(verify(forged, {len(rows): rows[-1][1]}))


@given(st.builds(Entry, st.integers(1, 9), *[TEXT] * 7), st.builds(Entry, st.integers(1, 9), *[TEXT] * 7))
def test_canonical_bytes_are_of_one_row_alone(one: Entry, other: Entry) -> None:
    assert (one.canonical() == other.canonical()) == (one == other)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), min_size=1, max_size=5))
def test_what_is_written_to_the_file_is_whole(records: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as directory:
        store = Store(Path(directory))
        log = AuditLog(store)
        for who, detail in records:
            log.record("load", outcome="done", who=who, detail=detail)
        assert store.close(LONG)
        connection = reading(Path(directory))
        rows = list(audit.read(connection))
        connection.close()
        assert list(verify(rows, {})) == []
        assert len(rows) == len(records)
        # Bytes that are no text, a number where text was: found, not fatal.
        for value in (b"\xff\xfe", b"", 3.5):
            with sqlite3.connect(Path(directory) / FILE) as editor:
                editor.execute("DROP TRIGGER IF EXISTS audit_is_not_edited")
                editor.execute("UPDATE audit SET detail = ? WHERE sequence = 1", (value,))
            editor.close()
            connection = reading(Path(directory))
            assert [each.sequence for each in verify(audit.read(connection), {})][:1] == [1]
            connection.close()
