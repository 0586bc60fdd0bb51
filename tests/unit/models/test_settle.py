"""Each of the three ways to be whole, and what takes each away."""

from infer.models.settle import SETTLE_NS, Look, Stamp, fingerprint, follow, marked, whole_at_start

OLD = Stamp(10, 100, 100)


def look(at_ns: int, files: dict[str, Stamp], marker: Stamp | None = None, inode: int = 1) -> Look:
    return Look(at_ns, files, marker, (0, inode))


def test_one_look_is_not_enough() -> None:
    assert not follow(None, look(0, {"model.onnx": OLD})).whole


def test_whole_after_the_settle_time_and_not_before() -> None:
    first = follow(None, look(5, {"model.onnx": OLD}))
    second = follow(first, look(5 + SETTLE_NS - 1, {"model.onnx": OLD}))
    assert not second.whole
    assert follow(second, look(5 + SETTLE_NS, {"model.onnx": OLD})).whole
    assert follow(first, look(5 + SETTLE_NS, {"model.onnx": OLD})).whole


def test_one_look_twice_is_one_look_even_without_a_settle_time() -> None:
    first = follow(None, look(0, {"model.onnx": OLD}), settle_ns=0)
    assert not follow(first, look(0, {"model.onnx": OLD}), settle_ns=0).whole
    assert follow(first, look(1, {"model.onnx": OLD}), settle_ns=0).whole


def test_any_change_begins_anew() -> None:
    first = follow(None, look(0, {"model.onnx": OLD}))
    changes = [{"model.onnx": OLD._replace(size_bytes=11)}, {"model.onnx": OLD._replace(mtime_ns=101)},
               {"model.onnx": OLD._replace(ctime_ns=101)}, {"model.onnx": OLD, "weights": OLD}, {"weights": OLD}]
    for files in changes:
        again = follow(first, look(SETTLE_NS, files))
        assert not again.whole
        assert again.since_ns == SETTLE_NS
    assert not follow(first, look(SETTLE_NS, {"model.onnx": OLD}, inode=2)).whole


def test_what_was_whole_stays_so_until_it_changes() -> None:
    watch = follow(follow(None, look(0, {"a": OLD})), look(SETTLE_NS, {"a": OLD}))
    watch = follow(watch, look(SETTLE_NS + 1, {"a": OLD}))
    assert watch.whole
    assert not follow(watch, look(SETTLE_NS * 9, {"a": OLD._replace(size_bytes=3)})).whole


def test_a_renamed_directory_is_whole_at_once_if_nothing_changed_on_the_way() -> None:
    staged = follow(None, look(0, {"model.onnx": OLD}))
    assert follow(staged, look(1, {"model.onnx": OLD}), renamed=True).whole
    assert not follow(staged, look(1, {"model.onnx": OLD._replace(size_bytes=99)}), renamed=True).whole


def test_a_marker_speaks_for_files_older_than_itself() -> None:
    assert marked(look(0, {"a": OLD}, Stamp(0, 0, 101)))
    assert follow(None, look(0, {"a": OLD}, Stamp(0, 0, 101))).whole
    assert not marked(look(0, {"a": OLD}, OLD))
    assert not marked(look(0, {"a": OLD._replace(mtime_ns=150)}, Stamp(0, 200, 101)))
    assert not marked(look(0, {}, Stamp(0, 0, 101)))


def test_at_the_start_old_versions_count_and_new_ones_only_among_themselves() -> None:
    now = 100 * SETTLE_NS
    assert whole_at_start({1: 0, 2: now - SETTLE_NS, 3: now - 1}, now) == {1, 2}
    assert whole_at_start({2: now - 1, 3: now + 5}, now) == {2, 3}
    assert whole_at_start({}, now) == frozenset()


def test_a_fingerprint_tells_every_change() -> None:
    files = [{"a": OLD}, {"b": OLD}, {"a": OLD, "b": OLD}, {"a": OLD._replace(size_bytes=1)},
             {"a": OLD._replace(mtime_ns=1)}, {"a": OLD._replace(ctime_ns=1)}, {}]
    assert len({fingerprint(each) for each in files}) == len(files)
    assert fingerprint({"a": OLD, "b": OLD}) == fingerprint({"b": OLD, "a": OLD})
