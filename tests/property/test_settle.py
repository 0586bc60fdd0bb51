"""Copies under way, in any order, with any pauses: `follow` never calls one whole that is not.

A plain model of a directory: a writer creates and extends its files and pauses in between, at any point looks
happen. Whole may only be what has rested for the settle time, or what has a marker newer than all of it.
"""

from hypothesis import given
from hypothesis import strategies as st

from infer.models.settle import SETTLE_NS, Look, Stamp, Watch, fingerprint, follow

FILES = ("model.onnx", "weights.bin", "labels.txt", "_READY")
PAUSE = st.integers(1, SETTLE_NS // 2)
# The writes of one copy: which file grows, and the pauses, each with a look at its end, before it does.
COPIES = st.lists(st.tuples(st.sampled_from(FILES), st.lists(PAUSE, max_size=2)), min_size=1, max_size=8).filter(
    lambda writes: any(name != "_READY" for name, _ in writes))


class Directory:
    """Files, and a clock of the file system's own that ticks at each write."""

    def __init__(self, offset_ns: int) -> None:
        self.offset_ns = offset_ns
        self.stamps: dict[str, Stamp] = {}

    def write(self, name: str, now_ns: int) -> None:
        size = self.stamps[name].size_bytes if name in self.stamps else 0
        self.stamps[name] = Stamp(size + 1, now_ns + self.offset_ns, now_ns + self.offset_ns)

    def look(self, now_ns: int) -> Look:
        files = {name: stamp for name, stamp in self.stamps.items() if name != "_READY"}
        return Look(now_ns, files, self.stamps.get("_READY"), (0, 1))


@given(COPIES, st.lists(st.integers(1, SETTLE_NS), min_size=1, max_size=4), st.integers(-SETTLE_NS, SETTLE_NS))
def test_a_copy_is_never_whole_early_but_by_a_marker_newer_than_all_that_is_there(
        writes: list[tuple[str, list[int]]], steps: list[int], offset_ns: int) -> None:
    directory, now, watch = Directory(offset_ns), 0, None
    for name, pauses in writes:
        for pause in pauses:
            now += pause
            watch = follow(watch, directory.look(now))
            assert not watch.whole or marker_is_last(directory) or rested(directory, now)
        now += 1
        directory.write(name, now)
    for step in steps:
        now += step
        watch = follow(watch, directory.look(now))
        assert watch.whole == (marker_is_last(directory) or now - watch.since_ns >= SETTLE_NS)
        assert not watch.whole or marker_is_last(directory) or rested(directory, now)
    assert follow(watch, directory.look(now + SETTLE_NS)).whole


def rested(directory: Directory, now: int) -> bool:
    return all(now - stamp.ctime_ns + directory.offset_ns >= SETTLE_NS
               for name, stamp in directory.stamps.items() if name != "_READY")


def marker_is_last(directory: Directory) -> bool:
    marker = directory.stamps.get("_READY")
    files = [stamp for name, stamp in directory.stamps.items() if name != "_READY"]
    return marker is not None and bool(files) and all(marker.ctime_ns > stamp.ctime_ns for stamp in files)


@given(st.lists(st.tuples(st.sampled_from(FILES[:3]), st.integers(1, 3 * SETTLE_NS)), min_size=1, max_size=6),
       st.lists(st.integers(1, SETTLE_NS), min_size=1, max_size=6))
def test_whole_means_that_the_files_have_rested(writes: list[tuple[str, int]], steps: list[int]) -> None:
    """Whatever the pauses: a whole version's files were the same over a settle time and two looks."""
    directory = Directory(0)
    seen: list[tuple[int, str]] = []
    watch: Watch | None = None
    now, pending = 0, list(writes)
    for step in steps * (1 + len(writes)):
        now += step
        if pending and pending[0][1] <= step:
            directory.write(pending.pop(0)[0], now - 1)
        look = directory.look(now)
        seen.append((now, fingerprint(look.files)))
        watch = follow(watch, look)
        if watch.whole:
            same = [at for at, name in seen if name == seen[-1][1]]
            assert len(same) >= 2
            assert now - same[0] >= SETTLE_NS
            assert [name for at, name in seen if at >= same[0]] == [seen[-1][1]] * len(same)
