"""Links are followed inside a directory, and none leads out of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infer.models.inside import LeadsOut, has_other_names, resolve_inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    return root


def test_a_path_without_links_is_itself(root: Path) -> None:
    assert resolve_inside(root, root / "a/b/file") == root / "a/b/file"
    assert resolve_inside(root, root) == root


@pytest.mark.parametrize("target", ["file", "../b/file", "../../a/b/file", "./../b/./file"])
def test_relative_links_inside(root: Path, target: str) -> None:
    (root / "a/b/link").symlink_to(target)
    assert resolve_inside(root, root / "a/b/link") == root / "a/b/file"


def test_links_to_links_to_directories(root: Path) -> None:
    """As a ConfigMap is mounted: the file and the data directory are links."""
    (root / "..2024").mkdir()
    (root / "..2024/model.onnx").write_bytes(b"model")
    (root / "..data").symlink_to("..2024")
    (root / "model.onnx").symlink_to("..data/model.onnx")
    assert resolve_inside(root, root / "model.onnx") == root / "..2024/model.onnx"


def test_absolute_links_by_either_name_of_the_root(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.symlink_to(root)
    (root / "by-name").symlink_to(root / "a/b/file")
    (root / "by-other").symlink_to(other / "a/b/file")
    assert resolve_inside(root, root / "by-name") == root / "a/b/file"
    assert resolve_inside(other, other / "by-name") == other / "a/b/file"
    assert resolve_inside(other, other / "by-other") == other / "a/b/file"
    with pytest.raises(LeadsOut):
        resolve_inside(root, root / "by-other")


@pytest.mark.parametrize("target", ["../../../secret", "/etc/hostname", "../../../root/a/b/file", "out/secret", "/"])
def test_links_that_lead_out(root: Path, target: str) -> None:
    (root / "a/b/out").symlink_to("../../..")
    (root / "a/b/link").symlink_to(target)
    with pytest.raises(LeadsOut):
        resolve_inside(root, root / "a/b/link")


def test_dots_that_lead_out(root: Path) -> None:
    with pytest.raises(LeadsOut):
        resolve_inside(root, root / ".." / "secret")
    assert resolve_inside(root, root / "a" / ".." / "a/b") == root / "a/b"


def test_a_sibling_that_begins_like_the_root_is_outside(root: Path) -> None:
    (root.parent / "root2").mkdir()
    (root / "link").symlink_to(root.parent / "root2")
    with pytest.raises(LeadsOut):
        resolve_inside(root, root / "link")


def test_circles_and_nothing(root: Path) -> None:
    (root / "x").symlink_to("y")
    (root / "y").symlink_to("x")
    (root / "gone").symlink_to("nowhere")
    with pytest.raises(OSError, match="Too many levels"):
        resolve_inside(root, root / "x")
    with pytest.raises(FileNotFoundError):
        resolve_inside(root, root / "gone")


def test_hard_links(root: Path) -> None:
    assert not has_other_names((root / "a/b/file").stat())
    os.link(root / "a/b/file", root / "other")
    assert has_other_names((root / "a/b/file").stat())
    assert not has_other_names(root.stat())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a process with another root directory")
def test_the_root_of_another_process(root: Path, tmp_path: Path) -> None:
    """As a model image beside the server is mounted: the text of the link means nothing here."""
    code = f"import os, sys; os.chroot({str(root)!r}); os.chdir('/'); print('in', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        mounted = tmp_path / "models"
        mounted.symlink_to(f"/proc/{other.pid}/root/a")
        (root / "a/link").symlink_to("b/file")
        assert resolve_inside(mounted, mounted / "link").read_bytes() == b"inside"
        other.communicate()
