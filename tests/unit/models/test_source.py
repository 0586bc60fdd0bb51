"""What successive looks at repositories see: versions as they become whole, and never anything early or lost."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infer.models.problems import Problem, error
from infer.models.settings import ModelSettings
from infer.models.settle import SETTLE_NS
from infer.models.snapshot import Snapshot, VersionFiles
from infer.models.source import PATIENCE_NS, Source
from tests.support import models
from tests.support.models import write_external_data_model, write_model, write_version


class Watcher:
    """A source whose looks are a settle time apart, unless a test says else. Everything is old to its first look."""

    def __init__(self, *roots: Path, **options: object) -> None:
        self.now_ns = 0
        self.source = Source(roots, wall_ns=lambda: 1 << 62, **options)  # type: ignore[arg-type]

    def look(self, after_ns: int = SETTLE_NS) -> Snapshot:
        self.now_ns += after_ns
        return self.source.observe(self.now_ns)

    def settled(self) -> Snapshot:
        self.look()
        return self.look()


def version(snapshot: Snapshot, model: str, number: int) -> VersionFiles:
    return snapshot.models[model].versions[number]


def whole(snapshot: Snapshot, model: str) -> list[int]:
    return sorted(number for number, files in snapshot.models[model].versions.items() if files.whole)


def test_the_first_look_takes_what_is_there(tmp_path: Path) -> None:
    for number in (1, 2):
        write_version(tmp_path, "m", number, models.scale(number))
    snapshot = Watcher(tmp_path).look()
    assert whole(snapshot, "m") == [1, 2]
    files = version(snapshot, "m", 2)
    assert (files.path, files.directory, files.root) == (tmp_path / "m/2/model.onnx", tmp_path / "m/2", tmp_path)
    assert snapshot.problems == ()


def test_a_first_look_beside_old_versions_does_not_trust_a_new_one(tmp_path: Path) -> None:
    now_ns = write_version(tmp_path, "m", 1, models.scale()).stat().st_ctime_ns
    write_version(tmp_path, "m", 2, models.scale())
    new_ns = (tmp_path / "m/2/model.onnx").stat().st_ctime_ns
    source = Source([tmp_path], settle_ns=max(1, new_ns - now_ns), wall_ns=lambda: new_ns)
    expected = [1] if new_ns > now_ns else [1, 2]
    assert whole(source.observe(0), "m") == expected


def test_nothing_new_is_the_same_snapshot(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.scale())
    watcher = Watcher(tmp_path)
    first = watcher.look()
    assert watcher.look() is first
    assert watcher.look() is first


def test_a_model_that_is_as_it_was_is_the_same_object(tmp_path: Path) -> None:
    for name in ("m", "n"):
        write_version(tmp_path, name, 1, models.scale())
    watcher = Watcher(tmp_path)
    before = watcher.settled()
    write_version(tmp_path, "m", 2, models.scale())
    after = watcher.settled()
    assert after.models["n"] is before.models["n"]
    assert after.models["m"] != before.models["m"]


def test_nothing_new_reads_no_file_and_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_version(tmp_path, "m", 1, models.scale())
    watcher = Watcher(tmp_path)
    snapshot = watcher.settled()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("read")

    for name in ("os.scandir", "io.open", "os.open"):
        monkeypatch.setattr(name, refuse)
    assert watcher.look() is snapshot


def test_a_new_version_is_seen_at_once_and_whole_after_the_settle_time(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.scale())
    watcher = Watcher(tmp_path)
    watcher.look()
    write_version(tmp_path, "m", 2, models.scale(3))
    assert whole(watcher.look(), "m") == [1]
    assert whole(watcher.look(SETTLE_NS - 1), "m") == [1]
    assert whole(watcher.look(1), "m") == [1, 2]


def test_a_version_renamed_into_place_is_whole_at_once(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.scale())
    watcher = Watcher(tmp_path)
    write_model(tmp_path / "m/.incoming/model.onnx", models.scale(3))
    watcher.look()
    watcher.look(1)
    (tmp_path / "m/.incoming").rename(tmp_path / "m/2")
    assert whole(watcher.look(1), "m") == [1, 2]


def test_a_marker_makes_a_version_whole_at_once(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.scale())
    watcher = Watcher(tmp_path)
    watcher.look()
    file = write_version(tmp_path, "m", 2, models.scale(3))
    marker = tmp_path / "m/2/_READY"
    while not marker.exists() or marker.stat().st_ctime_ns <= file.stat().st_ctime_ns:
        marker.write_bytes(b"")     # the file system's clock ticks slower than this writes
    snapshot = watcher.look(1)
    assert whole(snapshot, "m") == [1, 2]
    marker.unlink()
    assert version(watcher.look(), "m", 2).fingerprint == version(snapshot, "m", 2).fingerprint


def test_a_copy_that_stopped_is_never_whole_while_another_version_is_sound(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.scale())
    watcher = Watcher(tmp_path)
    watcher.look()
    write_version(tmp_path, "m", 2, models.scale()[:-30])
    watcher.look()
    snapshot = watcher.look(10 * PATIENCE_NS)
    assert whole(snapshot, "m") == [1]
    assert "only a part of one" in version(snapshot, "m", 2).fault
    (problem,) = snapshot.problems
    assert problem.code == "E209"
    again = Watcher(tmp_path).look()
    assert whole(again, "m") == [1], "nor after a restart"
    write_version(tmp_path, "m", 2, models.scale())
    assert whole(watcher.settled(), "m") == [1, 2]


def test_what_cannot_be_loaded_is_handed_on_with_its_reason_where_there_is_nothing_else(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.scale()[:-30])
    first = Watcher(tmp_path).look()
    assert whole(first, "m") == [1]
    assert version(first, "m", 1).fault
    write_version(tmp_path / "r", "a", 1, models.scale())
    watcher = Watcher(tmp_path / "r")
    watcher.look()
    write_version(tmp_path / "r", "m", 1, models.scale()[:-30])
    watcher.look()
    assert whole(watcher.look(PATIENCE_NS - 1), "m") == []
    assert whole(watcher.look(1), "m") == [1]


def test_data_that_is_still_to_come(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.scale())
    watcher = Watcher(tmp_path)
    watcher.look()
    write_external_data_model(tmp_path / "out/model.onnx")
    (tmp_path / "m/2").mkdir()
    shutil.copy(tmp_path / "out/model.onnx", tmp_path / "m/2/model.onnx")
    snapshot = watcher.settled()
    assert whole(snapshot, "m") == [1]
    assert "model.onnx.data' is missing" in version(snapshot, "m", 2).fault
    content = (tmp_path / "out/model.onnx.data").read_bytes()
    (tmp_path / "m/2/model.onnx.data").write_bytes(content[:-1])
    snapshot = watcher.settled()
    assert whole(snapshot, "m") == [1]
    assert "cut short" in version(snapshot, "m", 2).fault
    (tmp_path / "m/2/model.onnx.data").write_bytes(content)
    assert whole(watcher.settled(), "m") == [1, 2]


def test_a_version_that_is_written_anew_stays_as_it_was_until_the_new_one_is_whole(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.scale())
    watcher = Watcher(tmp_path)
    before = version(watcher.look(), "m", 1)
    write_version(tmp_path, "m", 1, models.scale(3)[:-30])
    for _ in range(3):
        now = version(watcher.look(), "m", 1)
        assert (now.whole, now.fingerprint) == (False, before.fingerprint)
    write_version(tmp_path, "m", 1, models.scale(3))
    assert not version(watcher.look(), "m", 1).whole
    after = version(watcher.look(), "m", 1)
    assert after.whole
    assert after.fingerprint != before.fingerprint


def test_a_version_that_is_removed_is_gone(tmp_path: Path) -> None:
    for number in (1, 2):
        write_version(tmp_path, "m", number, models.scale())
    watcher = Watcher(tmp_path)
    watcher.look()
    shutil.rmtree(tmp_path / "m/2")
    assert list(watcher.look().models["m"].versions) == [1]


def test_a_repository_that_cannot_be_reached_loses_nothing(tmp_path: Path) -> None:
    write_version(tmp_path / "r", "m", 1, models.scale())
    (tmp_path / "mount").symlink_to("r")
    watcher = Watcher(tmp_path / "mount")
    before = version(watcher.look(), "m", 1)
    (tmp_path / "mount").unlink()
    for _ in range(2):
        snapshot = watcher.look()
        assert replace(version(snapshot, "m", 1), whole=True) == before
        assert not version(snapshot, "m", 1).whole
        assert [problem.code for problem in snapshot.problems] == ["E200"]
    (tmp_path / "mount").symlink_to("r")
    assert version(watcher.look(), "m", 1) == before


def test_a_root_that_is_never_there_hides_no_change_of_another(tmp_path: Path) -> None:
    write_version(tmp_path / "r", "m", 1, models.scale())
    write_version(tmp_path / "r", "n", 1, models.scale())
    watcher = Watcher(tmp_path / "gone", tmp_path / "r")
    assert sorted(watcher.look().models) == ["m", "n"]
    shutil.rmtree(tmp_path / "r/n")
    assert sorted(watcher.look().models) == ["m"]


def test_a_mount_that_appears_late(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "mount")
    assert watcher.look().models == {}
    write_version(tmp_path / "r", "m", 1, models.scale())
    (tmp_path / "mount").symlink_to("r")
    assert whole(watcher.settled(), "m") == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a process with another root directory")
def test_models_in_the_files_of_another_process(tmp_path: Path) -> None:
    """As a model image is mounted beside the server: links are by names that mean nothing here."""
    write_external_data_model(tmp_path / "other/models/m/1/model.onnx")
    (tmp_path / "other/models/m/2").symlink_to("1")
    code = (f"import os, sys; os.chroot({str(tmp_path / 'other')!r}); os.chdir('/'); print('in', flush=True); "
            "sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        (tmp_path / "models").symlink_to(f"/proc/{other.pid}/root/models")
        snapshot = Watcher(tmp_path / "models").look()
        assert snapshot.problems == ()
        assert whole(snapshot, "m") == [1, 2]
        other.communicate()


def test_a_config_map_that_is_swapped(tmp_path: Path) -> None:
    """Kubernetes writes a new directory and renames the link that all names go through."""
    mount = tmp_path / "m"
    write_model(mount / "..2024_1/model.onnx", models.scale(2))
    (mount / "..data").symlink_to("..2024_1")
    (mount / "1").mkdir()
    (mount / "1/model.onnx").symlink_to("../..data/model.onnx")
    watcher = Watcher(mount)
    before = version(watcher.settled(), "m", 1)
    assert before.whole
    write_model(mount / "..2024_2/model.onnx", models.scale(3))
    (mount / "..new").symlink_to("..2024_2")
    (mount / "..new").rename(mount / "..data")
    shutil.rmtree(mount / "..2024_1")
    after = version(watcher.settled(), "m", 1)
    assert after.whole
    assert after.fingerprint != before.fingerprint


def test_several_roots_and_a_name_that_is_found_twice(tmp_path: Path) -> None:
    write_version(tmp_path / "a", "m", 1, models.scale())
    write_version(tmp_path / "b", "m", 2, models.scale())
    write_version(tmp_path / "b", "n", 1, models.scale())
    snapshot = Watcher(tmp_path / "a", tmp_path / "b").look()
    assert sorted(snapshot.models) == ["m", "n"]
    assert version(snapshot, "m", 1).directory == tmp_path / "a/m/1"
    assert [(problem.code, problem.place) for problem in snapshot.problems] == [("E207", str(tmp_path / "b/m"))]


def test_hard_links_are_refused_but_for_a_file_that_the_operator_named(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.scale())
    os.link(tmp_path / "m/1/model.onnx", tmp_path / "other.onnx")
    snapshot = Watcher(tmp_path / "m").look()
    assert "has 2 names (hard links)" in version(snapshot, "m", 1).fault
    assert version(Watcher(tmp_path / "other.onnx").look(), "other", 1).fault == ""


def test_data_that_a_bare_file_names_belongs_to_it_and_other_files_do_not(tmp_path: Path) -> None:
    write_external_data_model(tmp_path / "x.onnx")
    watcher = Watcher(tmp_path / "x.onnx")
    before = version(watcher.look(), "x", 1)
    (tmp_path / "y.onnx").write_bytes(b"")
    assert version(watcher.settled(), "x", 1) == before
    data = tmp_path / "x.onnx.data"
    data.write_bytes(data.read_bytes()[::-1])
    os.utime(data, ns=(1, 1))
    assert version(watcher.settled(), "x", 1).fingerprint != before.fingerprint


def parsed(file: Path, name: str) -> tuple[ModelSettings | None, list[Problem]]:
    text = file.read_text()
    if text == "bad":
        return None, [error(f"{file}:1:1", "", "E101", got="bad", fix="write it again")]
    return ModelSettings(name, filename=text, places={"filename": f"{file}:1:1"}), []


def test_settings_are_read_when_they_change_and_bad_ones_change_nothing(tmp_path: Path) -> None:
    write_model(tmp_path / "m/1/net.onnx", models.scale())
    write_model(tmp_path / "m/1/other.onnx", models.scale())
    config = write_model(tmp_path / "m/config.pbtxt", b"net.onnx")
    watcher = Watcher(tmp_path / "m", parse=parsed)
    before = watcher.look()
    assert before.models["m"].settings.base == tmp_path / "m"
    assert version(before, "m", 1).path.name == "net.onnx"
    config.write_bytes(b"bad")
    after = watcher.look()
    assert after.models["m"] == replace(before.models["m"], refusal=str(after.problems[0]))
    assert [problem.place for problem in after.problems] == [f"{config}:1:1"]
    config.write_bytes(b"other.onnx")
    assert version(watcher.look(), "m", 1).path.name == "other.onnx"
    config.write_bytes(b"none.onnx")
    snapshot = watcher.look()
    assert "default_model_filename" in version(snapshot, "m", 1).fault
    assert snapshot.problems[0].place == f"{config}:1:1"


def test_a_model_whose_settings_were_never_good_is_known_and_not_loaded(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.scale())
    write_version(tmp_path, "n", 1, models.scale())
    write_model(tmp_path / "m/config.pbtxt", b"bad")
    snapshot = Watcher(tmp_path, parse=parsed).look()
    assert whole(snapshot, "n") == [1]
    assert snapshot.models["n"].refusal == ""
    assert "config.pbtxt:1:1" in snapshot.models["m"].refusal


def test_a_version_that_is_somebodys_home_is_told_of(tmp_path: Path) -> None:
    write_version(tmp_path, "m", 1, models.scale())
    for number in range(1001):
        (tmp_path / f"m/1/{number}").touch()
    write_version(tmp_path, "n", 1, models.scale())
    snapshot = Watcher(tmp_path).look()
    assert whole(snapshot, "n") == [1]
    assert [problem.code for problem in snapshot.problems] == ["E212"]
