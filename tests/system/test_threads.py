"""The default number of threads counts cores, not hardware threads, and no more than the process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from roots_compress.system import threads as counting
from roots_compress.system.cgroup import ControlGroups
from roots_compress.system.machine import usable_cores
from roots_compress.system.threads import LIBRARY_SETTINGS, default_threads, physical_cores


@pytest.fixture(autouse=True)
def _cores_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests have one core."""
    monkeypatch.setattr(counting, "physical_cores", physical_cores)


def a_topology(folder: Path, siblings: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Describe processors in a folder, and let this process have all of them."""
    for processor, each in enumerate(siblings):
        topology = folder / f"cpu{processor}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(each + "\n", encoding="ascii")
    everyone = set(range(len(siblings)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: everyone, raising=False)
    return folder


def test_hardware_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topology = a_topology(tmp_path, ["0,2", "1,3", "0,2", "1,3"], monkeypatch)
    assert physical_cores(topology) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 2}, raising=False)
    assert physical_cores(topology) == 1


def test_processors_count_where_the_topology_is_unknown(tmp_path: Path) -> None:
    assert physical_cores(tmp_path) == usable_cores()


@pytest.mark.parametrize(
    ("quota", "threads"),
    [
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("300000 100000", 3),
        ("900000 100000", 4),
        ("max 100000", 4),
        ("", 4),
        ("100000", 4),
        ("100000 0", 4),
    ],
)
def test_a_quota_bounds_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, threads: int
) -> None:
    topology = a_topology(tmp_path / "cpu", ["0", "1", "2", "3"], monkeypatch)
    (tmp_path / "cpu.max").write_text(quota + "\n", encoding="ascii")
    assert default_threads(topology, ControlGroups((tmp_path,), (), (), ())) == threads


@pytest.mark.parametrize(("listed", "threads"), [("0-1", 2), ("3", 1), ("0,2-3", 3), ("", 4), ("9", 4)])
def test_a_set_of_processors_bounds_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, threads: int
) -> None:
    topology = a_topology(tmp_path / "cpu", ["0", "1", "2", "3"], monkeypatch)
    (tmp_path / "cpuset.cpus.effective").write_text(listed + "\n", encoding="ascii")
    assert default_threads(topology, ControlGroups((tmp_path,), (), (), ())) == threads


def test_the_default_is_at_least_one_and_at_most_all() -> None:
    assert 1 <= default_threads() <= usable_cores()


def test_libraries_are_told_before_they_are_loaded() -> None:
    script = (
        "from roots_compress.system.threads import bound_libraries, default_threads; bound_libraries();"
        "import os, torch; assert torch.get_num_threads() == default_threads(), torch.get_num_threads();"
        f"print([os.environ[name] for name in {LIBRARY_SETTINGS!r}])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in LIBRARY_SETTINGS}
    told = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "RAYON_NUM_THREADS": "7"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    count = str(default_threads())
    assert told.strip() == str([count, count, "7"])
