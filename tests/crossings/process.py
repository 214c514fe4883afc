"""A command run for real, in a session of its own, and what it leaves behind besides its output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.crossings.materials import environment

TAG = "ROOTS_CROSSING"
"""The variable by which the processes of one command are found."""
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from roots_compress.__main__ import main
main()
"""
"""A shell that runs the tests in the background may have them ignore both signals."""
SHELL = ("bash", "-c")
NEVER_SAID = ("Traceback", "Exception ignored", "leaked")
LEAVING_SECONDS = 0.5
"""What the processes of an ended command get to end as well."""
OF_PYTORCH = "torchinductor_"
"""The name of an empty folder that PyTorch makes wherever it is imported."""


class Running:
    """A command that has been started.

    Args:
        place: an existing folder for its temporary files and its streams.
        arguments: of the command line.
        redirection: how a shell is to redirect its streams.
        going: a line of shell before it.
        changes: to its environment.
    """

    def __init__(
        self,
        place: Path,
        arguments: Sequence[str],
        *,
        redirection: str = "",
        going: str = "true",
        **changes: str | None,
    ) -> None:
        self._place = Path(tempfile.mkdtemp(dir=place))
        self._temporary, self._current = self._place / "temporary", self._place / "current"
        self._temporary.mkdir()
        self._current.mkdir()
        self._tag = str(self._place)
        names = {TAG: self._tag, "TMPDIR": str(self._temporary), **changes}
        plain = not redirection and going == "true"
        shell = () if plain else (*SHELL, f'{going}; "$@" {redirection}', "command")
        with (self._place / "out").open("wb") as out, (self._place / "err").open("wb") as err:
            self._process = subprocess.Popen(
                [*shell, sys.executable, "-c", PROGRAM, *arguments],
                cwd=self._current,
                env=environment(**names),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.started = time.monotonic()

    def send(self, number: signal.Signals) -> None:
        """Send a signal: to all processes where a terminal would, else to the first one."""
        reach = os.kill if number == signal.SIGTERM else os.killpg
        if self._process.poll() is None:
            reach(self._process.pid, number)

    def wait(self, seconds: float = 120) -> int:
        """Return the exit code."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise

    @property
    def said(self) -> str:
        """What was written on both streams."""
        return "".join(
            (self._place / name).read_bytes().decode("utf-8", "replace") for name in ("err", "out")
        )

    def faults(self) -> list[str]:
        """Return what an ended command must not have said or left."""
        said = self.said
        faults = [f"says {each!r}" for each in NEVER_SAID if each in said]
        deadline = time.monotonic() + LEAVING_SECONDS
        while (alive := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.02)
        faults += [f"process {each} goes on" for each in alive]
        left = [each.name for each in self._temporary.iterdir() if not each.name.startswith(OF_PYTORCH)]
        faults += [f"temporary file {each} is left" for each in left]
        return faults + [f"{each.name} is left in the current folder" for each in self._current.iterdir()]

    def _alive(self) -> list[int]:
        """Return the processes of the command that have not ended; without /proc none is seen."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
                ended = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            if os.fsencode(f"{TAG}={self._tag}") in variables and not ended:
                found.append(int(folder.name))
        return found
