"""`infer` that ends with SIGKILL at a point of its own code: python -P kill_point.py ARMED NTH POINT... -- ARGUMENTS

A point is `module:name` with `@before` or `@after`, or `module:Class.*` for every method of a class; the process ends
at the NTH call of any of them since the file ARMED was there, and says at which on stderr. A name that a module has
imported is a point of that module.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any


class Killer:
    def __init__(self, armed: Path, nth: int) -> None:
        self._armed, self._left = armed, nth
        self._counting = threading.Lock()

    def reached(self, point: str) -> None:
        """Any thread."""
        with self._counting:
            if not self._armed.exists():
                return
            self._left -= 1
            if self._left == 0:
                os.write(sys.stderr.fileno(), f"killed at {point}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)

    def set_at(self, point: str) -> None:
        place, _, when = point.partition("@")
        module, _, name = place.partition(":")
        holder: Any = importlib.import_module(module)
        *path, last = name.split(".")
        for part in path:
            holder = getattr(holder, part)
        if last != "*":
            setattr(holder, last, self._wrapped(getattr(holder, last), point, when))
            return
        for method, function in list(vars(holder).items()):
            if isinstance(function, FunctionType) and not method.startswith("__"):
                setattr(holder, method, self._wrapped(function, f"{module}:{function.__qualname__}", "before"))

    def _wrapped(self, function: Callable[..., Any], point: str, when: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def called(*arguments: Any, **named: Any) -> Any:
            if when == "before":
                self.reached(point)
            result = function(*arguments, **named)
            if when == "after":
                self.reached(point)
            return result

        return called


def main() -> None:
    armed, nth, *rest = sys.argv[1:]
    points, arguments = rest[:rest.index("--")], rest[rest.index("--") + 1:]
    killer = Killer(Path(armed), int(nth))
    for point in points:
        killer.set_at(point)
    sys.argv = ["infer", *arguments]
    from infer.cli import main as infer

    infer()


if __name__ == "__main__":
    main()
