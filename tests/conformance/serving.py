"""Servers that independent clients are tried with, over plaintext, TLS and mTLS."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.command import REPOSITORY, Process


@dataclass(frozen=True)
class Services:
    """A process of `tests.conformance.services`."""

    address: str
    # What a client is told: the CA, and for mTLS its certificate and key.
    tls: tuple[Path, ...] = ()


@contextmanager
def services(kind: str, folder: Path) -> Iterator[Services]:
    """Serves until the end of the `with`; its end is asserted to be clean."""
    with Process([sys.executable, "-m", "tests.conformance.services"], cwd=REPOSITORY) as process:
        yield Services(process.wait_for(r"^serving (\S+)$")[1])
        assert process.stop() == 0, process.output
