"""Commands run for real, to be killed, and Python that must run in another process than the tests'.

A forking server starts them, each in a process group of its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

Reach = Literal["group", "process"]
"""Whether a kill takes the measuring children too, as a container's end does, or the command alone."""


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    code: int
    """Its exit code, or minus the signal that killed it."""
    seconds: float


class Commands:
    """Runs `roots-compress` commands in a folder, one at a time. Use as a context manager."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.log = log
        # Text is hashed otherwise than in this process, so that what depends on it shows.
        hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONHASHSEED": hash_seed,
        }
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=folder,
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def run(self, *arguments: str | Path, kill_after: float | None = None, reach: Reach = "group") -> Ending:
        """Carry a command out, or kill it (SIGKILL) where it has not ended after so many seconds."""
        process = self.start(*arguments)
        started = time.monotonic()
        if kill_after is not None and self.running(kill_after):
            with suppress(ProcessLookupError):
                (os.killpg if reach == "group" else os.kill)(process, signal.SIGKILL)
        return Ending(self.end(), time.monotonic() - started)

    def python(self, code: str, *arguments: str | Path) -> str:
        """Carry Python code out, with the arguments in `sys.argv[1:]`, and return all that was written.

        The process has imported the package and done nothing else with it.

        Raises:
            AssertionError: it failed.
        """
        self.start(*arguments, code=code)
        ended = self.end()
        assert ended == 0, self.said()
        return self.said()

    def start(self, *arguments: str | Path, code: str | None = None) -> int:
        """Start a command, or Python code, and return its process id; `end` must follow."""
        assert self._server.stdin is not None
        request = {"arguments": [str(argument) for argument in arguments], "log": str(self.log), "code": code}
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        return int(self._line())

    def running(self, seconds: float = 0.001) -> bool:
        """Whether the command that was started still runs after so many seconds."""
        assert self._server.stdout is not None
        return not select.select([self._server.stdout], [], [], seconds)[0]

    def end(self) -> int:
        """Wait for the command that was started, and return its exit code, or minus the signal."""
        return int(self._line())

    def said(self) -> str:
        """Return all that the commands wrote."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def _line(self) -> bytes:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, "the forking server died"
        return line
