"""Limits of control groups: of the process's own group and of those above it, in both versions' files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from roots_compress.system.cgroup import ControlGroups
from roots_compress.system.memory import available_memory

MB = 10**6


def lay(folder: Path, files: dict[str, str]) -> Path:
    """Write files below a folder, making the folders they lie in."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return folder


def groups_of(folder: Path, cgroup: str, mountinfo: str = "") -> ControlGroups:
    """Return the groups of a process whose `/proc/self` says this, the usual place being `folder/fs`."""
    lay(folder, {"proc/cgroup": cgroup, "proc/mountinfo": mountinfo})
    return ControlGroups.own(folder / "proc", folder / "fs")


@pytest.mark.parametrize(
    ("cgroup", "files", "cores"),
    [
        ("0::/", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/sub", {"cpu.max": "max 100000", "sub/cpu.max": "50000 100000"}, 0.5),
        ("0::/sub", {"cpu.max": "50000 100000", "sub/cpu.max": "max 100000"}, 0.5),
        ("0::/sub", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/a/b/c", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "200000 100000"}, 2.0),
        ("0::/a/b/c", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "200000 100000"}, 1.0),
        ("0::/docker/f00d/sub", {"sub/cpu.max": "50000 100000"}, 0.5),
        ("0::/../../elsewhere", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/a: b", {"a: b/cpu.max": "50000 100000"}, 0.5),
        ("0::/gone (deleted)", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/sub", {"other/cpu.max": "50000 100000"}, None),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {}, None),
        ("", {"cpu.max": "50000 100000"}, None),
        ("3:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ("3:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000"}, 0.5),
        ("3:cpu:/x", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ("3:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, None),
        (
            "3:cpuacct,cpu:/d/e",
            {"cpu,cpuacct/e/cpu.cfs_quota_us": "50000", "cpu,cpuacct/e/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        ("1:name=systemd:/\n0::/sub", {"unified/sub/cpu.max": "50000 100000"}, 0.5),
        (
            "2:cpu:/x\n0::/y",
            {
                "unified/y/cpu.max": "150000 100000",
                "cpu/x/cpu.cfs_quota_us": "50000",
                "cpu/x/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
    ],
)
def test_the_least_quota_up_to_the_root_counts(
    tmp_path: Path, cgroup: str, files: dict[str, str], cores: float | None
) -> None:
    lay(tmp_path / "fs", files)
    assert groups_of(tmp_path, cgroup).cores() == cores


@pytest.mark.parametrize(
    ("cgroup", "root", "limited"),
    [("0::/", "/", ""), ("0::/box/in", "/box", "in"), ("0::/box", "/box", ""), ("0::/", "/..", "")],
)
def test_a_mount_elsewhere_is_found_and_its_root_may_be_a_group(
    tmp_path: Path, cgroup: str, root: str, limited: str
) -> None:
    place = tmp_path / "a place"
    lay(place / limited, {"cpu.max": "50000 100000"})
    told = str(place).replace(" ", r"\040")
    groups = groups_of(tmp_path, cgroup, f"30 23 0:26 {root} {told} rw shared:4 - cgroup2 cgroup2 rw")
    assert groups.cores() == 0.5


def test_a_mount_of_version_1_serves_the_controllers_it_names(tmp_path: Path) -> None:
    lay(tmp_path / "odd", {"x/memory.limit_in_bytes": str(50 * MB), "x/cpu.cfs_quota_us": "1"})
    mount = f"30 23 0:26 / {tmp_path / 'odd'} rw - cgroup cgroup rw,memory\nnonsense\n"
    groups = groups_of(tmp_path, "4:memory:/x\n3:cpu:/x", mount)
    assert groups.memory_room() == 50 * MB
    assert groups.cores() is None


@pytest.mark.parametrize(
    ("files", "room"),
    [
        ({"memory.max": str(50 * MB), "memory.stat": f"anon {MB}\nfile 99999999"}, 49 * MB),
        ({"memory.max": "max", "sub/memory.max": str(50 * MB)}, 50 * MB),
        ({"memory.max": str(50 * MB), "sub/memory.max": "max"}, 50 * MB),
        ({"sub/memory.max": str(50 * MB), "sub/memory.high": str(30 * MB)}, 30 * MB),
        ({"sub/memory.max": "max", "sub/memory.high": str(30 * MB)}, 30 * MB),
        (
            {"memory.max": str(60 * MB), "memory.stat": f"anon {30 * MB}", "sub/memory.max": str(50 * MB)},
            30 * MB,
        ),
        ({"memory.max": str(50 * MB), "memory.current": str(20 * MB)}, 30 * MB),
        ({"memory.max": str(50 * MB), "memory.stat": f"anon {MB}\nshmem {MB}\npagetables {MB}"}, 47 * MB),
        ({"memory.max": str(50 * MB), "memory.stat": f"anon {60 * MB}"}, 0),
        ({"memory.max": "0"}, 0),
        ({"memory.max": "max"}, None),
        ({"memory.max": "nonsense"}, None),
        ({"memory.max": str(50 * MB), "memory.swap.max": "max"}, 60 * MB),
        (
            {"memory.max": str(50 * MB), "memory.swap.max": str(8 * MB), "memory.swap.current": str(3 * MB)},
            55 * MB,
        ),
        ({"memory.max": str(50 * MB), "memory.swap.max": "0"}, 50 * MB),
    ],
)
def test_memory_under_version_2(tmp_path: Path, files: dict[str, str], room: int | None) -> None:
    lay(tmp_path / "fs", files)
    assert groups_of(tmp_path, "0::/sub").memory_room(10 * MB) == room


@pytest.mark.parametrize(
    ("files", "room"),
    [
        ({"memory.limit_in_bytes": str(50 * MB), "memory.usage_in_bytes": str(MB)}, 49 * MB),
        (
            {
                "sub/memory.limit_in_bytes": str(50 * MB),
                "sub/memory.usage_in_bytes": str(40 * MB),
                "sub/memory.stat": f"cache {39 * MB}\nrss {MB}\ntotal_rss {2 * MB}\ntotal_shmem {MB}",
            },
            47 * MB,
        ),
        (
            {
                "sub/memory.limit_in_bytes": "9223372036854771712",
                "sub/memory.stat": f"hierarchical_memory_limit {50 * MB}\ntotal_rss {MB}",
            },
            49 * MB,
        ),
        (
            {"memory.limit_in_bytes": str(50 * MB), "memory.memsw.limit_in_bytes": str(54 * MB)},
            54 * MB,
        ),
        ({}, None),
    ],
)
def test_memory_under_version_1(tmp_path: Path, files: dict[str, str], room: int | None) -> None:
    lay(tmp_path / "fs" / "memory", files)
    assert groups_of(tmp_path, "4:memory:/sub").memory_room(10 * MB) == room


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({"cpuset.cpus.effective": "0-3", "sub/cpuset.cpus.effective": "1-2"}, {1, 2}),
        ({"sub/cpuset.cpus.effective": "0,4-5"}, {0, 4, 5}),
        ({"sub/cpuset.cpus": ""}, None),
        ({"cpuset/cpuset.cpus": "0-1", "cpuset/set/cpuset.effective_cpus": "1"}, {1}),
        ({"cpuset/set/cpuset.cpus": "nonsense"}, None),
    ],
)
def test_sets_of_processors(tmp_path: Path, files: dict[str, str], allowed: set[int] | None) -> None:
    lay(tmp_path / "fs", files)
    assert groups_of(tmp_path, "5:cpuset:/set\n0::/sub").allowed() == allowed


def test_memory_is_the_least_of_the_system_s_and_the_groups(tmp_path: Path) -> None:
    meminfo = lay(tmp_path, {"meminfo": "MemAvailable: 100 kB\nSwapFree: 20 kB"}) / "meminfo"
    for limit, available in (("60000", 60000), (str(1 << 62), 120 * 1024), ("max", 120 * 1024)):
        lay(tmp_path / "fs", {"memory.max": limit})
        assert available_memory(meminfo, groups_of(tmp_path, "0::/")) == available


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="mounts need root on Linux",
)
def test_the_process_s_own_files_are_read(tmp_path: Path) -> None:
    """A container is played: its tree lies over the system's, and its group over the process's."""
    lay(
        tmp_path / "fs", {"in/cpu.max": "50000 100000", "in/memory.max": "300000000", "cpu.max": "max 100000"}
    )
    lay(tmp_path, {"cgroup": "0::/in"})
    script = (
        "from roots_compress.system.threads import default_threads;"
        "from roots_compress.system.memory import available_memory;"
        "print(default_threads(), available_memory())"
    )
    shell = (
        'mount --bind "$1/fs" /sys/fs/cgroup && mount --bind "$1/cgroup" /proc/$$/cgroup && exec "$2" -c "$3"'
    )
    played = subprocess.run(
        ["unshare", "-m", "sh", "-c", shell, "-", str(tmp_path), sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount:" in played.stderr or "unshare:" in played.stderr:
        pytest.skip("mounts are not allowed here")
    assert played.stdout.split() == ["1", "300000000"], played.stderr
