"""Ctrl-C where no training loop waits for it: while a child measures, and in the middle of a stage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from roots_compress.model.checkpoint import save_checkpoint
from roots_compress.run.stages import read_metrics, read_stages
from tests.tiny import tiny_checkpoint

PROCESSES = Path("/proc")
pytestmark = pytest.mark.skipif(not PROCESSES.is_dir(), reason="children are found through /proc")


def start(folder: Path) -> subprocess.Popen[str]:
    code = "from roots_compress.cli.app import main; main()"
    options = "--data text.txt --eval-data held.txt --block-size 32 --windows 4 --threads 1 --run run"
    return subprocess.Popen(
        [sys.executable, "-c", code, "quantize", "model", *options.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=True,
    )


def members(group: int) -> list[str]:
    """Return the command lines of the living processes in a group."""
    found = []
    for process in PROCESSES.iterdir():
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if process.name.isdigit() and int(fields[2]) == group and fields[0] != "Z":
                found.append((process / "cmdline").read_text())
        except (OSError, IndexError):
            continue  # not a process, or one that has ended since
    return found


def interrupt(process: subprocess.Popen[str], when: Callable[[], bool]) -> str:
    """Press Ctrl-C, which reaches the whole group, as soon as it is time; return what is said."""
    deadline = time.monotonic() + 90
    while not when():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "the same command goes on from there" in stderr
    assert members(process.pid) == []
    return stderr


def test_ctrl_c_leaves_no_process_and_the_same_command_goes_on(tmp_path: Path) -> None:
    save_checkpoint(tiny_checkpoint(), tmp_path / "model")
    for name, word in (("text.txt", "times"), ("held.txt", "plus")):
        (tmp_path / name).write_text("\n".join(f"{i} {word} {i + 1} is more." for i in range(1500)))
    run = tmp_path / "run"

    process = start(tmp_path)
    interrupt(process, lambda: any("roots_compress.evaluate" in line for line in members(process.pid)))
    assert read_stages(run)[0] == []

    process = start(tmp_path)
    interrupt(process, (run / ".01-quantize.partial" / "work").is_dir)
    assert [stage.kind for stage in read_stages(run)[0]] == ["baseline"]

    process = start(tmp_path)
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 0, stderr
    assert "00 baseline: finished earlier, reused" in stderr
    assert [stage.kind for stage in read_metrics(run).stages] == ["baseline", "quantize"]
