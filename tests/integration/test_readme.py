"""The commands of README.md, run as a reader would.

Two comments in the file say which: `<!-- run -->` above a block of shell runs it to its end; `<!-- serve: COMMAND -->`
starts a server that the blocks after it talk to, and that is told to drain after the last one.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.command import REPOSITORY, SECONDS, Process, environment, search_path

README = REPOSITORY / "README.md"
PORTS = (8001, 8002, 8003)
READY = "http://127.0.0.1:8002/v2/health/ready"

MARKED = re.compile(r"^<!-- (?:serve: (?P<serve>.+?)|(?P<run>run)) -->$|^```(?P<language>\w*)\n(?P<block>.*?)^```$",
                    re.M | re.S)


class Step(NamedTuple):
    """What to run, and whether it goes on in the background."""

    line: int
    script: str
    serves: bool


def steps_of(text: str) -> list[Step]:
    """The steps in the order of the text. Raises ValueError for a mark without its block of shell."""
    steps: list[Step] = []
    waiting = False
    for match in MARKED.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["block"] is None:
            if waiting:
                raise ValueError(f"line {line}: a mark follows `run`, expected a block of shell")
            waiting = match["run"] is not None
            if match["serve"] is not None:
                steps.append(Step(line, match["serve"], True))
        elif waiting:
            if match["language"] != "sh":
                raise ValueError(f"line {line}: the block after `run` is {match['language'] or 'plain'}, expected sh")
            steps.append(Step(line, match["block"], False))
            waiting = False
    if waiting:
        raise ValueError("the last `run` has no block after it")
    return steps


def test_steps_are_found() -> None:
    fence = "`" * 3
    block = f"{fence}sh\nfirst\nsecond\n{fence}\n"
    mark = "<!-- run -->\n"
    text = f"# Title\n\n{block}\n<!-- serve: infer serve m --port 1 -->\n{mark}{block}\n{block}{mark}\n{block}"
    assert steps_of(text) == [Step(8, "infer serve m --port 1", True), Step(10, "first\nsecond\n", False),
                              Step(21, "first\nsecond\n", False)]
    for wrong in (mark, f"{mark}{mark}{block}", f"{mark}{fence}python\n1\n{fence}\n"):
        with pytest.raises(ValueError, match="run"):
            steps_of(wrong)


def test_the_commands_work(tmp_path: Path) -> None:
    for command in ("bash", "curl"):
        if shutil.which(command) is None:
            pytest.skip(f"README.md uses {command}, which is not installed")
    for port in PORTS:
        try:
            socket.create_server(("0.0.0.0", port)).close()
        except OSError as error:
            pytest.skip(f"port {port}, which README.md uses, cannot be had: {error.strerror}")
    steps = steps_of(README.read_text())
    assert any(step.serves for step in steps)
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    variables = {"PATH": search_path(tmp_path)}
    with ExitStack() as servers:
        started: list[Process] = []
        for step in steps:
            place = f"README.md:{step.line}"
            if step.serves:
                shell = ["bash", "-c", f"exec {step.script}"]
                started.append(servers.enter_context(Process(shell, cwd=tmp_path, env=variables)))
                started[-1].wait_for(r'"msg": "serving"')
                with urllib.request.urlopen(READY, timeout=SECONDS) as reply:
                    assert reply.status == 200, place
            else:
                done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", step.script], cwd=tmp_path,
                                      env=environment(**variables), stdin=subprocess.DEVNULL, capture_output=True,
                                      text=True, timeout=SECONDS, check=False)
                assert done.returncode == 0, f"{place}:\n{step.script}\n{done.stdout}\n{done.stderr}"
        for server in started:
            assert server.stop() == 0, server.output
