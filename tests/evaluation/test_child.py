"""A measuring process answers, reports an error, or is told apart from one that died."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from roots_compress.errors import InputError, StageError
from roots_compress.evaluation.child import measure

CHILD = "tests.evaluation.child_process"
pytestmark = pytest.mark.usefixtures("fresh_children")


@pytest.fixture(autouse=True)
def _find_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def test_the_result_and_the_progress_come_back() -> None:
    seen: list[tuple[int, int]] = []
    result = measure(CHILD, {"do": "echo", "value": [1, "ü"]}, progress=lambda *step: seen.append(step))
    assert result == [1, "ü"]
    assert seen == [(1, 2), (2, 2)]


def test_an_error_keeps_its_words_and_its_kind() -> None:
    with pytest.raises(InputError, match="the child's own words"):
        measure(CHILD, {"do": "refuse"})


def test_a_crash_shows_its_last_line() -> None:
    with pytest.raises(StageError, match="exit code 1: ZeroDivisionError"):
        measure(CHILD, {"do": "crash"})


def test_a_killed_child_is_said_to_be_killed() -> None:
    with pytest.raises(StageError, match=f"signal {int(signal.SIGKILL)}") as caught:
        measure(CHILD, {"do": "die"})
    assert "memory" in (caught.value.remedy or "")


def test_a_child_that_cannot_be_started_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").write_text("no program", encoding="utf-8")
    for executable, cause in (
        (tmp_path / "python", "Permission denied"),
        (tmp_path / "absent", "No such file"),
    ):
        monkeypatch.setattr(sys, "executable", str(executable))
        with pytest.raises(StageError, match=f"cannot be started: {cause}") as caught:
            measure(CHILD, {"do": "echo", "value": 1})
        assert caught.value.where == str(executable)


def test_what_a_child_says_at_length_is_read_to_the_end() -> None:
    assert measure(CHILD, {"do": "chatter", "value": 1}) == 1


def test_a_child_without_memory_says_so() -> None:
    with pytest.raises(StageError, match="memory ran out"):
        measure(CHILD, {"do": "exhaust"})


def test_an_interrupted_measurement_leaves_no_process() -> None:
    pids: list[int] = []

    def interrupt(pid: int, _total: int) -> None:
        pids.append(pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(CHILD, {"do": "hang"}, progress=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_the_current_folder_cannot_stand_in_for_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tempfile.py").write_text("raise SystemExit(7)", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert measure(CHILD, {"do": "echo", "value": 1}) == 1
