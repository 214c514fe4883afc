"""Ctrl-C where no training loop waits for it: while a child measures, and in the middle of a stage."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from roots_compress.model.checkpoint import save_checkpoint
from roots_compress.run.stages import read_metrics, read_stages
from tests.faults.commands import Commands
from tests.tiny import tiny_checkpoint

PROCESSES = Path("/proc")
pytestmark = pytest.mark.skipif(not PROCESSES.is_dir(), reason="children are found through /proc")


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


def interrupt(commands: Commands, process: int, when: Callable[[], bool]) -> None:
    """Press Ctrl-C, which reaches the whole group, as soon as it is time."""
    deadline = time.monotonic() + 90
    while not when():
        assert commands.running(), commands.said()
        assert time.monotonic() < deadline
    os.killpg(process, signal.SIGINT)
    assert commands.end() == 130, commands.said()
    assert "the same command goes on from there" in commands.said()
    assert members(process) == []


def test_ctrl_c_leaves_no_process_and_the_same_command_goes_on(commands: Commands, tmp_path: Path) -> None:
    save_checkpoint(tiny_checkpoint(), tmp_path / "model")
    for name, word in (("text.txt", "times"), ("held.txt", "plus")):
        (tmp_path / name).write_text("\n".join(f"{i} {word} {i + 1} is more." for i in range(1500)))
    run = tmp_path / "run"
    texts = f"--data {tmp_path}/text.txt --eval-data {tmp_path}/held.txt"
    sizes = "--block-size 32 --windows 4 --threads 1"
    command = f"quantize {tmp_path}/model {texts} {sizes} --run {run}".split()

    process = commands.start(*command)
    interrupt(commands, process, lambda: any("roots_compress.evaluate" in line for line in members(process)))
    assert read_stages(run)[0] == []

    process = commands.start(*command)
    interrupt(commands, process, (run / ".01-quantize.partial" / "work").is_dir)
    assert [stage.kind for stage in read_stages(run)[0]] == ["baseline"]

    assert commands.run(*command).code == 0, commands.said()
    assert "00 baseline: finished earlier, reused" in commands.said()
    assert "Traceback" not in commands.said()
    assert [stage.kind for stage in read_metrics(run).stages] == ["baseline", "quantize"]
