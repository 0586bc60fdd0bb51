"""The kept corpus: per target a text file, an input in base64 on each line, shortest first.

`python -m tests.fuzz.corpus TARGET FOLDER` replaces a target's file with what FOLDER holds, MOST inputs at most:
`make fuzz-corpus` calls it with what libFuzzer has merged.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

KEPT = Path(__file__).parent / "corpus"
MOST = 400                           # of a target; the suite runs each of them twice
LONGEST_BYTES = 1024


def kept(target: str) -> list[bytes]:
    return [base64.b64decode(line) for line in (KEPT / f"{target}.txt").read_text().split()]


def main() -> None:
    target, folder = sys.argv[1:]
    inputs = {path.read_bytes() for path in Path(folder).iterdir()}
    chosen = sorted((data for data in inputs if len(data) <= LONGEST_BYTES), key=lambda data: (len(data), data))[:MOST]
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{target}.txt").write_text("".join(base64.b64encode(data).decode() + "\n" for data in chosen))
    print(f"{target}: {len(chosen)} of {len(inputs)} inputs kept")


if __name__ == "__main__":
    main()
