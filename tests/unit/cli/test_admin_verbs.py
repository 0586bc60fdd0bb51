"""What is given to verbs of the port of administration, and cannot be sent."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from infer.cli import main

NOT_UTF_8 = "\udcff"


@pytest.mark.parametrize("arguments", [
    ("split", "set", NOT_UTF_8, "--to", "1=1"), ("split", "set", "m", "--to", "1=1", "--rule", f"{NOT_UTF_8}=1"),
    ("split", "set", "m", "--to", "1=1", "--reason", NOT_UTF_8),
    ("capture", "start", "m", "--name", "a", "--per-second", "9" * 20), ("shadow", "report", NOT_UTF_8)])
def test_what_cannot_be_sent_is_an_error_in_its_use(arguments: tuple[str, ...]) -> None:
    # Nobody is asked.
    result = CliRunner().invoke(main, [*arguments, "--address", "localhost:1"])
    assert (result.exit_code, "what was given cannot be sent: " in result.output) == (2, True), result.output
