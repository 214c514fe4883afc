"""Commands run for real, to be killed, and Python that must run in another process than the tests'.

A forking server starts them, each in a process group of its own.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.fork_server import Process, Server

COMMAND = "from roots_compress.cli.app import main; main()"
ADDRESS = "ROOTS_TESTS_COMMANDS"
"""The variable with the address of a server that all test processes share."""
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
        self._folder = folder
        self._server = None if ADDRESS in os.environ else start_server()
        self.address = os.environ[ADDRESS] if self._server is None else self._server.address
        self._process: Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

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
        work = [COMMAND if code is None else code, *map(str, arguments)]
        with Path(os.devnull).open() as nothing, self.log.open("a") as log:
            streams = nothing.fileno(), log.fileno(), log.fileno()
            self._process = Process(self.address, work, streams, folder=self._folder)
        return self._process.pid

    def running(self, seconds: float = 0.001) -> bool:
        """Whether the command that was started still runs after so many seconds."""
        assert self._process is not None
        return self._process.running(seconds)

    def end(self) -> int:
        """Wait for the command that was started, and return its exit code, or minus the signal."""
        assert self._process is not None
        return self._process.wait()

    def said(self) -> str:
        """Return all that the commands wrote."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


def start_server() -> Server:
    """Start a server of commands and of Python code."""
    return Server(
        __name__,
        {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            # Text is hashed otherwise than in this process, so that what depends on it shows.
            "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1",
        },
    )


def warm_up() -> None:
    """Import what a command would in its first seconds, so that kills fall on its work."""
    from tests import measuring, verbs

    import_package()
    verbs.build_once()
    measuring.be_brief()
    os.fsync = lambda fd: None  # A dead process loses no write that the system has taken.
    if measuring.ADDRESS in os.environ:
        measuring.start_at_once()


def import_package() -> None:
    """Import all of the package, and the libraries with it."""
    import roots_compress

    for module in pkgutil.walk_packages(roots_compress.__path__, "roots_compress."):
        if not module.name.endswith(".__main__"):
            with suppress(ModuleNotFoundError):  # of an extra
                importlib.import_module(module.name)


def work(code: str, *arguments: str) -> None:
    """Be Python code with arguments."""
    sys.argv = ["roots-compress" if code == COMMAND else "-c", *arguments]
    exec(code, {"__name__": "__main__"})
