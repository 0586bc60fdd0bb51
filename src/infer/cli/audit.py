"""`infer audit`: the audit log of a server's state directory, beside the server or without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from infer.cli.tables import columns

if TYPE_CHECKING:
    import sqlite3

HEAD = ("ROW", "TIME", "EVENT", "MODEL", "VERSION", "OUTCOME", "WHO", "DETAIL")
BROKEN = 1


@click.command("audit")
@click.option("--state-dir", metavar="PATH", type=click.Path(path_type=Path),
              help="The server's --state-dir [INFER_STATE_DIR, else that of infer.toml].")
@click.option("--verify", "verifying", is_flag=True, help="Say whether a row was changed, and which; print no rows.")
@click.option("--log", "log_file", metavar="FILE", type=click.Path(path_type=Path),
              help="The server's ordinary log, - for stdin: its hashes have to be those of the rows; implies --verify.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a row, or one for --verify.")
def command(*, state_dir: Path | None, verifying: bool, log_file: Path | None, as_json: bool) -> None:
    """Print the audit log: every load, unload, label move and change of settings, what came of it, and who asked.

    Rows are chained by hashes, so that one which is changed, removed or put in shows (--verify). That the end was cut
    off, or all of it written anew, shows against the hashes in the server's log (--log). Exit status 1 where a row is
    not what was written.
    """
    from infer.errors import StateError
    from infer.state.database import explained, reading

    try:
        directory = state_dir or _configured()
        connection = reading(directory)
        with explained(directory):
            if verifying or log_file is not None:
                raise SystemExit(_verify(connection, log_file, as_json))
            _print(connection, as_json)
    except StateError as error:
        click.echo(f"infer audit: {error.message}", err=True)
        raise SystemExit(BROKEN) from None


def _configured() -> Path:
    import os

    from infer.cli.serve import settings_file
    from infer.config import read_settings

    settings, _, _ = read_settings({}, os.environ, settings_file(None))
    if settings.state_dir is None:
        raise click.UsageError("which log? give the server's --state-dir")
    return settings.state_dir


def _print(connection: sqlite3.Connection, as_json: bool) -> None:
    from infer.security.audit import read

    rows = read(connection)
    if as_json:
        for entry, found in rows:
            click.echo(json.dumps({**entry._asdict(), "hash": found}))
        return
    for line in columns(HEAD, [[_shown(field) for field in entry] for entry, _ in rows]):
        click.echo(line)


def _shown(field: object) -> str:
    # Rows are printed that another program wrote, or bytes where text was.
    return "".join(each if each.isprintable() else "?" for each in str(field)) or "-"


def _verify(connection: sqlite3.Connection, log_file: Path | None, as_json: bool) -> int:
    """Says what is wrong; the exit status."""
    from infer.security.audit import START, logged_hashes, read, verify

    logged: dict[int, str] = {}
    twice: list[int] = []
    if log_file is not None:
        try:
            with click.open_file(str(log_file), encoding="utf-8", errors="replace") as lines:
                logged, twice = logged_hashes(lines)
        except OSError as error:
            raise click.UsageError(f"{log_file}: cannot be read: {error.strerror}") from None
        if not logged:
            raise click.UsageError(f"{log_file}: holds no line of the audit log; give the log of the server that uses "
                                   "this directory")
    rows = list(read(connection))
    broken = list(verify(rows, logged))
    last = rows[-1][1] if rows else START
    if as_json:
        click.echo(json.dumps({
            "rows": len(rows), "hash": last, "logged_rows": len(logged), "logged_twice": twice,
            "broken": [{"row": each.sequence, "reason": each.reason} for each in broken]}))
    else:
        for each in broken:
            click.echo(f"row {each.sequence}: {each.reason}")
        if twice:
            more = f" and {len(twice) - 1} more" if twice[1:] else ""
            click.echo(f"the log has two hashes for row {twice[0]}{more}: a state directory was begun anew; those "
                       "written last were compared")
        compared = f", {len(logged)} of them compared with the log" if log_file is not None else ""
        verdict = "NOT as they were written" if broken else "as they were written"
        click.echo(f"{len(rows)} rows{compared}: {verdict}; the last hash is {last}")
    return BROKEN if broken else 0
