"""Every planted bug still fits the package, every symptom has one, and a miss would be seen."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.planted.harness import ROOT, Answer, fault
from tests.planted.patches import RUN, SYMPTOMS, Plant, StalePatchError, plant, plants

QUICK = ("silent-casts", "worst-units")


def copied(bug: Plant, root: Path) -> Path:
    for hunk in bug.hunks:
        (root / hunk.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / hunk.path, root / hunk.path)
    return root


@pytest.mark.parametrize("bug", plants(), ids=lambda bug: bug.name)
def test_a_bug_fits_and_leaves_python(bug: Plant, tmp_path: Path) -> None:
    plant(bug, copied(bug, tmp_path))
    for hunk in bug.hunks:
        text = (tmp_path / hunk.path).read_text(encoding="utf-8")
        assert text != (ROOT / hunk.path).read_text(encoding="utf-8")
        compile(text, hunk.path, "exec")
    assert bug.caught_by == RUN or (ROOT / bug.caught_by.split("::")[0]).is_file()


def test_every_symptom_has_a_bug() -> None:
    assert {bug.symptom for bug in plants()} == set(SYMPTOMS)
    assert len(plants()) >= 26


def test_a_bug_that_no_longer_fits_is_an_error(tmp_path: Path) -> None:
    bug = plants()[0]
    (hunk,) = bug.hunks
    path = copied(bug, tmp_path) / hunk.path
    path.write_text(path.read_text(encoding="utf-8").replace(hunk.old, ""), encoding="utf-8")
    with pytest.raises(StalePatchError, match="0 times"):
        plant(bug, tmp_path)


def test_only_the_stated_failure_counts() -> None:
    bug = replace(plants()[0], caught_by="tests/test_it.py::test_it", says="assert 1 == 2")
    assert fault(bug, Answer(1, "E   assert 1 == 2\n", 0.0)) is None
    for code, output, reason in (
        (0, "1 passed", "went through unseen"),
        (1, "E   ImportError: no module\n", "another reason"),
        (4, "ERROR: not found: tests/test_it.py", "the check itself broke"),
    ):
        assert reason in str(fault(bug, Answer(code, output, 0.0)))
    guarded = replace(bug, caught_by=RUN, says="not one model")
    assert fault(guarded, Answer(1, "error: they are not one\nmodel\n", 0.0)) is None
    assert fault(guarded, Answer(1, "Traceback\nStageError: they are not one model\n", 0.0)) is not None


def test_some_bugs_are_planted_and_caught() -> None:
    command = [sys.executable, "-m", "tests.planted", "--only", *QUICK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"{len(QUICK)} of {len(QUICK)} bugs caught" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
