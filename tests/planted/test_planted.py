"""Every planted bug still fits the package, every symptom has one, and a miss would be seen."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.planted.bug import SYMPTOMS, Bug, Change, FailingTest, Guard
from tests.planted.bugs import BUGS
from tests.planted.harness import Answer, Failure, fault
from tests.symbols import ROOT, StaleSymbolError, find_symbol

QUICK = "silent-casts"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_fits_and_leaves_python(bug: Bug, tmp_path: Path) -> None:
    for path in {change.path for change in bug.changes}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    bug.plant(tmp_path)
    for path in {change.path for change in bug.changes}:
        compile((tmp_path / path).read_text(encoding="utf-8"), path, "exec")
    if isinstance(bug.caught_by, FailingTest):
        assert bug.caught_by.id
    else:
        find_symbol(bug.caught_by.name)


def test_every_symptom_has_a_bug_and_every_bug_a_name() -> None:
    assert {bug.symptom for bug in BUGS} == set(SYMPTOMS)
    assert len({bug.name for bug in BUGS}) == len(BUGS)


def test_only_the_stated_failure_counts() -> None:
    bug = replace(BUGS[0], caught_by=FailingTest("test_it", "AssertionError"))
    assertion = Failure(("AssertionError", "Exception"), ())
    assert fault(bug, Answer(1, assertion, "", 0.0)) is None
    for code, failure, reason in (
        (0, None, "went through unseen"),
        (1, Failure(("ImportError", "Exception"), ()), "by a ImportError"),
        (4, None, "the check itself broke"),
    ):
        assert reason in str(fault(bug, Answer(code, failure, "", 0.0)))
    guarded = replace(bug, caught_by=Guard("check_parity"))
    for guard, caught in (("check_parity", True), ("ParityCase.passed", False)):
        failure = Failure(("StageError", "RootsError"), (find_symbol(guard).name,))
        assert (fault(guarded, Answer(1, failure, "", 0.0)) is None) is caught


@pytest.mark.slow
def test_a_bug_is_planted_and_caught() -> None:
    command = [sys.executable, "-m", "tests.planted", "--only", QUICK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "1 of 1 bugs caught" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Change("no_such_function", "1", "2"), "0 symbols"),
        (Change("__init__", "1", "2"), "symbols of roots_compress/ are called __init__"),
        (Change("size.graph_bytes", "no_such_name", "2"), "0 pieces"),
        (Change("size.graph_bytes", "path", "2"), "2 pieces"),
    ],
)
def test_a_change_must_fit_once(change: Change, message: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "roots_compress/evaluation", tmp_path / "roots_compress/evaluation")
    with pytest.raises(StaleSymbolError, match=message):
        change.make(tmp_path)
