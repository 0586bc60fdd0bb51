"""A version that is copied in slowly, its files in any order, with pauses of any length and looks in between.

Whatever the order, it is called whole only once its model's file and all of that model's data are there to the last
byte; the version beside it stays whole throughout, also to a source that starts at any point, as after a kill -9, and
for as long as one cares to wait, as after the copy was killed.
"""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from infer.models.settle import SETTLE_NS
from infer.models.snapshot import Snapshot
from infer.models.source import PATIENCE_NS, Source
from tests.support import models
from tests.support.models import write_external_data_model, write_version

with tempfile.TemporaryDirectory() as written:
    write_external_data_model(Path(written, "model.onnx"))
    CONTENTS = {"model.onnx": Path(written, "model.onnx").read_bytes(),
                "model.onnx.data": Path(written, "model.onnx.data").read_bytes(),
                "labels.txt": b"a\nb\n"}

PIECES = 3
PAUSE_NS = st.sampled_from([0, 1, SETTLE_NS // 2, SETTLE_NS, 3 * SETTLE_NS, 2 * PATIENCE_NS])
# Of each file its pieces come in order; whose is next, and the looks before it, by the pauses that lead to them.
WRITES = st.permutations([name for name in CONTENTS for _ in range(PIECES)])
LOOKS = st.lists(st.lists(PAUSE_NS, max_size=2), min_size=PIECES * len(CONTENTS), max_size=PIECES * len(CONTENTS))


def whole(snapshot: Snapshot) -> list[int]:
    return sorted(number for number, files in snapshot.models["m"].versions.items() if files.whole)


@settings(deadline=None, max_examples=60)
@given(WRITES, LOOKS, st.integers(0, PIECES * len(CONTENTS)))
def test_a_slow_copy_is_never_whole_early_and_takes_nothing_away(
        writes: list[str], looks: list[list[int]], killed_after: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        write_version(root, "m", 1, models.dense())
        source, now = Source([root], wall_ns=lambda: 1 << 62), 0
        assert whole(source.observe(now)) == [1]
        (root / "m/2").mkdir()
        done = dict.fromkeys(CONTENTS, 0)

        def complete() -> bool:
            return done["model.onnx"] == done["model.onnx.data"] == PIECES

        for name, pauses in zip(writes[:killed_after], looks, strict=False):
            for pause in pauses:
                now += pause
                seen = whole(source.observe(now))
                assert seen == [1] or (seen == [1, 2] and complete()), (seen, done)
            content = CONTENTS[name]
            with (root / "m/2" / name).open("ab") as file:
                file.write(content[len(content) * done[name] // PIECES:len(content) * (done[name] + 1) // PIECES])
            done[name] += 1

        expected = [1, 2] if complete() else [1]
        source.observe(now + 1)
        assert whole(source.observe(now + SETTLE_NS + 1)) == expected
        assert whole(source.observe(now + 100 * PATIENCE_NS)) == expected
        assert whole(Source([root], wall_ns=lambda: 1 << 62).observe(0)) == expected
