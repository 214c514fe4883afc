"""Hard places for a command, made in the process that carries it out before it begins."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import measuring
from tests.faults.commands import Commands

CLONE_NEWNS = 0x00020000
PREPARED = (
    "import json, sys; from tests.cli import surroundings; from roots_compress.cli.app import main\n"
    "for name, *given in json.loads(sys.argv.pop(1)): getattr(surroundings, name)(*given)\n"
    "main()"
)
Step = tuple[str | Path, ...]
"""A function of this module, by name, and what it is given."""


def command(commands: Commands, *arguments: object, prepare: tuple[Step, ...] = ()) -> tuple[int, str]:
    """Carry out a command after some steps, in one process; return its exit code and what it wrote."""
    commands.log.unlink(missing_ok=True)
    steps = json.dumps([[str(part) for part in step] for step in prepare])
    commands.start(steps, *map(str, arguments), code=PREPARED)
    code, said = commands.end(), commands.said()
    assert "Traceback" not in said, said
    return code, said


def allows_mounts(place: Path) -> bool:
    """Whether `small_disk` works here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True, check=False
    )
    return tried.returncode == 0


def go(place: str) -> None:
    """Make a folder the current one."""
    os.chdir(place)


def go_and_lose(place: str) -> None:
    """Make a folder the current one, and remove it."""
    os.chdir(place)
    Path(place).rmdir()


def small_disk(place: str, options: str) -> None:
    """Have this process see a small disk at a place, which nobody else sees."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    # The server of measuring processes does not see it either.
    measuring.start_afresh()


def temporary_files_in(place: str) -> None:
    """Have temporary files made in a folder, for which tempfile has found room."""
    os.environ["TMPDIR"] = place
    tempfile.tempdir = place


def no_temporary_folder() -> None:
    """Have tempfile find no folder to write to."""

    def none(*_: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    tempfile.gettempdir = none


def fill(file: str, size: str) -> None:
    """Write a file of so many bytes."""
    Path(file).write_bytes(b"x" * int(size))


def copy(source: str, folder: str) -> None:
    """Copy a folder into another."""
    shutil.copytree(source, Path(folder, Path(source).name))


def lock(place: str) -> None:
    """Leave a disk for reading only, and make it home and current folder."""
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    os.environ["HOME"] = place
    os.chdir(place)
