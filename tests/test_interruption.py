"""Ctrl-C where no training loop waits for it: while a child measures, and in the middle of a stage."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from roots_compress.checkpoints.checkpoint import save_checkpoint
from roots_compress.run.stages import read_metrics, read_stages
from tests.faults.commands import Commands
from tests.tiny import tiny_checkpoint

PROCESSES = Path("/proc")
COMMAND = """
from roots_compress.cli.app import main
from tests import measuring
measuring.start_afresh()
main()
"""
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


def interrupt(commands: Commands, process: int, when: Callable[[], bool], then: str = "goes on") -> float:
    """Press Ctrl-C, which reaches the whole group, as soon as it is time; return the seconds to the end."""
    deadline = time.monotonic() + 90
    while not when():
        assert commands.running(), commands.said()
        assert time.monotonic() < deadline
    pressed = time.monotonic()
    os.killpg(process, signal.SIGINT)
    assert commands.end() == 130, commands.said()
    seconds = time.monotonic() - pressed
    assert f"the same command {then}" in commands.said()
    assert members(process) == []
    return seconds


def test_ctrl_c_leaves_no_process_and_the_same_command_goes_on(commands: Commands, tmp_path: Path) -> None:
    save_checkpoint(tiny_checkpoint(), tmp_path / "model")
    for name, word in (("text.txt", "times"), ("held.txt", "plus")):
        (tmp_path / name).write_text("\n".join(f"{i} {word} {i + 1} is more." for i in range(1500)))
    run = tmp_path / "run"
    texts = f"--data {tmp_path}/text.txt --eval-data {tmp_path}/held.txt"
    sizes = "--block-size 32 --windows 4 --threads 1"
    command = f"quantize {tmp_path}/model --weights-only {texts} {sizes} --run {run}".split()

    process = commands.start(*command, code=COMMAND)
    interrupt(
        commands, process, lambda: any("roots_compress.evaluation" in line for line in members(process))
    )
    assert read_stages(run)[0] == []

    process = commands.start(*command)
    interrupt(commands, process, (run / ".01-quantize.partial" / "work").is_dir)
    assert [stage.kind for stage in read_stages(run)[0]] == ["baseline"]

    assert commands.run(*command).code == 0, commands.said()
    assert "00 baseline: finished earlier, reused" in commands.said()
    assert "Traceback" not in commands.said()
    assert [stage.kind for stage in read_metrics(run).stages] == ["baseline", "quantize"]


def test_ctrl_c_ends_the_tokenizing_of_a_long_text_at_once(commands: Commands, tmp_path: Path) -> None:
    """A word of 12 million letters, which cannot be cut, is 10 seconds of one call into the library."""
    save_checkpoint(tiny_checkpoint(), tmp_path / "model")
    (tmp_path / "text.txt").write_text("another text. " * 300)
    (tmp_path / "held.txt").write_text("a" * 12_000_000)
    texts = f"--data {tmp_path}/text.txt --eval-data {tmp_path}/held.txt"
    command = f"eval {tmp_path}/model {texts} --block-size 32 --windows 4 --threads 1".split()
    process = commands.start(*command)

    def tokenizes() -> bool:
        status = (PROCESSES / str(process) / "status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) > 1_000_000  # kB; torch alone takes half of it

    assert interrupt(commands, process, tokenizes, "begins again") < 4
