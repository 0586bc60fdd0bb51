"""Connections that a process of their own holds open beside a load."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def held(module: str, host: str, port: int, *arguments: object, count: int) -> Iterator[None]:
    """Runs `module`, which prints `open COUNT`, waits for a line and prints `still COUNT`; other words are an error."""
    command = [sys.executable, "-m", module, host, str(port), *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        try:
            if holder.stdout.readline() != f"open {count}\n":
                raise RuntimeError(f"{count} connections could not be opened; is `ulimit -n` above {count}?")
            yield
            holder.stdin.write("\n")
            holder.stdin.flush()
            still = holder.stdout.readline()
            if still != f"still {count}\n":
                raise RuntimeError(f"of {count} connections of {module}: {still.strip()} open at the end")
        finally:
            holder.kill()
