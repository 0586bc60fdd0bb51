"""`make instructions`: instructions of one operation, which no other load of the machine can change.

valgrind counts those of a process that makes the operation so often, and of one that makes it twice as often: the
difference is what the operation takes, its loop included.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.compare import commit, write_result
from bench.targets import ROOT
from infer._core import _testing_lru
from infer._core._testing_quotas import Bucket

ROUNDS = 100_000
OPERATIONS: dict[str, Callable[[int], int]] = {
    "lru get, one of 10000 at random": partial(_testing_lru.lru_rounds, entries=10_000, puts=False),
    "lru put that evicts, 10000 entries": partial(_testing_lru.lru_rounds, entries=10_000, puts=True),
    "token bucket take, given": partial(Bucket(10**9, 1, 10**6, 0).takes, tokens=1, step_ns=1),
    "hash128, 64 bytes": partial(_testing_lru.hash_rounds, size_bytes=64),
    "hash128, 1024 bytes": partial(_testing_lru.hash_rounds, size_bytes=1024),
}
_COLLECTED = re.compile(r"Collected : ([0-9]+)")


def instructions(operation: str, rounds: int) -> int:
    """Of a whole process that makes it so often."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-m",
               "bench.micro.instructions", "--run", operation, "--rounds", str(rounds)]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stderr
    found = _COLLECTED.search(said)
    if found is None:
        raise RuntimeError(f"valgrind counted nothing: {said[-500:]}")
    return int(found[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--run", choices=[*OPERATIONS], help="make this operation and nothing else")
    parser.add_argument("--output", type=Path, help="default: bench/results/<commit>-instructions.json")
    arguments = parser.parse_args()
    if arguments.run:
        OPERATIONS[arguments.run](arguments.rounds)
        return 0
    if shutil.which("valgrind") is None:
        parser.error("missing: valgrind; on Debian or Ubuntu: apt-get install valgrind")
    found = {}
    for operation in OPERATIONS:
        once, twice = (instructions(operation, arguments.rounds * times) for times in (1, 2))
        found[operation] = (twice - once) / arguments.rounds
        print(f"{operation:40} {found[operation]:8.1f} instructions", flush=True)
    write_result({"commit": commit(), "rounds": arguments.rounds, "instructions": found}, arguments.output,
                 "-instructions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
