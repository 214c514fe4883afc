"""The default number of threads counts cores, not hardware threads, and no more than the process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roots_compress.evaluate.threads import cgroup_cores, default_threads, physical_cores
from roots_compress.run.machine import usable_cores


def test_hardware_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for processor, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        topology = tmp_path / f"cpu{processor}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(siblings + "\n", encoding="ascii")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3}, raising=False)
    assert physical_cores(tmp_path) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 2}, raising=False)
    assert physical_cores(tmp_path) == 1


def test_processors_count_where_the_topology_is_unknown(tmp_path: Path) -> None:
    assert physical_cores(tmp_path) == usable_cores()


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("400000 100000", 4)]
)
def test_a_container_s_quota_bounds_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota + "\n", encoding="ascii")
    assert cgroup_cores(path) == cores


def test_without_a_quota_every_core_counts(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n", encoding="ascii")
    assert cgroup_cores(tmp_path / "cpu.max") == cgroup_cores(tmp_path / "none") == usable_cores()


def test_the_default_is_at_least_one_and_at_most_all() -> None:
    assert 1 <= default_threads() <= usable_cores()
