"""Cores and memory from cgroup trees of both versions, and the thread plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer.cores import Threads, available_cores, memory_limit_bytes, plan_threads

GIB = 1 << 30
V2 = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
V1_CPU = "31 25 0:27 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "32 25 0:28 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"


class Tree:
    """A file system with a process's cgroups."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def process(self, cgroup: str, *mounts: str) -> None:
        other = "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/root rw"
        self.write("proc/self/mountinfo", "\n".join([other, *mounts]) + "\n")
        self.write("proc/self/cgroup", cgroup + "\n")

    def cores(self, affinity: int = 8) -> int:
        return available_cores(self.root, affinity)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_no_cgroup_at_all(tree: Tree) -> None:
    assert tree.cores() == 8
    assert memory_limit_bytes(tree.root) == 16 * GIB


@pytest.mark.parametrize(("quota", "cores"), [
    ("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("200000 100000", 2), ("900000 100000", 8),
    ("50000 25000", 2), ("", 8), ("junk", 8), ("0 0", 8)])
def test_quota_of_version_2(tree: Tree, quota: str, cores: int) -> None:
    tree.process("0::/pod", V2)
    tree.write("sys/fs/cgroup/pod/cpu.max", quota)
    assert tree.cores() == cores


def test_tightest_of_nested_groups_of_version_2(tree: Tree) -> None:
    tree.process("0::/a/b/c", V2)
    tree.write("sys/fs/cgroup/a/b/c/cpu.max", "max 100000")
    tree.write("sys/fs/cgroup/a/b/cpu.max", "600000 100000")
    tree.write("sys/fs/cgroup/a/cpu.max", "300000 100000")
    tree.write("sys/fs/cgroup/a/b/memory.max", f"{2 * GIB}\n")
    tree.write("sys/fs/cgroup/a/memory.max", "max\n")
    assert tree.cores() == 3
    assert memory_limit_bytes(tree.root) == 2 * GIB


def test_container_sees_its_own_group_as_the_root_of_version_2(tree: Tree) -> None:
    tree.process("0::/", V2)
    tree.write("sys/fs/cgroup/cpu.max", "150000 100000")
    tree.write("sys/fs/cgroup/memory.max", f"{GIB}")
    assert tree.cores() == 1
    assert memory_limit_bytes(tree.root) == GIB


def test_group_outside_of_the_namespace(tree: Tree) -> None:
    tree.process("0::/../other", V2)
    tree.write("sys/fs/cgroup/cpu.max", "200000 100000")
    assert tree.cores() == 2


def test_version_1(tree: Tree) -> None:
    tree.process("4:memory:/docker/x\n3:cpuset:/\n1:cpu,cpuacct:/docker/x\n0::/", V1_CPU.format(root="/"),
                 V1_MEMORY.format(root="/"), V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"))
    tree.write("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "-1")
    tree.write("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us", "100000")
    tree.write("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "400000")
    tree.write("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "100000")
    tree.write("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", f"{3 * GIB}")
    tree.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    assert tree.cores() == 4
    assert memory_limit_bytes(tree.root) == 3 * GIB


def test_version_1_mounted_at_the_container_s_own_group(tree: Tree) -> None:
    tree.process("1:cpu,cpuacct:/docker/x", V1_CPU.format(root="/docker/x"))
    tree.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000")
    tree.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    assert tree.cores() == 2


def test_affinity_below_the_quota(tree: Tree) -> None:
    tree.process("0::/", V2)
    tree.write("sys/fs/cgroup/cpu.max", "800000 100000")
    assert tree.cores(affinity=3) == 3


def test_this_process_has_at_least_one_core() -> None:
    assert available_cores() >= 1
    assert memory_limit_bytes() > 1 << 20


@pytest.mark.parametrize(("cores", "plan"), [
    (1, (2, 1, 1)), (2, (2, 1, 2)), (3, (3, 1, 3)), (4, (2, 2, 2)), (6, (3, 2, 3)), (7, (7, 1, 7)), (8, (4, 2, 4)),
    (12, (4, 3, 4)), (16, (4, 4, 4)), (64, (16, 4, 16))])
def test_plan(cores: int, plan: tuple[int, int, int]) -> None:
    assert plan_threads(cores) == Threads(*plan)


@pytest.mark.parametrize("cores", range(3, 129))
def test_plan_uses_every_core_once(cores: int) -> None:
    plan = plan_threads(cores)
    assert plan.executors * plan.intra_op == cores
    assert plan.executors >= max(2, plan.intra_op)


@pytest.mark.parametrize(("arguments", "plan"), [
    ((8, 2, None), (2, 4, 2)), ((8, None, 1), (8, 1, 8)), ((8, None, 8), (2, 8, 1)), ((8, 16, 4), (16, 4, 2)),
    ((2, 1, None), (1, 1, 1)), ((1, None, 4), (2, 4, 1)), ((4, 8, None), (8, 1, 4))])
def test_plan_with_given_numbers(arguments: tuple[int, int | None, int | None], plan: tuple[int, int, int]) -> None:
    assert plan_threads(*arguments) == Threads(*plan)
