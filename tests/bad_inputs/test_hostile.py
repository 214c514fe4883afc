"""Hostile files run nothing, change nothing that is not theirs, and drive no terminal. See `hostile.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.bad_inputs.hostile import HOSTILE, Payload
from tests.bad_inputs.test_corpus import MAIN
from tests.faults.commands import Commands

ROOT = Path(__file__).parents[2]


def test_forty_hostile_files_leave_no_mark(commands: Commands) -> None:
    """In a process of its own, which forks."""
    commands.start("--hostile", code=MAIN)
    code = commands.end()
    lines = [json.loads(line) for line in commands.said().splitlines() if line.startswith("{")]
    assert [line for line in lines if line.get("faults")] == [], commands.said()
    assert code == 0, commands.said()
    assert lines[-1] == {"kind": "hostile", "files": len(HOSTILE), "marks": 0, "faulty": 0}
    assert len(HOSTILE) >= 40


def test_the_mark_is_made_where_a_payload_runs(tmp_path: Path) -> None:
    """Without this, no mark would prove nothing."""
    import pickle

    mark = tmp_path / "MARK"
    (tmp_path / "x.bin").write_bytes(pickle.dumps({"a": Payload(mark)}))
    assert not mark.exists()
    unpickle = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    subprocess.run([sys.executable, "-c", unpickle, str(tmp_path / "x.bin")], check=True, cwd=ROOT)
    assert mark.exists()
