"""`infer` as a subprocess: its output line by line as it comes, its addresses, its end.

Nothing here sleeps: a wait ends at a line, at the end of the process, or at a bound.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples" / "models"
# Long enough for a build under sanitizers on a busy machine; no test waits for it where all is well.
SECONDS = 90.0


def environment(**variables: str) -> dict[str, str]:
    """This process's, without settings of `infer`, with import paths that hold in any working directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INFER_")}
    if "PYTHONPATH" in kept:
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(part).resolve()) for part in kept["PYTHONPATH"].split(os.pathsep))
    return kept | {"NO_COLOR": "1"} | variables


def command_line(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "infer", *map(str, arguments)]


def search_path(folder: Path, *more: Path) -> str:
    """A PATH with `infer`, which is this interpreter's, and the commands in `more`; the file goes to `folder`."""
    program = folder / "bin" / "infer"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command_line())} "$@"\n')
    program.chmod(0o755)
    own = Path(sys.executable).parent
    return os.pathsep.join([str(program.parent), *map(str, more), str(own), os.environ["PATH"]])


def run(*arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None,
        seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(command_line(*arguments), cwd=cwd, env=environment(**env or {}), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=seconds, check=False)


class Process:
    """Any command while it runs; killed at the end of the `with` if it still does."""

    def __init__(self, arguments: list[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(arguments, cwd=cwd, env=environment(**env or {}), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._changed = threading.Condition()
        self._open = 2
        self._readers = []
        for stream, lines in ((self.process.stdout, self.stdout), (self.process.stderr, self.stderr)):
            assert stream is not None
            self._readers.append(threading.Thread(target=self._read, args=(stream, lines), daemon=True))
            self._readers[-1].start()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        for reader in self._readers:
            reader.join(SECONDS)

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        stream.close()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def wait_for(self, pattern: str, seconds: float = SECONDS) -> re.Match[str]:
        """The first line of either stream that holds `pattern`."""
        until = time.monotonic() + seconds
        with self._changed:
            while True:
                for line in (*self.stdout, *self.stderr):
                    match = re.search(pattern, line)
                    if match:
                        return match
                left = until - time.monotonic()
                assert self._open, f"the process ended without {pattern!r}:\n{self.output}"
                assert left > 0, f"no line with {pattern!r} within {seconds} s:\n{self.output}"
                self._changed.wait(left)

    @property
    def output(self) -> str:
        return "\n".join([*self.stdout, *self.stderr])

    def wait(self, seconds: float = SECONDS) -> int:
        """The exit status, when all of its output is read."""
        status = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signals it; the exit status."""
        self.process.send_signal(number)
        return self.wait()


class Serving(Process):
    """`infer serve`, on free ports of the loopback unless told otherwise, from the moment that it serves. `program`:
    what the interpreter is given to be `infer`."""

    def __init__(self, *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None,
                 defaults: bool = True, program: Sequence[object] = ("-m", "infer")) -> None:
        own = ("--host", "127.0.0.1", "--port", "0", "--http-port", "0", "--drain-delay", "0") if defaults else ()
        super().__init__([sys.executable, *map(str, (*program, "serve", *arguments, *own))], cwd, env)

    def __enter__(self) -> Serving:
        try:
            # The start is printed at once, up to the lines to paste; the log line comes after it.
            served = self.wait_for(r'"msg": "serving"| serving grpc=').string
            self.grpc = [each.split()[0] for each in self.wait_for(r"^gRPC +(.*)$")[1].split(", ")]
            self.http = self.wait_for(r"^HTTP +(\S+)")[1]
            if not re.search(r'models(": |=)\[\]', served):
                self.wait_for(r"^  ghz ")
        except BaseException:
            super().__exit__(None, None, None)
            raise
        return self

    @property
    def address(self) -> str:
        return self.grpc[0]

    @property
    def start(self) -> str:
        """What it printed."""
        return "\n".join(self.stdout)
