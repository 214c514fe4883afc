"""The layer over `os` that the other tests rely on sees what the kernel sees, and the kernel's own kills."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS
from tests.faults.strace import check_kernel_kills, check_layer, why_not

REDO = next(scenario for scenario in SCENARIOS if scenario.name == "redo")
"""It has every kind of call."""


@pytest.fixture(autouse=True)
def _where_processes_may_be_watched() -> None:
    if reason := why_not():
        pytest.skip(reason)


def test_the_layer_misses_no_durable_system_call(tmp_path: Path) -> None:
    assert check_layer(REDO, tmp_path) > 90


def test_killed_by_the_kernel_at_a_durable_system_call(tmp_path: Path) -> None:
    assert check_kernel_kills(REDO, tmp_path, sample=4, rng=random.Random(0)) == 4
