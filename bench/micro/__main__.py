"""Runs the micro benchmarks: all of them, or those of the modules named on the command line."""

import sys
import threading
from importlib import import_module
from pathlib import Path

from bench.micro.timing import print_table
from infer._core import arena


def main(names: list[str]) -> None:
    arena.open(reserved_bytes=1 << 40, limit_bytes=1 << 30)
    known = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    unknown = set(names) - set(known)
    if unknown:
        sys.exit(f"no micro benchmark of {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    # glibc spares a process with one thread the atomic operations of its mutexes; a server has several threads.
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    print_table(row for name in names or known for row in import_module(f"bench.micro.bench_{name}").rows())


main(sys.argv[1:])
