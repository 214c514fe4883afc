"""A part of the crossings: every verb has a command, and some of them meet the hardest surroundings."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.crossings.materials import Command, prepare
from tests.crossings.signals import check_signals
from tests.crossings.surroundings import SURROUNDINGS, faults_of
from tests.verbs import verbs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc"),
]
HARDEST = [
    "all streams closed",
    "a locale without UTF-8",
    "TMPDIR that is not there",
    "both that and a locale without UTF-8",
]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Command]:
    return prepare(tmp_path_factory.mktemp("crossings"))


def test_every_verb_has_a_command(commands: dict[str, Command]) -> None:
    assert tuple(sorted(commands)) == verbs()


@pytest.mark.parametrize("name", HARDEST)
@pytest.mark.parametrize("verb", ["prune", "tune", "data"])
def test_a_verb_does_its_work_in_hard_surroundings(
    verb: str, name: str, commands: dict[str, Command], tmp_path: Path
) -> None:
    assert faults_of(commands[verb], SURROUNDINGS[name], tmp_path / "here") == []


def test_what_is_wrong_is_found(commands: dict[str, Command], tmp_path: Path) -> None:
    wrong = Command(("report", "nowhere"))
    (fault,) = faults_of(wrong, SURROUNDINGS["ordinary"], tmp_path / "here")
    assert "exit code 2" in fault
    silent = Command(("-c", "0"))
    assert faults_of(silent, SURROUNDINGS["an output that cannot be"], tmp_path / "here")


@pytest.mark.parametrize("verb", ["import", "data"])
def test_signals_leave_all_or_nothing(verb: str, commands: dict[str, Command], tmp_path: Path) -> None:
    seed = int(os.environ.get("ROOTS_CROSSING_SEED", "0"))
    assert check_signals(commands[verb], tmp_path, moments=1, rng=random.Random(seed)).faults == []
