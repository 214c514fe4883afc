"""The run store under every fault of a disk and a machine: the old state or the new one, never a mixture."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.crashes import check_double_kills, check_kills
from tests.faults.errors import check_errors, check_lost_writes
from tests.faults.power import check_power_loss
from tests.faults.scenarios import SCENARIOS, Scenario

each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


@each_scenario
def test_killed_before_or_in_an_operation(scenario: Scenario, tmp_path: Path) -> None:
    assert check_kills(scenario, tmp_path, torn=True, every=7) > 2


@each_scenario
def test_killed_again_while_going_on(scenario: Scenario, tmp_path: Path) -> None:
    assert check_double_kills(scenario, tmp_path, pairs=3, rng=random.Random(0)) == 3


@each_scenario
def test_power_lost_after_any_operation(scenario: Scenario, tmp_path: Path) -> None:
    assert check_power_loss(scenario, tmp_path, mixtures=1, rng=random.Random(0), every=17) > 1


@each_scenario
def test_a_disk_that_refuses(scenario: Scenario, tmp_path: Path) -> None:
    assert check_errors(scenario, tmp_path, every=59) > 0


@each_scenario
def test_a_disk_that_loses_writes(scenario: Scenario, tmp_path: Path) -> None:
    check_lost_writes(scenario, tmp_path, every=3)
