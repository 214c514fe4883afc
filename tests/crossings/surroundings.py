"""Streams, locales, homes, and folders in which a command must do its work, or refuse it in words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.crossings.materials import Command
from tests.crossings.process import Running

NO_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ODD = os.fsdecode(b"caf\xe9\xff \n")
REFUSED = (1, 2)


@dataclass(frozen=True)
class Surrounding:
    """How a command is run."""

    redirection: str = ""
    changes: dict[str, str | None] = field(default_factory=dict)
    going: str = "true"
    """A line of shell before the command."""
    out: Callable[[Path], str] = lambda folder: str(folder / "out")
    """Where its output goes."""
    codes: tuple[int, ...] = (0,)
    """Exit codes that are right."""
    says: str = ""
    """What is said where the exit code is not 0."""
    about_output: bool = False
    """Whether only commands with an output meet it."""


SURROUNDINGS = {
    "ordinary": Surrounding(),
    "standard output closed": Surrounding(">&-"),
    "standard output full": Surrounding(
        ">/dev/full", codes=(0, 1), says="error: standard output: cannot be written: No space left on device"
    ),
    "standard error full": Surrounding("2>/dev/full"),
    "all streams closed": Surrounding("<&- >&- 2>&-"),
    "a reader that leaves": Surrounding("| true", codes=(0, 1)),
    "a locale without UTF-8": Surrounding(changes={**NO_UTF8}),
    "streams in ASCII": Surrounding(changes={"PYTHONIOENCODING": "ascii"}),
    "a narrow, dumb terminal": Surrounding(changes={"TERM": "dumb", "COLUMNS": "20"}),
    "no home": Surrounding(changes={"HOME": None, "USER": None}),
    "a home for reading only": Surrounding(changes={"HOME": "/proc"}),
    "TMPDIR that is not there": Surrounding(changes={"TMPDIR": "/nonexistent"}),
    "a current folder that is gone": Surrounding(
        going='mkdir gone && cd gone && rmdir "$PWD"', codes=(0, *REFUSED), says="No such file or directory"
    ),
    "an output that cannot be": Surrounding(
        out=lambda _: "/proc/out", codes=REFUSED, says="error: ", about_output=True
    ),
    "an output whose name is no text": Surrounding(out=lambda folder: str(folder / ODD), about_output=True),
    "both that and a locale without UTF-8": Surrounding(
        changes={**NO_UTF8}, out=lambda folder: str(folder / ODD), about_output=True
    ),
}


def faults_of(command: Command, surrounding: Surrounding, folder: Path) -> list[str]:
    """Run a command in a surrounding, in a new folder; return what is wrong with how it ended."""
    folder.mkdir()
    streams = folder / "streams"
    streams.mkdir()
    kept = "" if not surrounding.redirection else "; exit ${PIPESTATUS[0]}"
    running = Running(
        streams,
        command.to(surrounding.out(folder)),
        redirection=surrounding.redirection + kept,
        going=surrounding.going,
        **surrounding.changes,
    )
    code = running.wait()
    faults, said = running.faults(), running.said
    if code not in surrounding.codes:
        faults.append(f"exit code {code}, not {surrounding.codes}: {said[-500:]}")
    elif code and surrounding.says not in said:
        faults.append(f"does not say {surrounding.says!r}: {said[-500:]}")
    wanted = {Path(surrounding.out(folder)), streams}
    faults += [f"{each} is left" for each in folder.iterdir() if each not in wanted]
    if code == 0 and command.writes and not Path(surrounding.out(folder)).exists():
        faults.append("wrote nothing")
    shutil.rmtree(folder)
    return faults
