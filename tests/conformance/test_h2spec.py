"""h2spec, all of it: HTTP/2 and HPACK as the RFCs have them, against a page served by the native transport."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infer._core._testing_page import PATH
from tests.conformance.serving import PLAINTEXT, security, services
from tests.conformance.tools import go_tool
from tests.support.command import environment

pytestmark = pytest.mark.conformance

# The newest that is to be had, and how many cases each has.
VERSIONS = {"af83a65f0b6273ef38bf778d400d98892e7653d8": 147, "v2.2.1+incompatible": 146}
SECONDS = 300


@pytest.fixture(scope="module")
def h2spec() -> tuple[Path, int]:
    """The program and its number of cases."""
    return next(installed())


def installed() -> Iterator[tuple[Path, int]]:
    *newer, last = VERSIONS
    for version in newer:
        try:
            yield go_tool("h2spec", "github.com/summerwind/h2spec/cmd/h2spec", version), VERSIONS[version]
        except pytest.skip.Exception as refused:
            print(refused)
    yield go_tool("h2spec", "github.com/summerwind/h2spec/cmd/h2spec", last), VERSIONS[last]


def test_every_case(h2spec: tuple[Path, int], tmp_path: Path) -> None:
    program, cases = h2spec
    with services(security(PLAINTEXT, tmp_path), "--page") as address:
        host, port = address.rsplit(":", 1)
        # -S: what the RFCs only recommend, too.
        done = subprocess.run([program, "-h", host, "-p", port, "-P", PATH, "-S"], env=environment(),
                              capture_output=True, text=True, timeout=SECONDS, check=False)
    counts = re.search(r"^(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed$", done.stdout, re.M)
    assert counts, done.stdout + done.stderr
    assert tuple(map(int, counts.groups())) == (cases, cases, 0, 0), done.stdout[done.stdout.find("Failures:"):]
    assert done.returncode == 0
